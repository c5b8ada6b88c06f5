"""Serve the page of a network."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
import socket
import sys
import webbrowser
from collections.abc import Awaitable, Callable, Collection
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mnist_lab.errors import UsageError, not_installed
from mnist_lab.runs.run import Run
from mnist_lab.web.page import page_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PORTS = range(8028, 8048)  # the first free one is used
MAX_REQUEST_BYTES = 1000  # the page sends nothing


def make_app(page: str, host: str = "127.0.0.1") -> Starlette:
    """Return an app that serves a page at /, and nothing else.

    Args:
        page: HTML whose styles and scripts stand in it.
        host: the name or address at which the server listens.

    Raises:
        UsageError: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.base import BaseHTTPMiddleware
        from starlette.middleware.body_limit import RequestBodyLimitMiddleware
        from starlette.responses import HTMLResponse, PlainTextResponse
        from starlette.routing import Route
    except ModuleNotFoundError as error:
        raise not_installed("draw", "draw") from error

    names = {"localhost", host.lower(), socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
    headers = security_headers(page)

    async def check_host(request: Request, respond: Callable[[Request], Awaitable[Response]]) -> Response:
        known = is_own_host(request.headers.get("host", ""), names)
        return await respond(request) if known else PlainTextResponse("unknown host", 400)

    async def show_page(request: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    limit = Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_REQUEST_BYTES)
    hosts = Middleware(BaseHTTPMiddleware, dispatch=check_host)
    return Starlette(routes=[Route("/", show_page)], middleware=[hosts, limit])


def security_headers(page: str) -> dict[str, str]:
    """Return headers that allow a page its own styles and scripts, and no requests."""

    def allowed(tag: str) -> str:
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    policy = (
        f"default-src 'none'; img-src data:; style-src {allowed('style')}; script-src {allowed('script')}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


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
    """Serve the page of a run until Ctrl-C.

    Args:
        run: the run whose tested weights are used.
        host: the address to listen at.
        port: the port; None for the first free one of PORTS.
        browser: whether to open the page in a browser.

    Raises:
        LabError: as `page_of`, `make_app` and `open_socket` do.
    """
    try:
        import starlette  # noqa: F401  # found missing at once, not when the page is there
        import uvicorn

        from mnist_lab.web.request_timeout import TimeoutProtocol
    except ModuleNotFoundError as error:
        raise not_installed("draw", "draw") from error
    shown_host = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    with open_socket(host, port) as listener:
        if sys.stderr.isatty():  # it takes seconds, and of an ensemble minutes
            print("preparing the page, with the test images that the network gets most wrong", file=sys.stderr)
        config = uvicorn.Config(
            make_app(page_of(run), host),
            http=TimeoutProtocol,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=1,
            log_level="error",
            access_log=False,
            server_header=False,
        )
        address = f"http://{shown_host}:{listener.getsockname()[1]}/"
        print(f"draw at {address} (press Ctrl-C to stop)", flush=True)
        if browser and has_screen():
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listener])


def has_screen() -> bool:
    """Return whether a browser can open a window; without one, Python would start one that takes over the terminal."""
    return sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & set(os.environ))
