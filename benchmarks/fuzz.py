"""Gives the program random input, and shows the input that it neither accepts nor refuses in one line.

    python -m benchmarks.fuzz PART [--count 300] [--seed 0]

PART is the kind of input: random command lines (command_line); the folder of a run or a sweep with a damaged file, and
commands that read it (config_yaml, run_json, sweep_json ...); a damaged picture or CSV of pixels for `predict` (png,
pixels_csv ...); damaged files of a data set (idx, gz); odd data of one's own (arrays, folders);
hostile records and archives (hostile_records, hostile_archive); a stranger's run that tries to do more than be read
(hostile_config); or hostile texts in all of these (escapes).

The program must refuse input with exit status 1 or 2, and answer within 5 seconds of processor time and 1.5 GB. Jobs
are checked and not trained, unless they resume from a damaged checkpoint or event file. Each command with another
answer is printed; then the exit status is 1.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import fuzz_files, fuzz_images, fuzz_output, fuzz_own_data, fuzz_records, fuzz_trust
from benchmarks.fuzz_files import random_place
from benchmarks.timing import peak_gigabytes
from mnist_lab.__main__ import main as command_line
from mnist_lab.config.compose import compose
from mnist_lab.config.overrides import dotted_keys
from mnist_lab.errors import LabError
from mnist_lab.formatting import print_lines
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, write_job

SECONDS, GIGABYTES = 5, 1.5
LIMITS = ("trainer.limit_train_batches=5", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
SETTINGS = ("model=mlp", "trainer.max_epochs=1", *LIMITS, "trainer.accelerator=cpu", "dashboard=none")
PLAIN = "x Nan -inf 1e999 ${ ${x} ${seed} ${oc.env:NO} é ' .. / /proc/self ~ %s {} [[ ] ! *a &a \\ null -1 0 1.5 [1,2]"
MORE = "{a:1} true 1,2 range(1,3) interval(0,1) glob(*) sort(3,1) a=b lenet"
TEXTS = [*PLAIN.split(), *MORE.split(), "", "a b", "\x1b[2J", "x" * 5000, "[" * 2000]
VALUES: list[Any] = [None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**400, [], {}, [[1]], {"a": {"b": 1}}]


class TooSlow(BaseException):
    """A command takes more than SECONDS of processor time."""


@dataclass(frozen=True)
class Finding:
    """A command and what is wrong with its answer."""

    arguments: list[str]
    problem: str

    def __str__(self) -> str:
        return f"python -m mnist_lab {shlex.join(self.arguments)[:300]}\n    {self.problem}"


def random_command_line(chance: random.Random, run: Path) -> list[list[str]]:
    """Make a command line of known and odd keys with odd values, odd grammar, and options between them."""
    config = compose()
    keys = [key for key in dotted_keys(config) if not key.startswith(("hydra.", "runs_dir"))]
    groups = [key for key in keys if "." not in key] + ["hydra/launcher", "hydra/sweeper", "experiment"]
    keys += ["hydra.run.dir", "hydra.sweep.dir", "hydra.mode", "hydra.job.name", "hydra.searchpath"]
    keys += ["hydra", "lr", "-1"]

    def override() -> str:
        key = chance.choice([*keys, *groups, *groups])
        if chance.random() < 0.1:
            key = _changed(key, chance)
        value = chance.choice(TEXTS)
        prefix = chance.choice(["", "", "", "+", "++", "~"])
        sign = chance.choice(["=", "=", "=", "=", "", "==", "@x="])
        return f"{prefix}{key}{sign}{value}"

    words = [override() for _ in range(chance.randint(1, 3))]
    options = [["-m"], ["--cfg", "job"], ["--info"], ["--config-dir", "."]]
    options += [["--epochs", "3"], ["-x"], ["--cfg"], ["train"]]
    if chance.random() < 0.3:
        words[chance.randint(0, len(words)) :] = chance.choice(options)
    return [[word for word in words if "launcher" not in word]]


def damaged_config(chance: random.Random, run: Path) -> list[list[str]]:
    """Damage config.yaml."""
    path = run / "config.yaml"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    number = chance.randrange(len(lines))
    key, _, _ = lines[number].partition(":")
    indent = " " * (len(key) - len(key.lstrip()))
    bomb = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    odd = chance.choice(
        [
            f"{key}: {json.dumps(chance.choice(TEXTS), ensure_ascii=False)}\n",
            f"{key}: {json.dumps(chance.choice(VALUES))}\n",
            f"{key}: ${{{key.strip()}}}\n",
            f"{indent}x: ${{y}}\n{indent}y: ${{x}}\n",
            f"{indent}1: 2\n",
            f"{key}: {'[' * 3000}{']' * 3000}\n",
            f"{key}: !!python/object/apply:os.system [x]\n",
            f"{key}: 2020-01-01\n",
            f"{key}: !!binary aGk=\n",
            f"a0: &a0 [x]\n{bomb}",
            "",
        ]
    )
    if odd.startswith("a0:"):
        number = len(lines) - 1
    lines[number] = odd
    _write(path, "".join(lines), chance)
    return _reading(chance, run)


def damaged_record(chance: random.Random, run: Path) -> list[list[str]]:
    """Damage run.json."""
    _damage_json(run / "run.json", chance)
    return _reading(chance, run)


def damaged_sweep(chance: random.Random, run: Path) -> list[list[str]]:
    """Make the run a sweep's only job, and damage sweep.json or job.json."""
    sweep, job = Path("runs/sweeps/s"), Path("runs/sweeps/s/lr=0.1-0123456789ab")
    overrides = ("model=mlp", "optimizer.lr=0.1")
    command = ["-m", "sweep=s", "model=mlp", "optimizer.lr=0.1,0.2", "dashboard=none"]
    Sweep.open(sweep, shlex.join(command), ["optimizer.lr"], {"0123456789ab": overrides})
    run.rename(job)
    write_job(Job(overrides, job, RunState.FINISHED, 1))
    _damage_json(chance.choice([sweep / "sweep.json", job / "job.json"]), chance)
    return [["ls"], ["compare", str(sweep), str(job)], ["report", str(sweep)], command]


def _damage_json(path: Path, chance: random.Random) -> None:
    """Damage a record: change or remove an entry, or write text that is no such record."""
    record = json.loads(path.read_text(encoding="utf-8"))
    place, key = random_place(record, chance)
    if chance.random() < 0.3 and isinstance(place, dict):
        del place[key]
    else:
        place[key] = chance.choice([*VALUES, *TEXTS])
    text = json.dumps(record)
    _write(path, chance.choice([text, text, text, "[" * 100_000, "[]", "{}", '{"status": 1}', "1" * 5000]), chance)


def damaged_metrics(chance: random.Random, run: Path) -> list[list[str]]:
    """Damage metrics.csv."""
    path = run / "metrics.csv"
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    row = rows[chance.randrange(len(rows))]
    row[chance.randrange(len(row))] = chance.choice(["nan", "inf", "-1e300", '"', "x" * 200_000, "\0", *TEXTS])
    if chance.random() < 0.2:
        chance.shuffle(rows)
    _write(path, "\n".join(map(",".join, rows)) + "\n", chance)
    return _reading(chance, run)


Part = Callable[[random.Random, Path], list[list[str]]]  # Damages a copy of a run folder; returns commands to try.
PARTS: dict[str, Part] = {
    "command_line": random_command_line,
    "config_yaml": damaged_config,
    "run_json": damaged_record,
    "metrics_csv": damaged_metrics,
    "sweep_json": damaged_sweep,
    "hostile_config": fuzz_trust.hostile_config,
    **fuzz_images.PARTS,
    **fuzz_records.PARTS,
    **fuzz_files.TRAINED,
    **fuzz_output.PARTS,
}
READ = {**fuzz_files.READ, **fuzz_own_data.READ}  # These parts need no run, and call a reader, not a command.


def fuzz(part: str, count: int, seed: int, run: Path, folder: Path) -> Iterator[Finding]:
    """Yield the commands with a wrong answer.

    Args:
        part: the kind of input, a key of PARTS or READ.
        count: the number of inputs.
        seed: the same seed makes the same inputs.
        run: a finished run's folder, which is copied.
        folder: a folder to work in, which is removed.
    """
    here = Path.cwd()
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        if part in READ:
            problem = answer_of(partial(READ[part], chance))
            if problem:
                yield Finding([part, str(number)], problem)
            continue
        place = folder / "runs" / "a" / "b"
        shutil.rmtree(folder, ignore_errors=True)
        place.parent.mkdir(parents=True)
        if part != "command_line":
            shutil.copytree(run, place)
        os.chdir(folder)
        try:
            for arguments in PARTS[part](chance, Path("runs/a/b")):
                problem = answer(arguments, trains=part in fuzz_files.TRAINED) or fuzz_output.problem_of_pages(Path())
                if problem:
                    yield Finding(arguments, problem)
        finally:
            os.chdir(here)


def answer(arguments: Sequence[str], *, trains: bool = False) -> str | None:
    """Run a command in this process, with its job if it trains; return what is wrong with its answer, or None."""
    with contextlib.ExitStack() as patches:
        patches.enter_context(patch.object(sys, "argv", ["mnist_lab", *arguments]))
        if not trains:
            patches.enter_context(patch("mnist_lab.training.train._train", lambda cfg: Run(Path(cfg.folder))))
            patches.enter_context(patch("mnist_lab.sweeps.jobs._attempt", lambda job, cfg: job))
        return answer_of(command_line)


def answer_of(call: Callable[[], None]) -> str | None:
    """Call a function that may raise a LabError; return what is wrong with its answer, or None."""
    out, err = io.StringIO(), io.StringIO()
    here, handlers = Path.cwd(), logging.getLogger().handlers[:]
    status: Any = 0
    memory = _memory(reset=True)
    before = signal.signal(signal.SIGVTALRM, _too_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            call()
    except LabError as error:
        status = error.exit_status
        print_lines(f"mnist_lab: {error}", file=err)
    except SystemExit as stop:
        status = stop.code or 0
    except TooSlow:
        return f"took more than {SECONDS} seconds"
    except Exception:
        return traceback.format_exc(limit=-3).replace("\n", "\n    ")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        os.chdir(here)
        for handler in [handler for handler in logging.getLogger().handlers if handler not in handlers]:
            logging.getLogger().removeHandler(handler)
            handler.close()
    problem = fuzz_trust.broken_promise(out.getvalue() + err.getvalue())
    if problem:
        return problem
    if _memory() - memory > GIGABYTES * 2**20:
        return f"took more than {GIGABYTES} GB"
    return problem_of_output(status, out.getvalue(), err.getvalue())


def problem_of_output(status: Any, out: str, err: str) -> str | None:
    """Return what is wrong with an exit status and an output: it must be 0 without errors, or an error in one line."""
    control = {c for c in out + err if not c.isprintable()} - {"\n", "\t"}
    if control:
        return f"prints the control characters {sorted(control)}"
    lines = [line for line in err.splitlines() if not line.startswith("mnist_lab: warning: ")]
    if status == 0 and not lines:
        return None
    is_error = status in (1, 2) and bool(lines) and lines[0].startswith("mnist_lab: ")
    is_one_line = len(lines) == 1 and len(lines[0]) < 1000
    is_list_of_problems = len(lines) > 1 and all(line.startswith("  ") for line in lines[1:])
    if is_error and (is_one_line or is_list_of_problems):
        return None
    return f"exit status {status}\n    " + "\n    ".join([*lines[:4], *lines[4:][-5:]])


def _memory(*, reset: bool = False) -> int:
    """Return the most memory that this process has had in KiB, on Linux since the last reset."""
    status = Path("/proc/self/status")
    if not status.exists():
        return round(peak_gigabytes() * 1e9 / 1024)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])


def _too_slow(*arguments: object) -> None:
    raise TooSlow


def _changed(text: str, chance: random.Random) -> str:
    """Return a text with a character changed, added or removed."""
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(["", ".", "x", "[0]", " ", "é", "-", "/", "@"]) + text[at + chance.randint(0, 1) :]


def _write(path: Path, text: str, chance: random.Random) -> None:
    """Write a damaged file; one time in five with changed or missing bytes, or a folder in its place."""
    content = bytearray(text.encode("utf-8", errors="surrogatepass"))
    kind = chance.randrange(25)
    if kind < 2:
        path.unlink()
        if kind == 1:
            path.mkdir()
        return
    if kind == 2:
        del content[chance.randrange(len(content)) :]
    if kind in (3, 4):
        content[chance.randrange(len(content))] = chance.choice([0, 10, 0x80, 0xFF, 0x1B])
    path.write_bytes(content)


def _reading(chance: random.Random, run: Path) -> list[list[str]]:
    """Return commands that read a run: the quick ones, and one that takes longer."""
    longer = [["test", str(run)], ["report", str(run)], [f"resume={run}", "trainer.max_epochs=2"]]
    longer += [["predict", str(run), "x"]]
    quick = [["ls"], ["ls", "--sort", "test/acc", "--csv"], ["compare", str(run), "latest", "--json"]]
    return [*quick, chance.choice(longer)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, *READ])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started, findings = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        if options.part != "command_line" and options.part in PARTS:
            with patch.object(sys, "argv", ["mnist_lab", *SETTINGS, f"hydra.run.dir={run}"]):
                command_line()
        for finding in fuzz(options.part, options.count, options.seed, run, Path(name) / "work"):
            findings += 1
            print(finding, flush=True)
    print(f"{options.part}: {options.count} inputs, {findings} findings, {time.perf_counter() - started:.0f} s")
    raise SystemExit(findings > 0)


if __name__ == "__main__":
    main()
