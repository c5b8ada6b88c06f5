"""Small data sets of MNIST's shape, made on the spot; a mirror on this machine that serves them, well or badly."""

from __future__ import annotations

import gc
import gzip
import hashlib
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch start: tests run side by side

if TYPE_CHECKING:
    from playwright.sync_api import Browser

import numpy as np
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from mnist_lab.config.compose import compose
from mnist_lab.data.source import FILES, Source

FOLDERS = [str(path) for path in (Path(__file__).parent, *Path(__file__).parent.iterdir()) if path.is_dir()]
sys.path[:0] = FOLDERS  # runs name callbacks and networks of the tests, in this process and in others
os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, *filter(None, [os.environ.get("PYTHONPATH")])])
INGREDIENTS = {  # of recipes that the tutorials do not have
    "distortions": ["augmentation=elastic", "augmentation.crop=3", "augmentation.cutout=7"],
    "own mean": ["data.mean=null", "data.std=null"],
    "averaged weights": ["callbacks=ema", "callbacks.ema.decay=0.9"],
    "label smoothing": ["label_smoothing=0.1"],
    "views": ["test_augmentation=views"],
    "warm-up": ["optimizer=adamw", "scheduler=onecycle", "scheduler.pct_start=0.15"],
}
SMALL_RESIDUAL = ["model=residual_cnn", "model.widths=[4,8,8]"]
RECIPE = [*SMALL_RESIDUAL, *(setting for settings in INGREDIENTS.values() for setting in settings)]
TRAIN, TEST = 230, 57  # images; neither divides evenly by the batch sizes below


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in the IDX format."""
    return np.array([0x800 + array.ndim, *array.shape], ">i4").tobytes() + array.astype(np.uint8).tobytes()


def tiny_arrays(train: int = TRAIN, test: int = TEST) -> list[np.ndarray]:
    """Images that can be learnt (a bar whose place is the class) and told apart (noise), and their labels."""
    random = np.random.default_rng(7)
    arrays = []
    for count in (train, test):
        labels = np.arange(count) % 10
        images = random.integers(0, 120, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6] = 255
        arrays += [images.astype(np.uint8), labels.astype(np.uint8)]
    return arrays


@dataclass
class Tiny:
    """A tiny data set: its four files' contents, where they lie, and the overrides that use it."""

    folder: Path
    contents: dict[str, bytes]
    overrides: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "data"

    @property
    def raw(self) -> Path:
        return self.root / "Tiny" / "raw"

    @property
    def conf(self) -> Path:
        return self.folder / "conf"

    @property
    def sha256(self) -> dict[str, str]:
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.contents.items()}

    def source(self, **settings: object) -> Source:
        return Source(name="Tiny", sha256=self.sha256, **({"mirrors": []} | settings))  # type: ignore[arg-type]

    def write(self) -> None:
        self.raw.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            (self.raw / name).write_bytes(content)

    def write_conf(self) -> None:
        """A configuration folder of one's own, as a user would write it, with the data set as data=tiny."""
        source = {
            "_target_": "mnist_lab.data.source.Source",
            "name": "Tiny",
            "mirrors": [],
            "sha256": self.sha256,
        }
        data = {"defaults": ["default", "_self_"], "val_size": 40, "batch_size": 16, "eval_batch_size": 25}
        (self.conf / "data").mkdir(parents=True)
        (self.conf / "data" / "tiny.yaml").write_text(yaml.safe_dump(data | {"source": source, "root": str(self.root)}))

    def compose(self, *overrides: str) -> DictConfig:
        return compose(*self.overrides, *overrides, config_dir=str(self.conf))


def tiny_data(folder: Path) -> Tiny:
    """A tiny data set on disk, and the folder of its configuration."""
    made = Tiny(folder, dict(zip(FILES, map(idx, tiny_arrays()), strict=True)))
    made.write()
    made.write_conf()
    return made


def slow(*values: object) -> list[Any]:
    """Mark values of a parametrised test as slow, where others of them are quick enough to be tried every time."""
    sets = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*each, marks=pytest.mark.slow) for each in sets]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the imports made, which is there to the end."""
    gc.collect()
    gc.freeze()


class LeftOut:
    """Count the slow tests that the default leaves out, here or in xdist's workers, and say how to run them."""

    def __init__(self, config: pytest.Config) -> None:
        self.count = 0
        self.workers = "-n 2 " if config.pluginmanager.hasplugin("xdist") else ""

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self.count += sum(item.get_closest_marker("slow") is not None for item in items)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left_out"] = self.count

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        self.count = max(self.count, getattr(node, "workeroutput", {}).get("left_out", 0))  # each has seen them all

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        yield  # below the list of what failed
        if self.count:
            tests = "1 slow test was" if self.count == 1 else f"{self.count:,} slow tests were"
            terminalreporter.write_line(f'{tests} not run; run all with: pytest {self.workers}-m ""', bold=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("cluster") and not config.getoption("--cluster"):
            item.add_marker(pytest.mark.skip(reason="starts a SLURM and a Ray: .ci/cluster runs it"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", action="store_true", help="run the tests that start a SLURM and a Ray: .ci/cluster")


def pytest_configure(config: pytest.Config) -> None:
    given = any(re.match("-[a-z]*m", argument) for argument in map(str, config.invocation_params.args))
    if config.option.markexpr == "not slow" and not given:
        config.pluginmanager.register(LeftOut(config), "left_out")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A tiny data set on disk; the current folder is an empty one."""
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
def browser() -> Iterator[Browser]:
    """A browser without a screen."""
    from playwright.sync_api import sync_playwright

    from mnist_lab.web.browser import find_browser

    found = find_browser()
    if found is None:
        pytest.skip("there is no Chromium or Chrome on this machine")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _fresh_hydra() -> Iterator[None]:
    """Hydra keeps one global state for a process, and its last job's train.log open; each test begins without."""
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()
    for handler in logging.getLogger().handlers[:]:
        if isinstance(handler, logging.FileHandler):
            logging.getLogger().removeHandler(handler)
            handler.close()


@pytest.fixture(autouse=True)
def _heeds_signals() -> Iterator[None]:
    """Heed the signals of a terminal, which tests that are started in the background or by nohup inherit as ignored."""
    heeded = {signal.SIGINT: signal.default_int_handler, signal.SIGQUIT: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heeded.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass
class Mirror:
    """A web server on this machine with the files of a data set; `behave` may answer a request instead of it."""

    address: str
    requests: list[str] = field(default_factory=list)
    behave: Callable[[BaseHTTPRequestHandler, int], bool] = lambda handler, number: False


@pytest.fixture
def mirror(tiny: Tiny) -> Iterator[Mirror]:
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
            time.sleep(0.05)  # long enough for eight processes to meet
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


@dataclass
class Outcome:
    """What a command line came to."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `python -m mnist_lab ...` in this process, with the tiny data set unless told otherwise."""

    def run(*arguments: str, data: bool = True) -> Outcome:
        from mnist_lab.__main__ import main

        GlobalHydra.instance().clear()
        own = ["--config-dir", str(tiny.conf), *tiny.overrides] if data else []
        given = {argument.split("=")[0] for argument in arguments}
        own = [argument for argument in own if argument.split("=")[0] not in given]
        monkeypatch.setattr("sys.argv", ["mnist_lab", *own, *arguments])
        # Hydra takes the measuring of coverage for a debugger, to which it leaves what is raised.
        monkeypatch.setattr("hydra._internal.utils.is_under_debugger", lambda: False)
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


def signalled(tiny: Tiny, sent: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Exit status of the real command line, sent a signal in its third epoch of 100,000, and what it printed after."""

    def heed_ctrl_c() -> None:  # a test started in the background inherits that it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-u", "-m", "mnist_lab", "--config-dir", str(tiny.conf), *tiny.overrides, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=heed_ctrl_c,
    ) as process:
        limit = threading.Timer(120, process.kill)
        limit.start()
        assert process.stdout is not None
        for line in process.stdout:
            if "2/100000" in line:
                process.send_signal(sent)
                break
        rest = process.stdout.read()
        limit.cancel()
    return process.returncode, rest


def run(
    tiny: Tiny,
    *arguments: str,
    then: Callable[[subprocess.Popen[str]], None] | None = None,
    program: Sequence[str] = ("-m", "mnist_lab"),
) -> tuple[int, str]:
    """Exit status and output of the real command line, in a session of its own, as a terminal gives it one."""
    given = {argument.split("=")[0] for argument in arguments}
    own = [override for override in tiny.overrides if override.split("=")[0] not in given]

    def heed_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-u", *program, "--config-dir", str(tiny.conf), *own, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,
        start_new_session=True,
    ) as process:
        try:
            if then is not None:
                then(process)
            out, _ = process.communicate(timeout=240)
        except BaseException:
            process.kill()  # else it would be waited for
            raise
    return process.returncode, out


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a process of its own hold a run folder's lock for the duration of the block."""
    program = (
        "import sys; from mnist_lab.runs.locks import *\nwith run_lock(Path(sys.argv[1])): print(flush=True); input()"
    )
    # In a shell, so that its parent is not this process, whose lock it might share.
    command = shlex.join([sys.executable, "-c", program, str(folder.absolute())])
    with subprocess.Popen(
        ["sh", "-c", f"{command}; true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.communicate("\n")
