"""Serve a page on which one draws a digit, and sees at once what the network makes of it."""

from __future__ import annotations

import base64
import errno
import hashlib
import html
import io
import os
import re
import socket
import sys
import webbrowser
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from mnist_lab.errors import UsageError, not_installed
from mnist_lab.inference.digits import SIDE, NoDigit, find_digit
from mnist_lab.inference.images import Unreadable, read
from mnist_lab.inference.recognise import PredictProbabilities, load_classifier
from mnist_lab.runs.run import Run

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

PORTS = range(8028, 8048)  # the first that is free
LARGEST = 500_000  # bytes of a request; the page's own are a hundredth of it
MOST = 1_000_000  # pixels of a drawing


def app(run: Run, host: str = "127.0.0.1") -> Starlette:
    """The page at /, and what it asks at /predict: a PNG of a drawing, answered with the ten probabilities as JSON.

    Args:
        run: the run whose tested weights answer.
        host: the name or address at which the server listens.

    Raises:
        UsageError: starlette is not installed, the run has no checkpoint, or has learnt something else than digits.
    """
    try:
        from anyio import CapacityLimiter, to_thread
        from starlette.applications import Starlette
        from starlette.datastructures import Headers
        from starlette.middleware import Middleware
        from starlette.requests import ClientDisconnect
        from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
        from starlette.routing import Route
    except ModuleNotFoundError as error:
        raise not_installed("draw", "draw") from error

    recognise = load_classifier(run)
    recognise(np.zeros((1, SIDE, SIDE), np.uint8))  # the first call takes longest, and is not the user's
    text, headers = page(run)
    names = {"localhost", host.lower(), socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
    one_at_a_time = CapacityLimiter(1)  # beside the event loop, so that the page does not wait for drawings

    class OwnHosts:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            known = is_own_host(Headers(scope=scope).get("host", ""), names)
            await (self.app if known else PlainTextResponse("unknown host", 400))(scope, receive, send)

    async def shown(request: Request) -> Response:
        return HTMLResponse(text, headers=headers)

    async def predict(request: Request) -> Response:
        if request.headers.get("content-type") != "image/png":
            return PlainTextResponse("a drawing is sent as image/png", 415)
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST:
                    return PlainTextResponse(f"more than {LARGEST} bytes", 413)
        except ClientDisconnect:
            return PlainTextResponse("cut short", 400)
        try:
            found = await to_thread.run_sync(answer, recognise, bytes(body), limiter=one_at_a_time)
            return JSONResponse(found)
        except Unreadable as error:
            return PlainTextResponse(str(error), 400)

    routes = [Route("/", shown), Route("/predict", predict, methods=["POST"])]
    return Starlette(routes=routes, middleware=[Middleware(OwnHosts)])


def is_own_host(header: str, names: Collection[str]) -> bool:
    """Tell whether a request's Host is one of these names or an IP address.

    Another name may be one that a web site has pointed at this machine, to be answered in that site's name (DNS
    rebinding). An address cannot be pointed anywhere.
    """
    try:
        host = urlsplit(f"//{header}").hostname or ""
        return host in names or bool(ip_address(host))
    except ValueError:
        return False


def answer(recognise: PredictProbabilities, png: bytes) -> dict[str, Any]:
    """Answer a drawing for the page: digit, probabilities, candidates and the 784 bytes that the network saw.

    Without a digit in it, digit is None, and the reason is there.

    Raises:
        Unreadable: it is no picture, or has more than MOST pixels.
    """
    try:
        found = find_digit(read(io.BytesIO(png), MOST, ("PNG",)))
    except NoDigit as error:
        return {"digit": None, "reason": str(error)}
    probabilities = recognise(found.pixels[None])[0]
    seen = found.pixels.ravel().tolist()
    digit, candidates = int(probabilities.argmax()), found.candidates
    return {"digit": digit, "probabilities": probabilities.tolist(), "candidates": candidates, "seen": seen}


def page(run: Run) -> tuple[str, dict[str, str]]:
    """The page, and its headers: it may run and ask nothing but its own."""
    info = run.info
    tested = info.get("metrics", {}).get("test/acc")
    words = f"{info['model']}, {tested:.2%} of the test set right" if tested is not None else str(info["model"])
    text = Path(__file__).with_name("draw.html").read_text(encoding="utf-8").replace("{{network}}", html.escape(words))
    sums = {
        tag: base64.b64encode(hashlib.sha256(re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)[0].encode()).digest())
        for tag in ("style", "script")
    }
    policy = [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        *(f"{tag}-src 'sha256-{value.decode()}'" for tag, value in sums.items()),
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ]
    return text, {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def listening(host: str, port: int | None) -> socket.socket:
    """A socket at a port or, for None, at the first free one of PORTS.

    Raises:
        UsageError: the port is in use, or the host is none of this machine's addresses.
    """
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port={port}: is not a port; choose one of 1024 to 65535, or 0 for any")
    for each in [port] if port is not None else [*PORTS, 0]:
        try:
            made = socket.create_server((host, each), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            # asyncio does so only for sockets that name their protocol; without it, an answer waits 40 ms to be sent.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                why = "is in use" if error.errno == errno.EADDRINUSE else "needs administrator rights"
                raise UsageError(f"--port={port}: {why}; choose another, or leave it out for a free one") from error
            raise UsageError(f"--host={host}: is not an address of this machine ({error.strerror})") from error
    raise AssertionError("0 is always free")


def serve(run: Run, host: str, port: int | None, *, browser: bool) -> None:
    """Serve the page until Ctrl-C.

    Args:
        run: the run whose tested weights answer.
        host: the address to listen at.
        port: the port; None for the first one of PORTS that is free.
        browser: whether to open the page in a browser.
    """
    try:
        import uvicorn

        from mnist_lab.inference.request_timeout import TimedProtocol
    except ModuleNotFoundError as error:
        raise not_installed("draw", "draw") from error
    everywhere = host in ("0.0.0.0", "::")
    name = f"[{host}]" if ":" in host else host
    made = app(run, host)
    with listening(host, port) as server:
        address = f"http://{'127.0.0.1' if everywhere else name}:{server.getsockname()[1]}/"
        print(f"draw a digit at {address} (Ctrl-C ends)", flush=True)
        if browser and _has_screen():
            webbrowser.open(address)
        quiet: dict[str, Any] = {"log_level": "error", "access_log": False, "server_header": False}
        config = uvicorn.Config(
            made, http=TimedProtocol, ws="none", lifespan="off", timeout_graceful_shutdown=1, **quiet
        )
        uvicorn.Server(config).run(sockets=[server])


def _has_screen() -> bool:
    """Whether a browser has a window to open in; without one, Python would start one that takes over the terminal."""
    return sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & set(os.environ))
