"""Serve the page of a network at one address, and nothing else. The page sends no data, so no body is read."""

import contextlib
import errno
import os
import socket
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from urllib.parse import urlsplit

from mnist_lab.console import working_on
from mnist_lab.errors import UsageError
from mnist_lab.formatting import print_lines
from mnist_lab.runs.run import Run
from mnist_lab.web.page import page_of

PORTS = range(8028, 8048)  # The first free one is used.
REQUEST_SECONDS = 10.0
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def serve(run: Run, host: str, port: int | None, *, browser: bool) -> None:
    """Serve the page of a run until Ctrl-C, and open it in a browser. No port means the first free one of PORTS."""
    shown_host = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    with open_server(host, port) as server:  # This comes before the work, because the address may be refused.
        with working_on(f"preparing the page of {run}, with the images that it gets most wrong"):
            server.page = page_of(run)
        address = f"http://{shown_host}:{server.server_address[1]}/"
        print_lines(f"draw at {address} (press Ctrl-C to stop)")
        sys.stdout.flush()
        if browser and has_screen():
            webbrowser.open(address)
        server.serve_forever()


class PageServer(ThreadingHTTPServer):
    """Serves `page` at /."""

    page = ""

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), PageHandler)
        machine = socket.gethostname().lower()
        self.names = {"localhost", host.lower(), machine, f"{machine}.local"}

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would look up the host's name, which may take seconds.


class PageHandler(BaseHTTPRequestHandler):
    """Answers one request and closes the connection, also if no request arrives for REQUEST_SECONDS."""

    server: PageServer
    server_version, sys_version = "mnist_lab", ""
    disable_nagle_algorithm = True  # Nagle's algorithm would wait 40 ms for the acknowledgement of the page's headers.

    def handle(self) -> None:
        self.connection.settimeout(REQUEST_SECONDS)
        with contextlib.suppress(OSError):  # The client may have left.
            super().handle()

    def do_GET(self) -> None:
        self.connection.settimeout(None)  # A slow client may take longer for the page.
        if not is_own_host(self.headers.get("Host", ""), self.server.names):
            self.send_error(400, "unknown host")
        elif self.path.partition("?")[0] != "/":
            self.send_error(404)
        else:
            content = self.server.page.encode()
            self.send_response(200)
            for name, value in (HEADERS | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


def is_own_host(header: str, names: set[str]) -> bool:
    """Return whether a request's Host header is one of the names or an IP address.

    A web site may point a name of its own at this machine to read the answers (DNS rebinding), but not an address.
    """
    try:
        host = urlsplit(f"//{header}").hostname or ""
        return host in names or bool(ip_address(host))
    except ValueError:
        return False


def open_server(host: str, port: int | None) -> PageServer:
    """Listen at a port or, for None, at the first free one of PORTS; an impossible address is a UsageError."""
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port={port}: invalid port; choose from 1024 to 65535, or 0 for any")
    for candidate in [port] if port is not None else [*PORTS, 0]:
        try:
            return PageServer(host, candidate)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise UsageError(f"--host={host}: not an address of this machine ({error.strerror})") from error
            if port is not None:
                reason = "is in use" if error.errno == errno.EADDRINUSE else "needs administrator rights"
                raise UsageError(f"--port={port}: {reason}; choose another, or omit it for a free one") from error
    raise AssertionError("port 0 is always free")


def has_screen() -> bool:
    """Return whether a browser can open a window; otherwise Python would start one that takes over the terminal."""
    return sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & set(os.environ))
