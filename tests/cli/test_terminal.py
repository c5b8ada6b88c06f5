"""The program in a terminal of 80 or 100 columns, with Ctrl-C."""

import io
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest
from lab import Command, Tiny, thorough, tiny_data
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from test_digits import drawn
from torch import Tensor

from mnist_lab.runs.run import Run
from mnist_lab.training.checkpointing import SaveWithinEpochs
from mnist_lab.training.multistep import StepCallback

SETTINGS = ["data=tiny", "trainer.accelerator=cpu", "trainer.max_epochs=2", "model=mlp", "seed=3"]
SETTINGS += ["trainer.log_every_n_steps=4"]
BAR = re.compile("^(./2|test) .*[━╸╺]", re.MULTILINE)

# forkpty warns of torch's threads, although the child starts another program at once.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.slow,
]


class Pause(StepCallback):
    """Waits once for Ctrl-C, at a step or (if None) in the first validation, and leaves the file `mark`."""

    def __init__(self, mark: str, step: int | None = None) -> None:
        self.mark, self.step = Path(mark), step

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        if step == self.step:
            self._wait(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if self.step is None:
            self._wait(trainer)

    def _wait(self, trainer: Trainer) -> None:
        if self.mark.exists():
            return
        self.mark.touch()
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        (stopping,) = [callback for callback in callbacks if isinstance(callback, SaveWithinEpochs)]
        until = time.monotonic() + 120
        while stopping.stop is None and time.monotonic() < until:
            time.sleep(0.01)


def pause(mark: str, step: str = "null") -> list[str]:
    """Return the overrides for a run that pauses, and makes no figures."""
    settings = {"_target_": "test_terminal.Pause", "mark": mark, "step": step}
    return ["dashboard=none", *(f"+callbacks.pause.{key}={value}" for key, value in settings.items())]


class Screen(pyte.Screen):
    """A terminal's screen that is wider than the terminal, so that lines that are too long can be found."""

    def __init__(self, columns: int) -> None:
        super().__init__(400, 1000)
        self.limit = columns
        self.drawn: list[str] = []  # every state of each line, even if it was erased later

    def draw(self, data: str) -> None:
        super().draw(data)
        self.drawn.append(self.line(self.cursor.y))

    def line(self, y: int) -> str:
        row = self.buffer[y]
        return "".join(row[x].data for x in range(max(row, default=-1) + 1)).rstrip()

    @property
    def text(self) -> str:
        return "\n".join(map(self.line, range(self.cursor.y + 1)))

    @property
    def too_wide(self) -> set[str]:
        """The lines wider than the terminal, except commands and paths, which users copy."""
        to_copy = re.compile(r"python -m mnist_lab|^mnist_lab: |^[\w ]+: \S+")
        return {line for line in self.drawn if len(line) > self.limit and not to_copy.search(line)}


class Terminal:
    """A command line in a pseudo-terminal."""

    def __init__(self, *arguments: str, columns: int = 80) -> None:
        self.screen = Screen(columns)
        self.stream = pyte.Stream(self.screen)
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "mnist_lab", *arguments],
            dimensions=(24, columns),
            env=env | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            encoding="utf-8",
            timeout=240,
        )
        self.child.logfile_read = self

    def write(self, text: str) -> None:
        self.stream.feed(text)

    def flush(self) -> None:
        """Do nothing, since nothing is buffered."""

    def wait_for(self, path: str) -> None:
        """Wait until a file exists."""
        while not Path(path).exists():
            self.child.expect([pexpect.TIMEOUT, pexpect.EOF], timeout=0.05)
            assert self.child.isalive(), self.screen.text

    def end(self, status: int = 0) -> str:
        """Wait for the end, assert the exit status and what holds for every command, and return the visible text."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        text = self.screen.text
        assert self.child.exitstatus == status, (self.child.signalstatus, text)
        assert "Traceback" not in "\n".join(self.screen.drawn), text
        assert not self.screen.too_wide
        assert not self.screen.cursor.hidden, "the cursor is left hidden"
        assert self.screen.cursor.x == 0, "the prompt would follow the last line"
        return text


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Return a tiny data set, with a current folder for the tests of this file."""
    made = tiny_data(tmp_path_factory.mktemp("terminal"))
    made.overrides = ["--config-dir", str(made.conf), *SETTINGS]
    (made.folder / "here").mkdir()
    return made


@pytest.fixture(autouse=True)
def _here(shared: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared.folder / "here")
    monkeypatch.delenv("MNIST_LAB_DATA", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


@pytest.fixture(scope="module")
def whole(shared: Tiny) -> Iterator[tuple[Run, Terminal]]:
    """Yield an uninterrupted run, and its terminal of 100 columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared.folder / "here")
        terminal = Terminal(*shared.overrides, "hydra.run.dir=whole", columns=100)
        assert terminal.end().splitlines()[-1] == "run folder: whole"
        assert terminal.screen.drawn[0] == "train: starting ..." not in terminal.screen.text
        assert "figures and dashboard ..." in "\n".join(terminal.screen.drawn)
        assert not BAR.search(terminal.screen.text) and "figures and" not in terminal.screen.text
        yield Run(Path("whole").absolute()), terminal


@pytest.mark.parametrize("columns", [80, *thorough(50, 100)])
def test_epoch_lines_and_the_bar_of_run_validation_and_test_fit_the_terminal(
    command: Command, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=columns, _environ={})
    monkeypatch.setattr("mnist_lab.training.progress.console", console)
    monkeypatch.setattr("mnist_lab.training.progress.INTERVAL", 0)
    assert command("model=mlp", "callbacks=test_curve", "dashboard=none", "callbacks.summary=null").status == 0
    screen = Screen(columns)
    pyte.Stream(screen).feed(shown.getvalue().replace("\n", "\r\n"))
    drawn = "\n".join(screen.drawn)
    for bar in (
        r"2/2 +\d\.\d{4} +\d+\.\d\d% ━+ \d\d:\d\d",
        "1/2 +validating +[━╸╺]+ .+",
        "test +━+ .+",
    ):
        assert re.search(f"^{bar}$", drawn, re.MULTILINE), bar
    bars = [line for line in screen.drawn if BAR.search(line)]
    assert max(map(len, bars)) <= columns - 2, "the terminal's ^C would wrap"
    assert columns < 80 or not screen.too_wide
    assert ("images/s" in screen.text) == (columns == 100)
    assert not BAR.search(screen.text), "a bar is left on the screen"
    (line,) = re.findall(r"^2/2 .+ s$", screen.text, re.MULTILINE)
    *_, means = re.findall(r"^2/2 .+?%(?= ━)", drawn, re.MULTILINE)
    assert line.startswith(means), "the means of all steps are what the epoch's line has"


@pytest.mark.parametrize("step", ["17", *thorough("null")])
def test_resume_after_ctrl_c_shows_the_rest_of_the_run_and_gives_the_results_of_an_uninterrupted_one(
    shared: Tiny, whole: tuple[Run, Terminal], step: str
) -> None:
    folder = f"stopped-{step}"
    terminal = Terminal(*shared.overrides, *pause(f"at-{step}", step), f"hydra.run.dir={folder}")
    terminal.wait_for(f"at-{step}")
    terminal.child.sendintr()
    (resume,) = re.findall(r"python -m mnist_lab (.+)", terminal.end(130))
    text = Terminal(resume).end()
    assert re.search("^2/2 ", text, re.MULTILINE) and text.splitlines()[-1] == f"run folder: {folder}"
    losses = [[row.get("train/loss_step") for row in run.metrics()] for run in (Run(Path(folder)), whole[0])]
    assert losses[0] == losses[1]
    assert Run(Path(folder)).info["metrics"] == whole[0].info["metrics"]


@pytest.mark.thorough
def test_run_saves_and_is_recorded_as_interrupted_when_its_terminal_is_closed(shared: Tiny) -> None:
    terminal = Terminal(*shared.overrides, *pause("at-closing", "17"), "hydra.run.dir=closed")
    terminal.wait_for("at-closing")
    terminal.child.ptyproc.fileobj.close()  # child.close() would send further signals.
    terminal.child.closed = terminal.child.ptyproc.closed = True
    os.kill(terminal.child.pid, signal.SIGHUP)  # A shell sends this signal too.
    assert terminal.child.ptyproc.wait() == 128 + signal.SIGHUP
    info = Run(Path("closed")).info
    assert (info["status"], info["error"], info["steps"]) == ("interrupted", "SIGHUP", 17)


@pytest.mark.thorough
def test_sigquit_ends_a_run_at_once_and_leaves_the_cursor_visible_and_the_run_as_killed(shared: Tiny) -> None:
    terminal = Terminal(*shared.overrides, *pause("at-quitting", "17"), "hydra.run.dir=quit/run")
    terminal.wait_for("at-quitting")
    terminal.child.sendcontrol("\\")
    terminal.child.expect(pexpect.EOF)
    terminal.child.close()
    assert terminal.child.signalstatus == signal.SIGQUIT and not terminal.screen.cursor.hidden
    assert "killed" in Terminal("ls", "--runs-dir", "quit").end()


@pytest.mark.thorough
def test_other_commands_end_well_and_fit_the_terminal(shared: Tiny, whole: tuple[Run, Terminal]) -> None:
    shutil.copytree("whole", "copy", dirs_exist_ok=True)
    drawn().save("digit.png")
    settings = ["data=tiny", "data.val_size=0", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    commands = [
        ["ls", "--runs-dir", "."],
        ["compare", "whole", "copy"],
        ["test", "whole"],
        ["report", "whole"],
        ["predict", "whole", "digit.png"],
        ["reproduce", "mlp", "--seeds", "1", "--config-dir", str(shared.conf), *settings],
    ]
    for terminal in [Terminal(*command) for command in commands]:
        assert terminal.end()
    assert Path("runs/reproduce/RESULTS.md").is_file()
