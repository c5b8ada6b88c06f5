"""Serve a web page that shows a network's prediction while the user draws."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Awaitable, Callable, Collection, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

import numpy as np

from mnist_lab.config.metric_names import TEST_ACC
from mnist_lab.data.images import SIDE, UnreadableImage, read_image
from mnist_lab.errors import UsageError, not_installed
from mnist_lab.formatting import render_template
from mnist_lab.inference.digits import NoDigit
from mnist_lab.inference.recognise import ImageClassifier, load_classifier
from mnist_lab.runs.run import Run

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

WEB = Path(__file__).with_name("web")
PORTS = range(8028, 8048)  # the first free one is used
MAX_REQUEST_BYTES = 500_000  # a hundred times what the page sends
MAX_PIXELS = 1_000_000  # of a drawing


class Prediction(TypedDict):
    """The answer to a drawing; without a digit in it, predicted is None and the rest is empty but for the reason."""

    predicted: int | None
    probabilities: list[float]
    candidates: int
    pixels: list[int]
    reason: str


def make_app(run: Run, host: str = "127.0.0.1") -> Starlette:
    """Return an app that serves the page at / and, at /predict, answers a PNG of a drawing with a Prediction as JSON.

    Args:
        run: the run whose tested weights are used.
        host: the name or address at which the server listens.

    Raises:
        UsageError: starlette is not installed, or the run has no checkpoint.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.base import BaseHTTPMiddleware
        from starlette.middleware.body_limit import RequestBodyLimitMiddleware
        from starlette.requests import ClientDisconnect
        from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
        from starlette.routing import Route
    except ModuleNotFoundError as error:
        raise not_installed("draw", "draw") from error

    classifier = load_classifier(run)
    classifier.probabilities(np.zeros((1, SIDE, SIDE), np.uint8))  # the first call takes longest
    names = {"localhost", host.lower(), socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
    one_at_a_time = asyncio.Lock()

    async def check_host(request: Request, respond: Callable[[Request], Awaitable[Response]]) -> Response:
        known = is_own_host(request.headers.get("host", ""), names)
        return await respond(request) if known else PlainTextResponse("unknown host", 400)

    async def show_page(request: Request) -> Response:
        page, headers = render_page(run, classifier)
        return HTMLResponse(page, headers=headers)

    async def predict(request: Request) -> Response:
        if request.headers.get("content-type") != "image/png":
            return PlainTextResponse("the drawing must be image/png", 415)
        try:
            body = await request.body()
            async with one_at_a_time:
                return JSONResponse(await asyncio.to_thread(predict_drawing, classifier, body))
        except ClientDisconnect:
            return PlainTextResponse("incomplete request", 400)
        except UnreadableImage as error:
            return PlainTextResponse(str(error), 400)

    routes = [Route("/", show_page), Route("/predict", predict, methods=["POST"])]
    limit = Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_REQUEST_BYTES)
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=check_host), limit])


def is_own_host(header: str, names: Collection[str]) -> bool:
    """Return whether a request's Host header is one of the names or an IP address.

    Another name may be one that a web site has pointed at this machine to read its answers (DNS rebinding). An address
    cannot be pointed anywhere.
    """
    try:
        host = urlsplit(f"//{header}").hostname or ""
        return host in names or bool(ip_address(host))
    except ValueError:
        return False


def predict_drawing(classifier: ImageClassifier, png: bytes) -> Prediction:
    """Classify a drawing, dark on light.

    Raises:
        UnreadableImage: it is not a PNG, or has more than MAX_PIXELS pixels.
    """
    try:
        found = classifier.network_input(read_image(io.BytesIO(png), MAX_PIXELS, ("PNG",)), is_drawing=True)
    except NoDigit as error:
        return {"predicted": None, "probabilities": [], "candidates": 0, "pixels": [], "reason": str(error)}
    probabilities = classifier.probabilities(found.pixels[None])[0]
    return {
        "predicted": int(probabilities.argmax()),
        "probabilities": probabilities.tolist(),
        "candidates": found.candidates,
        "pixels": found.pixels.ravel().tolist(),
        "reason": "",
    }


def render_page(run: Run, classifier: ImageClassifier) -> tuple[str, dict[str, str]]:
    """Return the page and its headers, which allow only its own style, script and requests."""
    accuracy = run.info["metrics"].get(TEST_ACC)
    network = str(run.info["model"]) + (f", test accuracy {accuracy:.2%}" if accuracy is not None else "")
    nonce = secrets.token_urlsafe()
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; style-src 'nonce-{nonce}'; "
        f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    digits = classifier.is_for_digits
    page = render_template(
        WEB / "draw.html",
        network=network,
        nonce=nonce,
        classes=classifier.classes,
        noun="digit" if digits else "picture",
        invitation=invitation(classifier.classes, digits=digits),
    )
    return page, {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def invitation(classes: Sequence[str], *, digits: bool) -> str:
    """Return what a page to draw on says while nothing is drawn."""
    return "Draw one digit, 0 to 9." if digits else f"Draw one of {len(classes)}: see the list."


def open_socket(host: str, port: int | None) -> socket.socket:
    """Open a socket that listens at a port or, for None, at the first free one of PORTS.

    Raises:
        UsageError: the port is in use or needs administrator rights, or the host is not an address of this machine.
    """
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port={port}: invalid port; choose from 1024 to 65535, or 0 for any")
    for each in [port] if port is not None else [*PORTS, 0]:
        try:
            listener = socket.create_server((host, each), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            # asyncio sets it only for sockets that name their protocol; without it, an answer is delayed by 40 ms.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listener
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                reason = "is in use" if error.errno == errno.EADDRINUSE else "needs administrator rights"
                raise UsageError(f"--port={port}: {reason}; choose another, or omit it for a free one") from error
            raise UsageError(f"--host={host}: not an address of this machine ({error.strerror})") from error
    raise AssertionError("port 0 is always free")


def serve(run: Run, host: str, port: int | None, *, browser: bool) -> None:
    """Serve the page until Ctrl-C.

    Args:
        run: the run whose tested weights are used.
        host: the address to listen at.
        port: the port; None for the first free one of PORTS.
        browser: whether to open the page in a browser.

    Raises:
        UsageError: as `make_app` and `open_socket` do.
    """
    try:
        import uvicorn

        from mnist_lab.inference.request_timeout import TimeoutProtocol
    except ModuleNotFoundError as error:
        raise not_installed("draw", "draw") from error
    app = make_app(run, host)
    config = uvicorn.Config(
        app,
        http=TimeoutProtocol,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=1,
        log_level="error",
        access_log=False,
        server_header=False,
    )
    shown_host = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    with open_socket(host, port) as listener:
        address = f"http://{shown_host}:{listener.getsockname()[1]}/"
        print(f"draw at {address} (press Ctrl-C to stop)", flush=True)
        if browser and has_screen():
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listener])


def has_screen() -> bool:
    """Return whether a browser can open a window; without one, Python would start one that takes over the terminal."""
    return sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & set(os.environ))
