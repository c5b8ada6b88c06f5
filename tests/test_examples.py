"""Each example runs as its README says, and so do the classes of docs/guides/extend.md, on tiny data."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lab import Command, Tiny, completed, write_files_of_guide

from mnist_lab.runs.run import Run

EXAMPLES = Path(__file__).parent.parent / "examples"
COMMANDS = re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", (EXAMPLES / "README.md").read_text(), flags=re.MULTILINE)
QUICK = ["trainer.accelerator=cpu", "figures=false"]
TINY = ["data=arrays", "data.source.path=tiny.npz", "trainer.max_epochs=1", *QUICK]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples, with a tiny data set, as the current folder."""
    copied = Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("runs", "shapes")))
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    np.savez(copied / "tiny.npz", images=images, labels=np.arange(40) % 4)
    monkeypatch.chdir(copied)
    return copied


def run(command: str, *settings: str) -> str:
    """Return the output of a Python command line with further settings, which has to succeed."""
    _, *words = shlex.split(command)
    if words[0] != "-m":
        words[:1] = ["-c", f"import runpy; runpy.run_path({words[0]!r}, run_name='__main__')"]
    done = completed(*words, *settings)
    assert done.status == 0, done.out + done.err
    return done.out


def test_examples_are_those_that_are_tested_here() -> None:
    last_words = [command.split()[-1] for command in COMMANDS]
    assert last_words == ["model.width=128", "callbacks=weight_norm", "own_data.py", "sweep.py", "slurm_sweep.sh"]


@pytest.mark.slow
def test_network_of_ones_own_is_trained_at_its_width(folder: Path) -> None:
    out = run(COMMANDS[0], *TINY)
    assert "128" in out and "TwoLayer" in out
    assert Run.find("latest").info["parameters"] == 785 * 128 + 129 * 4


@pytest.mark.slow
def test_callback_of_ones_own_writes_its_column(folder: Path) -> None:
    run(COMMANDS[1], *TINY)
    (row,) = Run.find("latest").epochs()
    assert row["weight_norm"] > 0


@pytest.mark.slow
def test_data_of_ones_own_are_learnt(folder: Path) -> None:
    assert "classes: circle, cross, square" in run(COMMANDS[2], *QUICK)
    assert Run.find("latest").info["metrics"]["test/acc"] > 0.9


@pytest.mark.slow
def test_sweep_from_python_prints_its_jobs_best_first(folder: Path) -> None:
    lines = run(COMMANDS[3], *TINY).splitlines()[-4:]
    accuracies = [float(re.search(r"validation ([\d.]+)%", line)[1]) for line in lines]  # type: ignore[index]
    assert len(accuracies) == 4 and accuracies == sorted(accuracies, reverse=True)


def test_slurm_script_is_a_valid_command_file() -> None:
    path = EXAMPLES / "slurm_sweep.sh"
    text = path.read_text()
    options = re.findall(r"^#SBATCH --([\w-]+)=\S+$", text, flags=re.MULTILINE)
    assert options == ["job-name", "time", "cpus-per-task", "mem", "output"]
    assert text.index("#SBATCH --output") < text.index("set -euo"), "sbatch reads no options after a command"
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


@pytest.mark.thorough
def test_slurm_script_runs_its_sweep_on_one_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCHER", "processes")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    done = subprocess.run(["bash", "slurm_sweep.sh", *TINY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(Run.below(folder / "runs" / "sweeps" / "six")) == 6, done.stdout


@pytest.fixture
def guide(command: Command, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Trains an mlp with the classes of docs/guides/extend.md, of which each test takes one."""
    write_files_of_guide("extend.md")
    shutil.copytree("my_conf", tiny.conf, dirs_exist_ok=True)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    for name in ("my_callback", "my_logger", "my_scheduler"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return lambda *settings: command("model=mlp", *settings)


@pytest.mark.parametrize(("accuracy", "epochs"), [(0.0, 1), (2.0, 2)])
def test_callback_of_the_guide_ends_training_at_its_accuracy(guide: Command, accuracy: float, epochs: int) -> None:
    outcome = guide("callbacks=stop_at", f"callbacks.stop_at.accuracy={accuracy}")
    assert (outcome.status, Run.find("latest").info["epochs"]) == (0, epochs), outcome.err


def test_logger_of_the_guide_writes_what_metrics_csv_has(guide: Command) -> None:
    outcome = guide("logger=json_lines")
    run = Run.find("latest")
    rows: dict[int, dict[str, float]] = {}
    for line in (run.folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows.setdefault(row["step"], {}).update(row)
    assert (outcome.status, list(rows.values())) == (0, run.metrics()), outcome.err
    assert run.event_paths, "TensorBoard's logger is there, too"


def test_scheduler_of_the_guide_warms_up_step_by_step_and_continues(guide: Command) -> None:
    settings = ("scheduler=warm_up", "scheduler.epochs=1.5", "optimizer.lr=0.018", "trainer.log_every_n_steps=1")
    rates = []
    for folder, *further in (
        ("whole", "hydra.run.dir=whole"),
        ("parts", "hydra.run.dir=parts", "trainer.max_epochs=1"),
        ("parts", "resume=parts"),
    ):
        outcome = guide(*settings, *further)
        assert outcome.status == 0, outcome.err
        rates.append([row["lr"] for row in Run(Path(folder)).metrics() if "lr" in row])
    assert rates[0] == pytest.approx([0.001 * min(step, 18) for step in range(1, 25)])
    assert rates[1] == rates[0][:12] and rates[2] == rates[0]
