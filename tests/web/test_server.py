"""The page as `draw` serves it: the server's answers and refusals, and drawing in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from lab import Command, Tiny
from test_recognise import tiny_run

from benchmarks.page import draw
from mnist_lab.config.compose import compose
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train
from mnist_lab.web import graph, request_timeout, server
from mnist_lab.web.page import INVITATION, page_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("trained"), "mlp")


class Client:
    """Asks an app in this process."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def request(self, method: str, path: str, **settings: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8028") as client:
                return await client.request(method, path, **settings)

        return asyncio.run(ask())

    def get(self, path: str, **settings: Any) -> httpx.Response:
        return self.request("GET", path, **settings)

    def post(self, path: str, **settings: Any) -> httpx.Response:
        return self.request("POST", path, **settings)


@pytest.fixture(scope="module")
def client(trained: Run) -> Client:
    return Client(server.make_app(page_of(trained)))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("POST", "/", 405), ("PUT", "/", 405), ("OPTIONS", "/", 405), ("HEAD", "/", 200)),
        *(("GET", "/other", 404), ("GET", "/..%2fpyproject.toml", 404), ("POST", "/predict", 404)),
    ],
)
def test_other_methods_and_paths_are_refused(client: Client, method: str, path: str, status: int) -> None:
    assert client.request(method, path).status_code == status


@pytest.mark.parametrize(
    ("host", "name", "status"),
    [
        ("127.0.0.1", "localhost:8028", 200),
        ("127.0.0.1", "127.0.0.1:8028", 200),
        ("::1", "[::1]:8028", 200),
        ("127.0.0.1", "example.org", 400),
        ("0.0.0.0", "192.168.1.7:8028", 200),
        ("0.0.0.0", socket.gethostname(), 200),
        ("0.0.0.0", f"{socket.gethostname()}.local:8028", 200),
        ("0.0.0.0", "example.org:8028", 400),  # a name that its owner has pointed at this machine
        ("0.0.0.0", "localhost.example.org", 400),
        ("0.0.0.0", "[::1", 400),
        ("0.0.0.0", "", 400),
        ("my.machine", "My.Machine:8028", 200),
    ],
)
def test_server_accepts_addresses_and_its_own_names_only(trained: Run, host: str, name: str, status: int) -> None:
    assert Client(server.make_app("<html></html>", host)).get("/", headers={"Host": name}).status_code == status


def test_connection_whose_request_does_not_arrive_is_closed(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_timeout, "SECONDS", 0.3)
    config = uvicorn.Config(
        server.make_app("<html></html>"), http=request_timeout.TimeoutProtocol, lifespan="off", log_level="error"
    )
    running = uvicorn.Server(config)
    whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def ask(address: tuple[str, int]) -> None:
        for half in (b"", whole[:-2], b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"):
            with socket.create_connection(address) as sent:
                sent.settimeout(30)
                sent.sendall(half)
                with contextlib.suppress(ConnectionResetError):
                    while sent.recv(100_000):
                        pass
        with socket.create_connection(address) as sent:  # one whose requests arrive is kept
            sent.settimeout(30)
            for _ in range(3):
                sent.sendall(whole)
                reply = b""
                while b"</html>" not in reply:
                    reply += sent.recv(100_000)
                time.sleep(0.4)

    async def serve() -> None:
        with server.open_socket("127.0.0.1", 0) as listener:
            task = asyncio.create_task(running.serve(sockets=[listener]))
            await asyncio.to_thread(ask, listener.getsockname())
            running.should_exit = True
            await task

    asyncio.run(serve())


def test_page_names_the_network_and_may_load_nothing_else(client: Client, trained: Run) -> None:
    reply = client.get("/")
    assert f"mlp, test accuracy {trained.info['metrics']['test/acc']:.2%}</p>" in reply.text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", reply.text) and "{{" not in reply.text
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_page_served_is_the_exported_one(command: Command, tiny: Tiny) -> None:
    assert command("model=mlp", "trainer.max_epochs=1", "figures=false", "hydra.run.dir=runs/a").status == 0
    assert command("export", "runs/a", "--format", "html", "--to", "page.html", data=False).status == 0
    page = Path("page.html").read_text()
    assert page_of(Run(Path("runs/a"))) == page and '"label"' in page
    shutil.rmtree(tiny.root)
    without = page_of(Run(Path("runs/a")))
    assert '"label"' not in without and '"wrong": []' in without, "without the data set it shows no test images"


def test_network_with_an_operator_that_the_page_lacks_is_refused(
    command: Command, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(graph.CONVERTERS, torch.ops.aten.relu.default)
    outcome = command("draw", str(trained), data=False)
    assert (outcome.status, outcome.out) == (1, "")
    assert "MLP: the page has no operator aten.relu.default" in outcome.err and outcome.err.count("\n") == 1


def test_model_name_is_escaped(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    Run(tmp_path / "run").update(model="<script>alert(1)</script>", metrics={})
    assert "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>" in page_of(Run(tmp_path / "run"))


def test_port_in_use_is_reported_or_the_next_one_used(command: Command, trained: Run) -> None:
    with server.open_socket("127.0.0.1", None) as first, server.open_socket("127.0.0.1", None) as second:
        port, other = first.getsockname()[1], second.getsockname()[1]
        assert port in server.PORTS and other in server.PORTS and port != other
        outcome = command("draw", str(trained), "--port", str(port), data=False)
    assert outcome.status == 2
    assert outcome.err == f"mnist_lab: --port={port}: is in use; choose another, or omit it for a free one\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port=70000: invalid port"),
        (["--port", "-1"], "--port=-1: invalid port"),
        (["--port", "x"], "argument --port: invalid int value"),
        (["--host", "192.0.2.1"], "--host=192.0.2.1: not an address of this machine"),
        (["--host", "no.such.host.invalid"], "--host=no.such.host.invalid: not an address of this machine"),
    ],
)
def test_invalid_address_is_reported_in_one_line(
    command: Command, trained: Run, arguments: list[str], message: str
) -> None:
    outcome = command("draw", str(trained), *arguments, data=False)
    assert outcome.status == 2
    assert outcome.err.startswith(f"mnist_lab: {message}") and outcome.err.count("\n") == 1


@pytest.mark.parametrize("missing", ["uvicorn", "starlette"])
def test_missing_library_is_reported_with_the_pip_command(
    command: Command,
    trained: Run,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    outcome = command("draw", str(trained), data=False)
    assert outcome.status == 2
    assert "pip install 'mnist-lab[draw]'" in outcome.err and outcome.err.count("\n") == 1


def test_small_answers_are_sent_at_once() -> None:
    """Each would wait 40 ms for the acknowledgement of the one before."""

    async def accepted() -> int:
        no_delay = asyncio.get_running_loop().create_future()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            no_delay.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with server.open_socket("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(connected, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return await no_delay

    assert asyncio.run(accepted())


@pytest.mark.parametrize(("name", "shown"), [("DISPLAY", True), ("BROWSER", True), ("TERM", False)])
def test_browser_is_opened_where_there_is_a_screen(monkeypatch: pytest.MonkeyPatch, name: str, shown: bool) -> None:
    for each in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "x")
    monkeypatch.setattr("sys.platform", "linux")
    assert server.has_screen() is shown


# The real server


@contextmanager
def served(run: Run, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of the command line's server, and its process."""
    command = [sys.executable, "-m", "mnist_lab", "draw", str(run.folder.absolute()), "--no-browser", *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"draw at (http://127\.0\.0\.1:\d+/) \(press Ctrl-C to stop\)\n", line)
            assert match, line + process.stderr.read()
            yield match[1], process
        finally:
            process.kill()


@pytest.mark.slow
def test_server_survives_invalid_requests_and_ends_quietly_with_ctrl_c(trained: Run) -> None:
    with served(trained, "--port", "0") as (address, process):
        port = int(address.split(":")[-1].strip("/"))
        for raw in (
            b"nonsense\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nshort",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: " + b"x" * 100_000 + b"\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port)) as sent:
                sent.sendall(raw)
                if not raw.endswith(b"short"):
                    assert b" 400 " in sent.recv(100)
        with httpx.Client(base_url=address) as asked:
            assert asked.post("", content=bytes(2_000_000)).status_code in (405, 413)
            assert asked.get("", headers={"Host": "evil.example"}).status_code == 400
            assert asked.get("").status_code == 200
            assert "server" not in asked.get("").headers
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
        assert (process.returncode, out, err) == (130, "", "")


# In a browser


@contextmanager
def shown(browser: Any, address: str, **settings: Any) -> Iterator[Any]:
    """The page in a window of its own; its console must show no error."""
    errors: list[str] = []
    context = browser.new_context(**settings)
    page = context.new_page()
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    assert errors == []


LINES = {1: [(0.5, 0.2), (0.5, 0.8)], 7: [(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]}
ROUND = [(0.5 + 0.17 * x, 0.5 + 0.28 * y) for x, y in ((0, -1), (-0.7, -0.7), (-1, 0), (-0.7, 0.7), (0, 1))]
LINES[0] = [*ROUND, *((1 - x, y) for x, y in reversed(ROUND))]


def shows(page: Any, name: str, words: str | re.Pattern[str]) -> None:
    """Wait until an element has these words in it. (wait_for_function evaluates strings, which the page forbids.)"""
    from playwright.sync_api import expect

    expect(page.locator(f"#{name}")).to_contain_text(words, timeout=20_000)


def bars(page: Any) -> list[float]:
    texts = page.locator("#bars li > span:last-child").all_inner_texts()
    return [float(text.rstrip(" %")) for text in texts if text]


def inked(page: Any, canvas: str) -> int:
    """How many pixels of a canvas are not of its most frequent colour."""
    return page.evaluate(
        """(id) => {
            const canvas = document.getElementById(id), counts = {};
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            for (let i = 0; i < data.length; i += 4) {
                const colour = data.slice(i, i + 4).join();
                counts[colour] = (counts[colour] || 0) + 1;
            }
            return data.length / 4 - Math.max(...Object.values(counts));
        }""",
        canvas,
    )


@pytest.fixture(scope="module")
def address(trained: Run) -> Iterator[str]:
    with served(trained, "--port", "0") as (address, _):
        yield address


@pytest.mark.slow
def test_drawing_changes_bars_digit_and_the_networks_input(browser: Any, address: str) -> None:
    with shown(browser, address) as page:
        assert inked(page, "pad") == inked(page, "seen") == 0
        assert page.locator("#undo").is_disabled() and page.locator("#clear").is_disabled()
        draw(page, *LINES[7])
        page.wait_for_timeout(100)
        shares = bars(page)
        assert sum(shares) == pytest.approx(100, abs=0.6)
        digit = page.locator("#predicted").inner_text()
        assert shares[int(digit)] == max(shares)
        assert page.locator("#spoken").inner_text() == f"{digit} {max(shares):.1f} % sure"
        assert inked(page, "pad") > 1000 and 50 < inked(page, "seen") < 300
        draw(page, *LINES[1])
        before = inked(page, "pad")
        page.keyboard.press("Control+z")
        assert 0 < inked(page, "pad") < before
        page.wait_for_timeout(100)
        assert page.locator("#predicted").inner_text() == digit
        assert bars(page) == pytest.approx(shares, abs=0.2)
        page.keyboard.press("Escape")
        shows(page, "words", INVITATION)
        assert inked(page, "pad") == inked(page, "seen") == 0
        assert page.locator("#words").inner_text() == INVITATION


@pytest.mark.slow
def test_dot_is_not_an_error_and_clear_starts_again(browser: Any, address: str) -> None:
    with shown(browser, address) as page:
        box = page.locator("#pad").bounding_box()
        page.mouse.click(box["x"] + 100, box["y"] + 100)
        shows(page, "words", "Draw it larger")
        assert page.locator("#predicted").inner_text() == "" and bars(page) == []
        page.locator("#clear").click()
        shows(page, "words", INVITATION)
        assert inked(page, "pad") == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 844), (844, 390), (1280, 800)])
def test_finger_draws_on_a_phone_without_scrolling(
    browser: Any, address: str, width: int, height: int, scheme: str
) -> None:
    size = {"width": width, "height": height}
    with shown(browser, address, viewport=size, has_touch=True, device_scale_factor=2, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("#pad").bounding_box()
        assert (
            box["width"] == pytest.approx(1.5 * box["height"], abs=1)
            and box["x"] >= 0
            and box["x"] + box["width"] <= width
        )
        drawn, shown_at = page.evaluate("[[pad.width, pad.height], [pad.clientWidth, pad.clientHeight]]")
        assert drawn == [2 * side for side in shown_at], "two pixels of the drawing for each of the page"
        session = page.context.new_cdp_session(page)

        def touch(kind: str, *places: tuple[float, float]) -> None:
            points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in places]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", (0.5, 0.1))
        for step in range(1, 9):
            touch("touchMove", (0.5, 0.1 + 0.1 * step))
        touch("touchEnd")
        shows(page, "spoken", "sure")
        assert page.evaluate("[scrollX, scrollY]") == [0, 0]
        assert inked(page, "pad") > 0.02 * 4 * box["width"] * box["height"]


@pytest.mark.slow
def test_buttons_and_results_have_accessible_names(browser: Any, address: str) -> None:
    with shown(browser, address) as page:
        for role, name in (("button", "Undo"), ("button", "Clear"), ("list", "Probabilities of the classes")):
            assert page.get_by_role(role, name=name).count() == 1
        assert page.locator("#spoken").get_attribute("aria-live") == "polite"
        page.keyboard.press("Tab")
        draw(page, *LINES[1])
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") in ("undo", "clear")


@pytest.mark.slow
@pytest.mark.real_data
def test_digits_drawn_with_the_mouse_are_recognised(browser: Any, tmp_path: Path) -> None:
    given = ["model=lenet", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}", "figures=false"]
    run = train(compose(*given, "trainer.accelerator=cpu"))
    with served(run, "--port", "0") as (address, _), shown(browser, address) as page:
        for digit in LINES:
            draw(page, *LINES[digit])
            shows(page, "spoken", re.compile(f"^{digit} .*sure"))
            assert bars(page)[digit] > 50
            page.keyboard.press("Escape")
            shows(page, "words", INVITATION)
