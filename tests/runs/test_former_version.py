"""Runs and sweeps made by version 0.1.0 are still read, continued and recognised.

runs_of_version_0_1_0.tar.xz has a run and a finished sweep of a network of 50 weights on the tiny data set. They were
made by commit 158e64f with the network and the configuration that lie beside them in the archive:

    python -m mnist_lab --config-dir conf data=tiny model=tiny_net threads=1 trainer.accelerator=cpu figures=false \
        trainer.max_epochs=1 hydra.run.dir=runs/tiny_net
    python -m mnist_lab -m --config-dir conf data=tiny model=tiny_net threads=1 trainer.accelerator=cpu figures=false \
        trainer.max_epochs=1 optimizer.lr=0.1,0.2 sweep=lr
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from lab import Command, Tiny
from omegaconf import open_dict, read_write

from mnist_lab.config.former_names import CURRENT_NAMES
from mnist_lab.config.overrides import compose_with_hydra
from mnist_lab.config.settings import differing_settings
from mnist_lab.config.targets import _locate
from mnist_lab.runs import Run
from mnist_lab.sweeps.identity import job_id

FORMER = Path(__file__).with_name("runs_of_version_0_1_0.tar.xz")
RUN = Path("runs/tiny_net")


@pytest.fixture(autouse=True)
def _former_runs(tiny: Tiny) -> None:
    """Put the runs, their network and its configuration where a user would have them."""
    with tarfile.open(FORMER) as archive:
        archive.extractall(".", filter="data")
    shutil.copytree("conf/model", tiny.conf / "model")


def test_run_is_listed(command: Command) -> None:
    outcome = command("ls", "--json", data=False)
    (row,) = [row for row in json.loads(outcome.out) if row["run"] == str(RUN)]
    assert (row["model"], row["status"], row["epochs"]) == ("tiny_net", "finished", 1)
    assert row["test/acc"] == Run(RUN).info["metrics"]["test/acc"]


def test_run_is_tested_to_the_same_figures(command: Command, tiny: Tiny) -> None:
    outcome = command("test", str(RUN), f"data.root={tiny.root}", data=False)
    assert outcome.status == 0, outcome.err
    assert "as the run recorded" in outcome.out


def test_run_is_resumed(command: Command, tiny: Tiny) -> None:
    outcome = command(
        "--config-dir", str(tiny.conf), f"resume={RUN}", f"data.root={tiny.root}", "trainer.max_epochs=2", data=False
    )
    assert outcome.status == 0, outcome.err
    info = Run(RUN).info
    assert (info["status"], info["epochs"], info["steps"]) == ("finished", 2, 24)
    names = [
        line.split()[-1] for line in (RUN / "config.yaml").read_text().splitlines() if "_target_: mnist_lab" in line
    ]
    assert names
    assert not set(names) & set(CURRENT_NAMES), "the resumed run's configuration names classes as they are called now"


def test_run_has_a_report(command: Command, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    config = (RUN / "config.yaml").read_text().replace("/tmp/example/data", str(tiny.root))
    (RUN / "config.yaml").write_text(config)  # the data lie elsewhere than on the machine that made the run
    outcome = command("report", str(RUN), data=False)
    assert outcome.status == 0, outcome.err
    assert "tiny_net" in (RUN / "report.html").read_text(encoding="utf-8")


def test_finished_sweep_is_not_trained_again(command: Command, tiny: Tiny) -> None:
    before = {path: path.read_bytes() for path in Path("runs/sweeps/lr").glob("*/run.json")}
    assert len(before) == 2
    outcome = command(
        *("-m", "--config-dir", str(tiny.conf), "data=tiny", "model=tiny_net", "threads=1", "trainer.accelerator=cpu"),
        *("figures=false", "trainer.max_epochs=1", "optimizer.lr=0.1,0.2", "sweep=lr"),
        data=False,
    )
    assert outcome.status == 0, outcome.err
    assert {path: path.read_bytes() for path in Path("runs/sweeps/lr").glob("*/run.json")} == before


@pytest.mark.parametrize("name", CURRENT_NAMES.values())
def test_current_name_is_that_of_a_class(name: str) -> None:
    assert isinstance(_locate(name), type)


def test_former_reload_after_is_a_callback_and_the_same_job(tiny: Tiny) -> None:
    path = RUN / "config.yaml"
    path.write_text(path.read_text().replace("reload_after: null", "reload_after: 5"))
    config = Run(RUN).config
    assert "reload_after" not in config
    preset = tiny.compose("experiment=lenet_continued")
    assert config.callbacks.reload == preset.callbacks.reload
    assert not [key for key in differing_settings(config, preset) if "reload" in key]


def test_jobs_of_a_preset_have_the_ids_that_version_0_1_0_gave_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # and set back to what it is
    for preset, id in (("lenet_continued", "7f3f6f817fdd"), ("mlp", "faaa45ae6ae2")):
        config = compose_with_hydra([f"experiment={preset}", "seed=3", "trainer.precision=32-true"])
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.runtime.output_dir = str(tmp_path)
        HydraConfig.instance().set_config(config)
        assert job_id(config) == id
