"""Kills runs with SIGKILL at random moments, resumes them, and compares the results with those of an undisturbed run.

    python -m benchmarks.kills [--kills 100 [--sweep [--kind KIND]] | --power-loss 300] [--folder FOLDER] [KEY=VALUE]

It starts the same command with resume=auto again and again, and kills it after a random time, within steps, saves and
validation, until a start finishes. Then weights, optimizer, best checkpoint, metrics.csv and TensorBoard's points must
be those of the undisturbed run, bit for bit, and no partial file may be left. It prints the number of kills and of runs
that lost anything; if any did, the exit status is 1.

With --sweep it kills sweeps: a grid, successive halving and a search, with jobs one after the other and side by side.
It kills the process group, the sweep's process or a worker, and starts the same command until the sweep is done.
Then results.json must be that of the undisturbed sweep, bit for bit, except for times and attempts. Ten seconds after a
kill no process of the sweep may be left, and no traceback may be printed.

With --power-loss it records each write, sync and rename of one run. Power failures at moments spread over the run lose
what POSIX allows of what was not synced. What is left on the disk is resumed and compared in the same way.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import sweep_kills
from benchmarks.power_loss import Recorder, failures, rebuild
from mnist_lab.__main__ import main as command_line
from mnist_lab.config.metric_names import IMAGES_PER_SECOND
from mnist_lab.console import console
from mnist_lab.runs.run import Run

SETTINGS = (
    "model=dropout_cnn",
    "scheduler=onecycle",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=60",
    "trainer.log_every_n_steps=5",
    "trainer.accelerator=cpu",
    "callbacks.checkpoint.every_n_train_steps=4",
)


def start(runs_dir: Path, settings: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the command."""
    command = [sys.executable, "-m", "mnist_lab", *settings, f"runs_dir={runs_dir}", "resume=auto"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run_undisturbed(runs_dir: Path, settings: Sequence[str]) -> tuple[Run, float]:
    """Run the command to its end; return the run and its seconds."""
    started = time.perf_counter()
    process = start(runs_dir, settings)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(output.decode())
    return Run.find("latest", runs_dir), time.perf_counter() - started


def run_with_kills(runs_dir: Path, settings: Sequence[str], seconds: float, chance: random.Random, most: int) -> int:
    """Start and kill the command until it finishes, killing it at most `most` times; return the number of kills."""
    kills = 0
    while True:
        process = start(runs_dir, settings)
        try:
            limit = chance.uniform(0.4, 1.05) * seconds if kills < most else None
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        if process.returncode:
            raise RuntimeError(output.decode())
        return kills


def losses(one: Run, other: Run, *, repeats: bool = True) -> list[str]:
    """Return the differences of a run from the undisturbed run.

    Args:
        one: the undisturbed run.
        other: the other run.
        repeats: whether TensorBoard's points must be repeated equally often. Lightning writes some of them several
            times, such as an epoch's number; event files that a power failure took are written again without repeats.
    """
    found = []
    for name in ("last", "best"):
        content, others = (
            torch.load(run.folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (one, other)
        )
        parts = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")
        found += [f"{name}.ckpt: {part}" for part in parts if not same(content[part], others[part])]
    if rows(one) != rows(other):
        found.append("metrics.csv")
    if one.info["metrics"] != other.info["metrics"] or one.info["tested"] != other.info["tested"]:
        found.append("run.json")
    first, second = points(one), points(other)
    are_equal = first == second if repeats else set(first) == set(second) and second <= first
    if not are_equal:
        found.append("TensorBoard's points")
    found += [f"litter: {path.name}" for path in other.folder.rglob("*.partial")]
    return found


def same(one: Any, other: Any) -> bool:
    """Return whether two parts of checkpoints are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def rows(run: Run) -> list[dict[str, float]]:
    """Return the rows of metrics.csv without the speed."""
    return [{name: row[name] for name in row if name != IMAGES_PER_SECOND} for row in run.metrics()]


def points(run: Run) -> Counter[tuple[str, int, float]]:
    """Count TensorBoard's points by tag, step and value, without the speed."""
    events = EventAccumulator(str(run.folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != IMAGES_PER_SECOND]
    return Counter((tag, event.step, event.value) for tag in tags for event in events.Scalars(tag))


def power_failures(folder: Path, settings: Sequence[str], clones: int, seed: int) -> int:
    """Resume from disks after power failures, and compare; return exit status 1 if anything was lost."""
    recorder = Recorder(folder / "disk")
    recorder.folder.mkdir()
    with recorder.recording():
        in_this_process(recorder.folder / "runs", settings)
    undisturbed, lost = Run.find("latest", recorder.folder / "runs"), 0
    for clone, (moment, loss) in enumerate(failures(len(recorder.changes), clones, seed)):
        place = folder / str(clone)
        rebuild(recorder.disk_after(moment, loss, random.Random(clone)), place)
        in_this_process(place / "runs", settings)
        found = losses(undisturbed, Run.find("latest", place / "runs"), repeats=False)
        lost += bool(found)
        result = ", ".join(found) or "nothing lost"
        print(f"clone {clone + 1}, change {moment} of {len(recorder.changes)}, loss {loss}: {result}", flush=True)
        shutil.rmtree(place)
    print(f"{clones} power failures; {lost} runs lost anything")
    return int(lost > 0)


def in_this_process(runs_dir: Path, settings: Sequence[str]) -> None:
    """Run the command of `start` in this process, without output."""
    arguments, sys.argv = sys.argv, ["mnist_lab", *settings, f"runs_dir={runs_dir}", "resume=auto"]
    quiet, console.quiet = console.quiet, True
    try:
        command_line()
    finally:
        sys.argv, console.quiet = arguments, quiet


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*", default=[])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--sweep", action="store_true", help="kill sweeps")
    parser.add_argument("--kind", choices=sweep_kills.KINDS, help="kind of sweep (default: all in turn)")
    parser.add_argument("--folder", type=Path, help="folder for the runs, such as one on another file system")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--power-loss", type=int, metavar="CLONES", help="simulate power failures")
    options = parser.parse_args()
    settings = [*(sweep_kills.SETTINGS if options.sweep else SETTINGS), *options.settings]
    chance = random.Random(options.seed)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.sweep:
            kinds = [options.kind] if options.kind else list(sweep_kills.KINDS)
            return int(sweep_kills.kill_sweeps(Path(folder), settings, options.kills, chance, kinds) > 0)
        if options.power_loss:
            return power_failures(Path(folder), settings, options.power_loss, options.seed)
        undisturbed, seconds = run_undisturbed(Path(folder) / "undisturbed", settings)
        kills = runs = lost = 0
        while kills < options.kills:
            runs_dir = Path(folder) / str(runs)
            kills += run_with_kills(runs_dir, settings, seconds, chance, most=options.kills - kills)
            found = losses(undisturbed, Run.find("latest", runs_dir))
            runs, lost = runs + 1, lost + bool(found)
            print(f"run {runs}, {kills} kills so far: {', '.join(found) or 'nothing lost'}", flush=True)
    print(f"{kills} kills in {runs} runs; {lost} runs lost anything")
    return int(lost > 0)


if __name__ == "__main__":
    raise SystemExit(main())
