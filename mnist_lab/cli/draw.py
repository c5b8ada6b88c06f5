"""`python -m mnist_lab draw RUN`: a page on which one draws a digit, and sees at once what the network makes of it."""

from __future__ import annotations

from mnist_lab.cli.parser import CommandParser, find_run


def main(arguments: list[str]) -> None:
    parser = CommandParser("draw", __doc__)
    parser.add_run()
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen (%(default)s: to this machine alone; 0.0.0.0: to all)"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 8028 on")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")
    options = parser.parse_args(arguments)
    run = find_run(options)
    from mnist_lab.inference.server import serve

    serve(run, options.host, options.port, browser=not options.no_browser)
