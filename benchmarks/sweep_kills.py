"""The work of `python -m benchmarks.kills --sweep`: kills sweeps, continues them, and compares their results."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = (
    "model=mlp",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=20",
    "trainer.limit_val_batches=2",
    "trainer.accelerator=cpu",
    "callbacks.checkpoint.every_n_train_steps=8",
    "logger=csv",
    "threads=1",
    "sweep=s",
)
GRID = ("optimizer.lr=0.001,0.01", "seed=0,1,2")
SEARCH = (
    "hydra/sweeper=optuna",
    "hydra.sweeper.n_trials=8",
    "optimizer.lr=tag(log,interval(0.0003,0.3))",
    "data.batch_size=32,64",
)
HALVING = ("hydra/sweeper=halving", "hydra.sweeper.eta=2", *GRID)
PROCESSES = ("hydra/launcher=processes", "hydra.launcher.n_jobs=2")
KINDS = {
    "grid": GRID,
    "processes": (*GRID, *PROCESSES),
    "halving": HALVING,
    "halving with processes": (*HALVING, *PROCESSES),
    "optuna": SEARCH,
    "optuna with processes": (*SEARCH, *PROCESSES),
}
TARGETS = ("group", "parent", "worker")
PATIENCE = 10.0  # seconds after which no process of a killed sweep may be left


@dataclass
class KilledSweep:
    """A sweep that is killed and continued until it is done.

    Attributes:
        runs_dir: the folder of its runs.
        settings: the arguments of its command.
        kills: what was killed, each time.
        ended: the moment at which each session was killed, by its number.
        output: the output of its commands.
    """

    runs_dir: Path
    settings: Sequence[str]
    kills: list[str] = field(default_factory=list)
    ended: dict[int, float] = field(default_factory=dict)
    output: str = ""

    def run(self, chance: random.Random, seconds: float, most: int) -> None:
        """Start the sweep, kill it at random moments, at most `most` times, and continue it until it is done."""
        command = [sys.executable, "-m", "mnist_lab", "-m", *self.settings, f"runs_dir={self.runs_dir}"]
        status: int | None = None
        while status != 0:
            with tempfile.TemporaryFile() as output:
                process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(chance.uniform(0.15, 0.7) * seconds if len(self.kills) < most else None)
                        break
                    self._kill(process, chance.choice(TARGETS))
                status = process.wait()
                output.seek(0)
                self.output += output.read().decode()
            if status not in (0, 1, -signal.SIGKILL) or (status == 1 and not self.kills):
                raise RuntimeError(f"exit status {status}: {self.output}")

    def _kill(self, process: subprocess.Popen[bytes], target: str) -> None:
        workers = [pid for pid, command in session(process.pid) if "LokyProcess" in command]
        target = "parent" if target == "worker" and not workers else target
        with contextlib.suppress(ProcessLookupError):
            if target == "worker":
                os.kill(random.Random(len(self.kills)).choice(workers), signal.SIGKILL)
            else:
                kill = os.killpg if target == "group" else os.kill
                kill(process.pid, signal.SIGKILL)
                self.ended[process.pid] = time.monotonic()
                process.wait()
            self.kills.append(target)

    def losses(self, undisturbed: object) -> list[str]:
        """Return the differences from the undisturbed sweep, and what should not have been left or printed."""
        found = [] if results(self.runs_dir) == undisturbed else ["results.json"]
        if self.ended:
            time.sleep(max(0, max(self.ended.values()) + PATIENCE - time.monotonic()))
        found += [f"a process is left: {command}" for killed in self.ended for _, command in session(killed)]
        if "Traceback" in self.output:
            found.append("a traceback")
        return found + [f"litter: {path.name}" for path in self.runs_dir.rglob("*.partial")]


def session(leader: int) -> Iterator[tuple[int, str]]:
    """Yield number and command line of each process of a session that has not ended."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            state, _, _, number, *_ = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(number) == leader and state != "Z":
                yield int(path.name), (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def results(runs_dir: Path) -> object:
    """Return the content of results.json without times, attempts and the sweep's command."""

    def plain(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: plain(value) for name, value in node.items() if name not in ("seconds", "attempts")}
        return list(map(plain, node)) if isinstance(node, list) else node

    content = plain(json.loads((runs_dir / "sweeps" / "s" / "results.json").read_text(encoding="utf-8")))
    del content["command"]
    return content


def kill_sweeps(folder: Path, settings: Sequence[str], kills: int, chance: random.Random, kinds: Sequence[str]) -> int:
    """Kill sweeps of all kinds in turn, up to a number of kills; return how many sweeps lost or left anything."""
    undisturbed: dict[str, tuple[object, float]] = {}
    done: Counter[str] = Counter()
    sweeps = lost = 0
    while done.total() < kills:
        kind = kinds[sweeps % len(kinds)]
        if kind not in undisturbed:
            whole = KilledSweep(folder / f"{len(undisturbed)}-undisturbed", [*settings, *KINDS[kind]])
            started = time.perf_counter()
            whole.run(chance, 0, most=0)
            undisturbed[kind] = results(whole.runs_dir), time.perf_counter() - started
        expected, seconds = undisturbed[kind]
        sweep = KilledSweep(folder / str(sweeps), [*settings, *KINDS[kind]])
        sweep.run(chance, seconds, most=min(6, kills - done.total()))
        found = sweep.losses(expected)
        done.update(sweep.kills)
        sweeps, lost = sweeps + 1, lost + bool(found)
        print(f"{kind}: killed {', '.join(sweep.kills) or 'nothing'}: {', '.join(found) or 'nothing lost'}", flush=True)
        if "a traceback" in found:
            print(sweep.output, flush=True)
    print(f"{done.total()} kills ({', '.join(f'{n} of a {name}' for name, n in done.items())}) in {sweeps} sweeps")
    print(f"{lost} sweeps lost anything")
    return lost
