"""The program ends well if its standard output or error is closed or full, or has no reader."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from lab import Tiny, thorough, wait_for

from mnist_lab.runs.run import Run

FULL = Path("/dev/full")
HELP = [sys.executable, "-m", "mnist_lab", "--help"]
has_full_device = pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")


def train(tiny: Tiny, *arguments: str) -> list[str]:
    """Return the command line of a run of mlp in the folder run."""
    settings = [*tiny.overrides, "model=mlp", "dashboard=none", "hydra.run.dir=run", *arguments]
    return [sys.executable, "-m", "mnist_lab", "--config-dir", str(tiny.conf), *settings]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe with a small buffer."""
    ends = os.pipe()
    if sys.platform == "linux":
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


@pytest.mark.slow
def test_training_ends_well_with_0_when_its_reader_has_gone_and_standard_error_is_closed(tiny: Tiny) -> None:
    training = subprocess.Popen(train(tiny), stdout=subprocess.PIPE, bufsize=0, preexec_fn=lambda: os.close(2))
    assert training.stdout is not None
    training.stdout.read(1)
    training.stdout.close()
    assert training.wait(timeout=240) == 0
    info = Run(Path("run")).info
    assert (info["status"], info["epochs"]) == ("finished", 2) and "test/acc" in info["metrics"]


@pytest.mark.thorough
@has_full_device
def test_training_ends_well_with_0_and_a_warning_when_its_output_goes_to_a_full_disk(tiny: Tiny) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(train(tiny, "trainer.max_epochs=1"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "warning: standard output: No space left" in done.stderr
    assert Run(Path("run")).info["status"] == "finished"


@has_full_device
def test_command_names_standard_output_when_that_goes_to_a_full_disk() -> None:
    with FULL.open("w") as full:
        done = subprocess.run(HELP, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("mnist_lab: standard output: No space left") and done.stderr.count("\n") == 1


def test_command_ends_like_one_killed_by_sigpipe_when_its_reader_has_gone(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.close(read)
    done = subprocess.run([*HELP[:1], "-u", *HELP[1:]], stdout=write, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(("arguments", "status"), [("--help", 0), ("tset", 2)])
def test_closed_streams_change_no_status_and_get_no_other_files_place(
    arguments: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A print must not write into a file that is opened later."""
    monkeypatch.chdir(tmp_path)
    program = f"import sys; sys.argv[1:] = [{arguments!r}]\nfrom mnist_lab.__main__ import *\n"
    program += (
        "try: program()\n"
        "finally: file = open('file', 'w'); print('out'); print('err', file=sys.stderr); sys.stdout.flush()"
    )
    done = subprocess.run(["sh", "-c", '"$0" "$@" >&- 2>&-', sys.executable, "-c", program], check=False)
    assert (done.returncode, Path("file").read_text()) == (status, "")


def test_character_that_the_terminal_lacks_is_replaced() -> None:
    done = subprocess.run(HELP, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mean ? standard deviation" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="/proc shows that a write blocks")
@pytest.mark.parametrize("sent", [signal.SIGINT, *thorough(signal.SIGTERM)])
def test_signal_ends_a_run_that_waits_for_its_reader(tiny: Tiny, pipe: tuple[int, int], sent: signal.Signals) -> None:
    training = subprocess.Popen(
        train(tiny, "trainer.max_epochs=100000"),
        stdout=pipe[1],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    waits = Path(f"/proc/{training.pid}/wchan")
    wait_for(lambda: training.poll() is not None or "pipe_write" in waits.read_text(), "a write that blocks")
    training.send_signal(sent)
    _, error = training.communicate(timeout=240)
    assert (training.returncode, error) == (128 + sent, "")
    run = Run(Path("run"))
    assert (run.info["status"], run.info["steps"] > 0) == ("interrupted", True)
    assert torch.load(run.checkpoint_path("last"), weights_only=True)["global_step"] == run.info["steps"]
