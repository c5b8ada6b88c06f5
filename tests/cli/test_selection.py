"""Commands that take a run also take several, a folder of runs, or those that fulfil a condition."""

import json
import shlex
from pathlib import Path

import pytest
from lab import Command, Tiny, assert_refused
from test_digits import drawn
from test_ls import fake_runs

from mnist_lab.training.train import train


@pytest.fixture
def two(tiny: Tiny) -> None:
    """Train runs/a/mlp and runs/b/lenet."""
    for folder, model in (("a", "mlp"), ("b", "lenet")):
        short = ("trainer.max_epochs=1", "dashboard=none", "figures=false")
        train(tiny.compose(f"model={model}", *short, f"hydra.run.dir=runs/{folder}/{model}"))


def test_each_of_the_runs_is_tested(two: None, command: Command) -> None:
    for words, models in (
        (["mlp", "lenet"], ["mlp", "lenet"]),
        (["--where", "model == lenet"], ["lenet"]),
        (["runs/a", "--where", "epochs == 1"], ["mlp"]),
    ):
        outcome = command("test", *words, "trainer.accelerator=cpu", data=False)
        assert (outcome.status, outcome.out.count("as the run recorded")) == (0, len(models)), outcome.err
        assert [name for name in ("mlp", "lenet") if f"{name}, weights of epoch 1" in outcome.out] == models


def test_checkpoint_is_tested_and_predicts_with_its_own_weights(two: None, command: Command, tiny: Tiny) -> None:
    other = tiny.compose("model=mlp", "trainer.max_epochs=0", "dashboard=none", "hydra.run.dir=runs/c")
    last = Path("runs/a/mlp/checkpoints/last.ckpt")
    untrained = train(other)
    last.write_bytes(untrained.checkpoint_path("last").read_bytes())
    drawn().save("one.png")
    best = last.with_name("best.ckpt")
    outcomes = {path: command("test", str(path), data=False) for path in (best, last)}
    assert "weights of best.ckpt" in outcomes[best].out and "(as the run recorded)" in outcomes[best].out
    assert (
        "weights of last.ckpt" in outcomes[last].out
        and f"test/acc {untrained.info['metrics']['test/acc']!r} (the run recorded" in outcomes[last].out
    )
    answers = [command("predict", name, "one.png", "--json", data=False).out for name in ("mlp", str(best), str(last))]
    assert answers[0] == answers[1] != answers[2]


def test_run_sweep_and_folder_are_listed_and_reported(lab: Command) -> None:
    fake_runs()
    job = "lr=0.1-0123456789ab"
    listed = {
        "runs/sweeps/s": [job],
        "s": [job],
        "a": ["a"],
        "latest runs/a": ["a", "b"],
        "runs latest runs/a": ["a", job, "b"],
        "runs --where 'model == lenet'": ["b"],
        "runs/b/checkpoints/last.ckpt": ["b"],
    }
    for words, names in listed.items():
        rows = json.loads(lab("ls", *shlex.split(words), "--json").out)
        assert sorted(Path(row["run"]).name for row in rows) == sorted(names), words
    states = lab("status", "s", "--json").out
    assert lab("status", f"runs/sweeps/s/{job}", "--json").out == lab("status", "runs/sweeps/s", "--json").out == states
    assert "removed: runs/sweeps/s\n" in lab("rm", "s").out and not Path("runs/sweeps/s").exists()
    assert lab("restore", "s").status == 0 and lab("archive", "s", "s.zip").status == 0
    assert_refused(lab("test", "s.zip"), "s.zip: not a run folder (it has no run.json)")


@pytest.mark.slow
def test_each_of_the_runs_is_exported_and_reported_and_predicts(two: None, command: Command) -> None:
    assert command("export", "runs", "--format", "state_dict", data=False).status == 0
    assert [path.name for path in sorted(Path("runs").rglob("exports/*.pt"))] == ["mlp.pt", "lenet.pt"]
    outcome = command("report", "mlp", "lenet", data=False)
    assert outcome.out == "written: runs/a/mlp/report.html\nwritten: runs/b/lenet/report.html\n"
    assert "trainer.max_epochs=2" in Path("runs/a/mlp/report.html").read_text(), "one more epoch than the run had"
    assert command("compare", "--where", "epochs == 1", "--json", data=False).status == 0
    assert command("robustness", "--where", "model == mlp", "--only", "blur", data=False).status == 0
    drawn().save("one.png")
    Path("bad.png").write_text("no image")
    outcome = command("predict", "runs", "one.png", "bad.png", "--json", data=False)
    rows = json.loads(outcome.out)
    assert outcome.status == 1 and outcome.err.count("bad.png") == 1
    assert [Path(row["run"]).name for row in rows] == ["mlp", "lenet"]
    alone = [json.loads(command("predict", name, "one.png", "--json", data=False).out) for name in ("mlp", "lenet")]
    assert [[{key: row[key] for key in row if key != "run"}] for row in rows] == alone
    outcome = command("predict", "--where", "epochs == 1", "one.png", data=False)
    assert outcome.out.count("one.png") == 2 and "runs/a/mlp" in outcome.out
