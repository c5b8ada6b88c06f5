"""Standard output and error that nobody reads, that are closed or full: what becomes of the program."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from lab import Tiny

from mnist_lab.runs.run import Run

FULL = Path("/dev/full")


def command_line(tiny: Tiny, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "mnist_lab", "--config-dir", str(tiny.conf), *tiny.overrides, *arguments]


@pytest.mark.slow
def test_training_ends_well_with_0_when_its_reader_has_gone_and_standard_error_is_closed(tiny: Tiny) -> None:
    training = subprocess.Popen(
        command_line(tiny, "model=mlp", "hydra.run.dir=run"),
        stdout=subprocess.PIPE,
        bufsize=0,
        preexec_fn=lambda: os.close(2),
    )
    assert training.stdout is not None
    training.stdout.read(1)
    training.stdout.close()
    assert training.wait(timeout=240) == 0
    info = Run(Path("run")).info
    assert (info["status"], info["epochs"]) == ("finished", 2) and "test/acc" in info["metrics"]
    assert len(Run(Path("run")).epochs()) == 2


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
def test_training_ends_well_with_0_and_a_warning_when_its_output_goes_to_a_full_disk(tiny: Tiny) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            command_line(tiny, "model=mlp", "trainer.max_epochs=1", "hydra.run.dir=run"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    told = "mnist_lab: warning: standard output: No space left on device; the run continues\n"
    assert (done.returncode, done.stderr) == (0, told)
    assert Run(Path("run")).info["status"] == "finished"


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("options", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_command_names_standard_output_when_that_goes_to_a_full_disk(tmp_path: Path, options: list[str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, *options, "-m", "mnist_lab", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "mnist_lab: standard output: No space left on device; make room\n",
    )


def test_command_ends_like_one_killed_by_sigpipe_when_its_reader_has_gone(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "mnist_lab", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.slow
def test_ctrl_c_ends_a_run_that_waits_for_a_reader_that_does_not_read(tiny: Tiny) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETFL, os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    fcntl.fcntl(write, fcntl.F_SETFL, 0)
    training = subprocess.Popen(
        command_line(tiny, "model=mlp", "hydra.run.dir=run"),
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not Path("run/run.json").exists() and training.poll() is None:
        time.sleep(0.05)
    training.send_signal(signal.SIGINT)
    _, told = training.communicate(timeout=240)
    assert (training.returncode, told) == (130, "")
    assert Run(Path("run")).info["status"] == "interrupted"
    for descriptor in (read, write):
        os.close(descriptor)
