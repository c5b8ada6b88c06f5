"""Run the lab's commands on the pretended device, in a process of its own, and report what a real one would refuse.

Each line of standard input is a case, a folder and the command lines to run there; each line of standard output is the
report of a case.
"""

import json
import os
import statistics
import sys
import threading
import traceback
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from pretended import load

import mnist_lab
from mnist_lab.__main__ import main
from mnist_lab.models.classifier import Classifier
from mnist_lab.training.callbacks import StepLog

PACKAGE = Path(mnist_lab.__file__).parent
STEPS = {step.__code__ for step in (_TrainingEpochLoop.advance, _EvaluationLoop._evaluation_step, Classifier.test_step)}
# The loss of a step that is logged is read, and so is all that a checkpoint saves.
LOGGED_STEP = StepLog.after_step
MAY_WAIT = {LOGGED_STEP.__code__, Trainer.save_checkpoint.__code__}


class Watch:
    """Notes the faults of a case, each with its line in the package, and the operators of each training step."""

    def __init__(self) -> None:
        self.device = load()
        self.device.set_on_fault(self.note)
        self.start()

    def start(self) -> None:
        self.faults: Counter[str] = Counter()
        self.steps: list[dict[str, int]] = []
        self.device.clear_operators()

    def note(self, kind: str, operator: str) -> None:
        """Note a fault; a wait only within a step."""
        frames = frames_of_main_thread()
        codes = {frame.f_code for frame, _ in frames}
        if kind != "wait" or (codes & STEPS and not codes & MAY_WAIT):
            self.faults[f"{kind}: {operator} at {innermost_line(frames)}"] += 1

    def note_error(self, error: Exception) -> None:
        """Note an error that ended a command, such as one that torch raises before it comes to the device."""
        frames = [*traceback.walk_tb(error.__traceback__)][::-1]
        self.faults[f"{type(error).__name__}: {error} at {innermost_line(frames)}"] += 1

    def end_step(self) -> None:
        self.steps.append(self.device.operators())
        self.device.clear_operators()

    def operators(self) -> dict[str, int]:
        """Return the operators of the most common kind of step; the first of an epoch has those before it, too."""
        if not self.steps:
            return {}
        usual = statistics.mode(sum(step.values()) for step in self.steps)
        return next(step for step in self.steps if sum(step.values()) == usual)


def frames_of_main_thread() -> list[tuple[FrameType, int]]:
    """Return the frames of the thread that trains, the innermost first; torch computes gradients in another thread."""
    return [*traceback.walk_stack(sys._current_frames()[threading.main_thread().ident or 0])]


def innermost_line(frames: list[tuple[FrameType, int]]) -> str:
    """Return the line in the package in which frames were, the innermost first."""
    lines = [(Path(frame.f_code.co_filename), number) for frame, number in frames]
    own = [f"{path.relative_to(PACKAGE.parent)}:{number}" for path, number in lines if path.is_relative_to(PACKAGE)]
    return own[0] if own else "no line of the package"


def run(watch: Watch, arguments: list[str]) -> int:
    """Run a command line in this process, and return its exit status."""
    sys.argv = ["mnist_lab", *arguments]
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        watch.note_error(error)
        return 1
    return 0


def report(watch: Watch, folder: str, commands: list[list[str]]) -> dict[str, Any]:
    """Run the command lines of a case up to the first that fails."""
    os.chdir(folder)
    watch.start()
    printed, status = StringIO(), 0
    with redirect_stdout(printed), redirect_stderr(printed):
        for arguments in commands:
            status = status or run(watch, arguments)
    operators = watch.operators()
    return {"status": status, "faults": watch.faults, "operators": operators, "printed": printed.getvalue()}


if __name__ == "__main__":
    watch = Watch()

    def counted(self: StepLog, *args: Any) -> None:
        LOGGED_STEP(self, *args)
        watch.end_step()

    StepLog.after_step = counted  # type: ignore[method-assign]
    for line in sys.stdin:
        print(json.dumps(report(watch, **json.loads(line))), flush=True)
