"""Fixtures that all tests share, and hooks of pytest."""

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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # Tests run side by side. NumPy and torch read it when they start.
FOLDERS = [str(path) for path in (Path(__file__).parent, *Path(__file__).parent.iterdir()) if path.is_dir()]
# Runs name callbacks and networks of the tests, in this process and in others.
sys.path[:0] = FOLDERS
os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, *filter(None, [os.environ.get("PYTHONPATH")])])

# The controller of pytest-xdist runs no tests, so only its workers import torch and Lightning.
if TYPE_CHECKING:
    from lab import Command, Mirror, Tiny
    from playwright.sync_api import Browser


def pytest_collection_finish() -> None:
    """Exempt from garbage collection what the imports have made: it lives as long as the process."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Say below the list of failures which tests are left out by default."""
    yield
    has_marks = any(re.match("-[a-z]*m", argument) for argument in map(str, config.invocation_params.args))
    if config.option.markexpr == "not slow and not thorough" and not has_marks:
        terminalreporter.write_line("slow and thorough tests were left out; run all with: make test-all", bold=True)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A tiny data set on disk, and an empty current folder."""
    from lab import tiny_data

    made = tiny_data(tmp_path / "tiny")
    made.overrides = [
        "data=tiny",
        "trainer.max_epochs=2",
        "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=4",
        "figures=false",  # Figures take two thirds of a tiny run's time; tests of figures set figures=true.
    ]
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("MNIST_LAB_DATA", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return made


@pytest.fixture(scope="module")
def module_tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny data set that the tests of a module share, with runs below its folder."""
    from lab import tiny_data

    made = tiny_data(tmp_path_factory.mktemp("module"))
    made.overrides = ["data=tiny", "trainer.max_epochs=2", "trainer.accelerator=cpu", "figures=false"]
    made.overrides += [f"runs_dir={made.folder / 'runs'}"]
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    from mnist_lab.web.page import find_browser

    path = find_browser()
    if path is None:
        pytest.skip("there is no Chromium or Chrome on this machine")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Set the usual handlers of signals: tests that are started in the background or by nohup ignore some of them."""
    ending = (signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2)
    usual = {signal.SIGINT: signal.default_int_handler, **dict.fromkeys(ending, signal.SIG_DFL)}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
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
            body = made.files.get(self.path[1:]) or packed[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            time.sleep(0.05)  # Processes that fetch the same file meet meanwhile.
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
    """Runs `python -m mnist_lab ...` in this process, with the tiny data set unless data=False."""
    from lab import Outcome

    from mnist_lab.__main__ import main

    def run(*arguments: str, data: bool = True) -> Outcome:
        monkeypatch.setattr("sys.argv", ["mnist_lab", *(tiny.arguments(*arguments) if data else arguments)])
        # Hydra takes a coverage measurement for a debugger, and then does not catch exceptions.
        monkeypatch.setattr("hydra._internal.utils.is_under_debugger", lambda: False)
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception:
            traceback.print_exc()  # Python ends a program like this.
            status = 1
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture
def lab(command: Command) -> Command:
    """Runs `python -m mnist_lab ...` as `command` does, without the settings of the tiny data set."""
    return lambda *arguments: command(*arguments, data=False)
