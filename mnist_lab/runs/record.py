"""Read and write run.json, sweep.json and job.json, and describe machine and code for them, without torch."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import NotRequired, TypedDict

from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write, read_text, write_text
from mnist_lab.formatting import shorten

CHECKOUT = Path(__file__).parents[2]  # In a clone, this is the repository.
MAX_PATCH = 1_000_000  # bytes
MAX_UNTRACKED = 100  # names of untracked files
MAX_VALUES, MAX_NUMBER = 200_000, 1e100  # A stranger's record may have any size.
# `git apply` only takes a patch in git's own format, which the user's settings could change.
DIFF = (
    *("-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false", "-c", "diff.relative=false"),
    *("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--no-textconv"),
)
PACKAGES = ("mnist-lab", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "tensorboard", "numpy")
_STRICT = ConfigDict(strict=True, extra="allow")
R = TypeVar("R")
ConfigName = Annotated[str, Field(pattern=r"^(\w[\w-]*[./]?)+$")]  # No path outside the configurations matches.
JobId = Annotated[str, Field(pattern=r"^\w+$")]  # The name of a job's folder ends with it.


class RunState(str, Enum):
    """The state of a run or of a job. A run records no WAITING, KILLED or DAMAGED: run.py and sweep.py infer them."""

    WAITING = "waiting"  # The job is planned, and was not started yet.
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"  # A search stopped it early; it is tested, but not ranked.
    PAUSED = "paused"  # It has trained as many epochs as its sweep has asked for so far.
    FAILED = "failed"  # It raised an error.
    INTERRUPTED = "interrupted"  # A signal, or the death of another of its processes, ended it; it can continue.
    KILLED = "killed"  # Its process is gone and has not recorded an end.
    DAMAGED = "damaged"  # Its record cannot be read.

    def __str__(self) -> str:  # Python 3.10 lacks enum.StrEnum.
        return str(self.value)


COMPLETE = (RunState.FINISHED, RunState.PRUNED)
WELL_ENDED = (*COMPLETE, RunState.PAUSED)
DONE = (*WELL_ENDED, RunState.FAILED)
STOPPED = (RunState.INTERRUPTED, RunState.KILLED)
NOT_FINITE_REMEDY = "try a smaller optimizer.lr"  # Errors of runs that met NaN or infinity end with it.
State = Annotated[RunState, Field(strict=False)]


class TestedWeights(TypedDict):
    """The weights that were tested: their checkpoint, and the number of epochs of their training."""

    checkpoint: str
    epoch: int


class Member(TypedDict):
    """A network of an ensemble: its run, and its metrics on the test set when the ensemble was made."""

    run: str
    model: str | None
    seed: int | None
    metrics: dict[str, float]


class GitState(TypedDict):
    """The commit of a checkout, and how its files differ from it."""

    commit: str
    changed: bool  # True if files were changed or added since the commit.
    origin: NotRequired[str]  # the URL of the repository
    untracked: NotRequired[list[str]]  # The files that git does not track are not kept.
    left_out: NotRequired[str]  # the changes that source.patch lacks, and why
    restore: NotRequired[str]  # the commands that make the kept files again


@with_config(_STRICT)
class RunRecord(TypedDict, total=False):
    """The entries of run.json; times are in seconds, accuracies from 0 to 1. A record that was read has them all."""

    status: State
    error: str | None
    command: str | None
    overrides: list[str]
    config_dir: str | None
    config_name: ConfigName | None
    model: str | None
    parameters: int | None
    seed: int | None
    started: str | None
    finished: str | None
    max_epochs: int | None
    epochs: int
    steps: int
    tested: TestedWeights | None
    metrics: dict[str, float]
    partial: list[str]  # Of these sets, val or test, only a part was measured, because batches were limited.
    seconds: dict[str, float]
    images_per_second: float | None
    device: str | None
    processor: str | None
    versions: dict[str, str]
    git: GitState | None
    checkpoints: dict[str, str | None]
    members: list[Member] | None
    trackers: dict[str, str]


class Submission(TypedDict):
    """A job in the queue of a cluster: its number there, and the file for its output."""

    number: Annotated[str, Field(pattern=r"^\w+$")]  # SLURM's commands take it as an argument.
    log: str


class SweepSettings(TypedDict):
    """The settings that the jobs of a sweep share, so that any process on any machine can run one."""

    overrides: list[str]  # They set Hydra's own settings, and the keys that control the sweep.
    config_dir: str | None
    config_name: str
    folder: str  # Relative paths start here, where the sweep was started.
    search_path: list[str]  # the folders with modules, for sys.path
    threads: int | None  # A job without threads=N gets these; None means all.
    lock_patience: float  # seconds that a job waits for the lock of its folder
    metric: NotRequired[str]  # The jobs are ranked by it.


@with_config(_STRICT)
class SweepRecord(TypedDict):
    """The entries of sweep.json."""

    command: str  # It continues the sweep.
    start: Annotated[str, Field(pattern=r"-\d+-[^-]*$")]  # the id of the latest start, HOST-PID-DIGITS
    swept: list[str]  # the keys with several values
    jobs: dict[JobId, list[str]]  # the overrides of each planned job
    settings: NotRequired[SweepSettings]
    prune: NotRequired[dict[JobId, dict[str, Any]]]  # the callbacks that may end a job early
    submitted: NotRequired[dict[JobId, Submission]]  # the jobs in the queue of a cluster


class JobProcess(TypedDict, total=False):
    """The process that runs, or ran, a job: the id of the sweep's start, the machine, and the process's own start."""

    start: str
    host: str
    pid: int
    began: float  # seconds since 1970


@with_config(_STRICT)
class JobRecord(TypedDict):
    """The entries of job.json; `runs.sweep.Job` describes them."""

    overrides: list[str]
    state: State
    attempts: int
    error: str | None
    process: JobProcess


def _complete(record: dict[str, Any]) -> dict[str, Any]:
    """Add the entries that a run's record lacks."""
    if "status" not in record:
        raise ValueError("it has no status")
    mappings = ("metrics", "seconds", "versions", "checkpoints", "trackers")
    defaults: dict[str, Any] = {"overrides": [], "partial": [], "epochs": 0, "steps": 0}
    defaults |= {name: {} for name in mappings}
    return dict.fromkeys(RunRecord.__annotations__) | defaults | record


RUN: TypeAdapter[RunRecord] = TypeAdapter(Annotated[RunRecord, AfterValidator(_complete)])
SWEEP = TypeAdapter(SweepRecord)
JOB = TypeAdapter(JobRecord)


def read_record(path: Path, kind: TypeAdapter[R], what: str, remedy: str) -> R:
    """Read a record from a JSON file; the UsageError for a damaged one says what it should be, and what to do."""
    try:
        return kind.validate_python(parse_json(read_text(path)))
    except (OSError, ValueError) as error:
        reason = str(error)[:1000]
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            reason = ": ".join([".".join(map(str, first["loc"])), first["msg"].lower()]).removeprefix(": ")
        raise UsageError(f"{path}: corrupt, or not {what}; {remedy} ({shorten(reason, 200)})") from error


def parse_json(text: str) -> Any:
    """Parse JSON; raise ValueError for a text that would take much memory, or has impossible numbers or characters."""
    if sum(map(text.count, ",[{")) > MAX_VALUES or "\\u0000" in text:
        raise ValueError(f"it has more than {MAX_VALUES:,} values, or a character that no path can have")
    try:
        return json.loads(text, parse_int=_parse_number, parse_float=_parse_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parse_number(text: str) -> float:
    value = float(text)
    if abs(value) > MAX_NUMBER:
        raise ValueError(f"the number {shorten(text, 20)} is too large")
    return int(text) if text.lstrip("-").isdecimal() else value


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record to a JSON file."""
    write_text(path, json.dumps(record, indent=2) + "\n")


def current_time() -> str:
    """Return the local time in ISO 8601, with microseconds and offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="microseconds")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on."""
    installed = {name: next(iter(importlib.metadata.distributions(name=name)), None) for name in PACKAGES}
    return {"python": platform.python_version()} | {name: found.version for name, found in installed.items() if found}


def processor_name() -> str:
    """Return the number of logical processors and the processor's name."""
    match = None
    with contextlib.suppress(OSError):  # Only Linux has this file.
        match = re.search(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    name = match[1].strip() if match else platform.processor() or platform.machine()  # processor() may run uname.
    return f"{os.cpu_count()} × {name}"


def record_source(patch: Path, folder: Path | None = None) -> GitState | None:
    """Describe the checkout with this code, or else the current folder's, and write its changes to `patch`."""
    patch.unlink(missing_ok=True)
    folder = folder or (CHECKOUT if (CHECKOUT / ".git").exists() else Path.cwd())
    status = ("status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=all")
    lines = _git(folder, "--no-optional-locks", *status).decode(errors="replace").splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if commit == "(initial)":
        return None
    changes = [line for line in lines if not line.startswith("#")]
    untracked = [line.removeprefix("? ") for line in changes if line.startswith("? ")]
    state: GitState = {"commit": commit, "changed": bool(changes)}
    if origin := _git(folder, "remote", "get-url", "origin").decode(errors="replace").strip():
        state["origin"] = without_credentials(origin)
    if untracked:
        state["untracked"] = untracked[:MAX_UNTRACKED] + ["..."] * (len(untracked) > MAX_UNTRACKED)
    steps = [f"git clone {shlex.quote(state.get('origin', 'URL'))} source", f"git -C source checkout {commit}"]
    if len(untracked) < len(changes):
        content = _git(folder, *DIFF)
        if len(content) > MAX_PATCH:
            state["left_out"] = f"changes of more than {MAX_PATCH:,} bytes"
        elif content:
            with atomic_write(patch) as partial:
                partial.write_bytes(content)
            steps.append(f"git -C source apply {shlex.quote(str(patch.absolute()))}")
    state["restore"] = " && ".join(steps)
    return state


def without_credentials(url: str) -> str:
    """Return a URL without user name, password and query; other addresses, such as git@host:path, stay as they are."""
    return re.sub(r"^(\w[\w+.-]*://)([^/]*@)?([^?#]*).*", r"\1\3", url)


def _git(folder: Path, *arguments: str) -> bytes:
    """Return the output of a git command; empty if it fails."""
    try:
        return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return b""
