"""Fixtures, and what pytest is told: which tests are left out, and how each finds the process."""

from __future__ import annotations

import gc
import gzip
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch start: tests run side by side
FOLDERS = [str(path) for path in (Path(__file__).parent, *Path(__file__).parent.iterdir()) if path.is_dir()]
sys.path[:0] = FOLDERS  # runs name callbacks and networks of the tests, in this process and in others
os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, *filter(None, [os.environ.get("PYTHONPATH")])])

if TYPE_CHECKING:  # the controller of pytest-xdist runs no tests: torch and Lightning are imported in its workers alone
    from lab import Command, Mirror, Tiny
    from playwright.sync_api import Browser


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the imports made, which is there to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Say, below the list of what failed, which tests the default leaves out."""
    yield
    given = any(re.match("-[a-z]*m", argument) for argument in map(str, config.invocation_params.args))
    if config.option.markexpr == "not slow and not thorough" and not given:
        terminalreporter.write_line("slow and thorough tests were left out; run all with: make test-all", bold=True)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A tiny data set on disk; the current folder is an empty one."""
    from lab import tiny_data

    made = tiny_data(tmp_path / "tiny")
    made.overrides = [
        "data=tiny",
        "trainer.max_epochs=2",
        "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=4",
        "figures=false",  # they take two thirds of a tiny run's time; a test that is about them has figures=true
    ]
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("MNIST_LAB_DATA", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return made


@pytest.fixture(scope="module")
def module_tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny data set for runs, below its folder, that the tests of a module share."""
    from lab import tiny_data

    made = tiny_data(tmp_path_factory.mktemp("module"))
    made.overrides = ["data=tiny", "trainer.max_epochs=2", "trainer.accelerator=cpu", "figures=false"]
    made.overrides += [f"runs_dir={made.folder / 'runs'}"]
    return made


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each Python command line of the test as `Forked` does."""
    from forks import Forked

    monkeypatch.setattr("subprocess.Popen", Forked)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a screen."""
    from playwright.sync_api import sync_playwright

    from mnist_lab.web.page import find_browser

    found = find_browser()
    if found is None:
        pytest.skip("there is no Chromium or Chrome on this machine")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _heeds_signals() -> Iterator[None]:
    """Heed the signals of a terminal, which tests that are started in the background or by nohup inherit as ignored."""
    heeded = {signal.SIGINT: signal.default_int_handler, signal.SIGQUIT: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heeded.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def mirror(tiny: Tiny) -> Iterator[Mirror]:
    from lab import Mirror

    packed = {f"/{name}.gz": gzip.compress(content) for name, content in tiny.contents.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.requests.append(self.path)
            if made.behave(self, len(made.requests)):
                return
            body = packed[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            time.sleep(0.05)  # long enough for processes to meet
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Mirror(f"http://127.0.0.1:{server.server_port}/")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def command(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `python -m mnist_lab ...` in this process, with the tiny data set unless told otherwise."""

    from lab import Outcome

    from mnist_lab.__main__ import main

    def run(*arguments: str, data: bool = True) -> Outcome:
        monkeypatch.setattr("sys.argv", ["mnist_lab", *(tiny.arguments(*arguments) if data else arguments)])
        # Hydra takes the measuring of coverage for a debugger, to which it leaves what is raised.
        monkeypatch.setattr("hydra._internal.utils.is_under_debugger", lambda: False)
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception:  # as Python ends a program
            traceback.print_exc()
            status = 1
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture
def lab(command: Command) -> Command:
    """Runs `python -m mnist_lab ...` as `command` does, without the settings of the tiny data set."""
    return lambda *arguments: command(*arguments, data=False)
