"""The page that `draw` serves: the server's answers and refusals, and drawing in a browser."""

import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from lab import Command, Tiny, assert_refused, started
from test_page import bars, shown
from test_recognise import tiny_run

from benchmarks.page import agreement, draw
from mnist_lab.config.compose import compose
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_data, make_model
from mnist_lab.training.train import train
from mnist_lab.web import graph, server
from mnist_lab.web.page import page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

INVITATION = "Draw a digit, or several in a row."


@pytest.fixture(scope="module")
def trained(module_tiny: Tiny) -> Run:
    return tiny_run(module_tiny, "mlp")


@contextmanager
def served(page: str) -> Iterator[int]:
    """Serve a page in this process, and yield the port."""
    with server.open_server("127.0.0.1", 0) as running:
        running.page = page
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running.server_address[1]
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def port(trained: Run) -> Iterator[int]:
    with served(page_of(trained)) as port:
        yield port


def request(port: int, method: str = "GET", path: str = "/", **headers: str) -> tuple[HTTPResponse, str]:
    """Send a request, and return the reply and its content."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    return reply, reply.read().decode()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("POST", "/", 501), ("HEAD", "/", 501), ("GET", "/?x", 200)),
        *(("GET", "/..%2fpyproject.toml", 404), ("GET", "//[", 404)),
    ],
)
def test_other_methods_and_paths_are_refused(port: int, method: str, path: str, status: int) -> None:
    assert request(port, method, path)[0].status == status


def test_server_accepts_addresses_and_its_own_names_only(port: int) -> None:
    assert request(port, Host="localhost:8028")[0].status == 200
    assert request(port, Host="example.org")[0].status == 400, "its owner may have pointed it at this machine"
    with server.PageServer("localhost", 0) as page_server:
        names = page_server.names
    hosts = ("localhost", "127.0.0.1:8028", "[::1]:8028", "192.168.1.7", f"{socket.gethostname()}.local:8028")
    assert all(server.is_own_host(name, names) for name in hosts)
    others = ("example.org:8028", "localhost.example.org", "[::1", "")
    assert not any(server.is_own_host(name, names) for name in others)


def test_connection_whose_request_does_not_arrive_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    for part in (b"", b"GET / HTTP/1.1\r\nHost: loc", b"GET / HTTP/1.1\r\nHost: localhost\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sent:
            sent.sendall(part)
            with suppress(ConnectionResetError):
                while sent.recv(100_000):
                    pass
    assert request(port)[0].status == 200


def test_body_of_a_request_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 600)
    for method, status in (("POST", 501), ("GET", 200)):
        assert request(port, method, **{"Content-Length": "1000000000"})[0].status == status


def test_page_names_the_network_and_may_load_nothing_else(port: int, trained: Run) -> None:
    reply, page = request(port)
    assert f"mlp, test accuracy {trained.info['metrics']['test/acc']:.2%}</p>" in page
    assert '"name": "fully connected 5"' in page and '"name": "8"' not in page, "layers have names to read"
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page) and "{{" not in page
    assert """Policy" content="default-src 'none'; img-src data:; style""" in page
    assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]
    assert "Python" not in reply.headers["Server"]


@pytest.mark.slow
def test_page_served_is_the_exported_one(command: Command, tiny: Tiny) -> None:
    assert command("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/a").status == 0
    assert command("export", "runs/a", "--format", "html", "--to", "page.html", data=False).status == 0
    page = Path("page.html").read_text()
    assert page_of(Run(Path("runs/a"))) == page and '"label"' in page
    shutil.rmtree(tiny.root)
    without = page_of(Run(Path("runs/a")))
    assert '"label"' not in without and '"images": []' in without, "without the data set it shows no test images"


def test_unknown_operator_is_refused(command: Command, trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(graph.CONVERTERS, torch.ops.aten.relu.default)
    outcome = command("draw", str(trained), data=False)
    assert_refused(outcome, "", "MLP: the page has no operator aten.relu.default", status=1)
    assert outcome.out == ""


def test_model_name_is_escaped(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    Run(tmp_path / "run").update(model="<script>alert(1)</script>", metrics={})
    assert "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>" in page_of(Run(tmp_path / "run"))


def test_impossible_address_is_reported_in_one_line(command: Command, trained: Run) -> None:
    with server.open_server("127.0.0.1", None) as first, server.open_server("127.0.0.1", None) as second:
        port, other = first.server_address[1], second.server_address[1]
        assert port in server.PORTS and other in server.PORTS and port != other
        for option, value, words in (
            ("--port", str(port), "is in use"),
            ("--port", "70000", "invalid port"),
            ("--host", "no.such.host.invalid", "not an address of this machine"),
        ):
            outcome = command("draw", str(trained), option, value, data=False)
            assert_refused(outcome, f"{option}={value}: {words}")


def test_browser_is_opened_where_there_is_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name, expected in (("TERM", False), ("BROWSER", True), ("DISPLAY", True)):
        monkeypatch.setattr("os.environ", {name: "x"})
        assert server.has_screen() is expected


@pytest.mark.slow
def test_command_survives_invalid_requests_and_ends_quietly_with_ctrl_c(trained: Run) -> None:
    command = ["-m", "mnist_lab", "draw", str(trained.folder.absolute()), "--no-browser", "--port", "0"]
    with started(*command, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        match = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        assert match
        for raw, status in (
            (b"nonsense\r\n\r\n", b"400"),
            (b"GET / HTTP/9.9\r\n\r\n", b"505"),
            (b"GET / HTTP/1.1\r\nHost: " + b"x" * 65_531, b"431"),
        ):
            with socket.create_connection(("127.0.0.1", int(match[1])), timeout=60) as sent:
                sent.sendall(raw)
                assert status in sent.makefile("rb").read()
        assert request(int(match[1]))[0].status == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")


# In a browser


LINES = {1: [(0.5, 0.2), (0.5, 0.8)], 7: [(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]}
ROUND = [(0.5 + 0.17 * x, 0.5 + 0.28 * y) for x, y in ((0, -1), (-0.7, -0.7), (-1, 0), (-0.7, 0.7), (0, 1))]
LINES[0] = [*ROUND, *((1 - x, y) for x, y in reversed(ROUND))]


def wait_for_words(page: "Page", name: str, words: str | re.Pattern[str]) -> None:
    """Wait until an element contains these words; the page forbids wait_for_function, which evaluates strings."""
    from playwright.sync_api import expect

    expect(page.locator(f"#{name}")).to_contain_text(words, timeout=20_000)


def inked(page: "Page", canvas: str) -> int:
    """Return the number of pixels of a canvas that do not have its most frequent colour."""
    count: int = page.evaluate(
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
    return count


@pytest.mark.slow
def test_drawing_changes_bars_digit_and_the_networks_input(browser: "Browser", port: int) -> None:
    with shown(browser, f"http://127.0.0.1:{port}/") as page:
        page.keyboard.press("Escape")
        wait_for_words(page, "words", INVITATION)
        assert inked(page, "pad") == inked(page, "seen") == 0
        for name in ("Undo", "Clear"):
            assert page.get_by_role("button", name=name).is_disabled()
        assert page.get_by_role("list", name="Probabilities of the classes").count() == 1
        assert page.locator("#spoken").get_attribute("aria-live") == "polite"
        draw(page, *LINES[7])
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") in ("undo", "clear")
        wait_for_words(page, "spoken", "% sure")
        shares, digit = bars(page), page.locator("#predicted").inner_text()
        assert sum(shares) == pytest.approx(100, abs=0.6) and shares[int(digit)] == max(shares)
        assert page.locator("#spoken").inner_text() == f"{digit} {max(shares):.1f} % sure"
        assert inked(page, "pad") > 1000 and 50 < inked(page, "seen") < 300
        draw(page, *LINES[1])
        before = inked(page, "pad")
        page.keyboard.press("Control+z")
        wait_for_words(page, "spoken", f"{digit} {max(shares):.1f} % sure")
        assert 0 < inked(page, "pad") < before
        assert bars(page) == pytest.approx(shares, abs=0.2)
        page.keyboard.press("Escape")
        wait_for_words(page, "words", INVITATION)
        assert inked(page, "pad") == inked(page, "seen") == 0


@pytest.mark.slow
def test_finger_draws_without_scrolling(browser: "Browser", port: int) -> None:
    size = {"width": 320, "height": 568}
    address = f"http://127.0.0.1:{port}/"
    with shown(browser, address, viewport=size, has_touch=True, device_scale_factor=2) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        box = page.locator("#pad").bounding_box()
        assert box and box["width"] == pytest.approx(1.5 * box["height"], abs=1)
        assert box["x"] >= 0 and box["x"] + box["width"] <= 320
        inside, outside = page.evaluate("[[pad.width, pad.height], [pad.clientWidth, pad.clientHeight]]")
        assert inside == [2 * side for side in outside], "the drawing has two pixels for each one of the page"
        session = page.context.new_cdp_session(page)
        for kind, *heights in (("touchStart", 0.1), *(("touchMove", 0.1 * n) for n in range(2, 10)), ("touchEnd",)):
            points = [{"x": box["x"] + 0.5 * box["width"], "y": box["y"] + y * box["height"]} for y in heights]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        wait_for_words(page, "spoken", "sure")
        assert page.evaluate("[scrollX, scrollY]") == [0, 0]
        assert inked(page, "pad") > 0.02 * 4 * box["width"] * box["height"]


@pytest.mark.slow
@pytest.mark.real_data
def test_digits_drawn_with_the_mouse_are_recognised(browser: "Browser", tmp_path: Path) -> None:
    given = ["model=lenet", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}", "figures=false"]
    run = train(compose(*given, "trainer.accelerator=cpu"))
    with served(page_of(run)) as port, shown(browser, f"http://127.0.0.1:{port}/") as page:
        for digit in LINES:
            draw(page, *LINES[digit])
            wait_for_words(page, "spoken", re.compile(f"^{digit} .*sure"))
            assert bars(page)[digit] > 50
            page.keyboard.press("Escape")
            wait_for_words(page, "words", INVITATION)
        images = make_data(run.config, make_model(run.config)).raw_test_set()[0]
        assert agreement(page, run, images, 100) >= 0.98
