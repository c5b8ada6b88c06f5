"""`python -m mnist_lab draw RUN`: draw a digit in the browser and see the prediction as you draw."""

from __future__ import annotations

from mnist_lab.cli.parser import CommandParser, find_run


def main(arguments: list[str]) -> None:
    parser = CommandParser("draw", __doc__)
    parser.add_run()
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at (%(default)s; 0.0.0.0: all of this machine's)"
    )
    parser.add_argument("--port", type=int, help="the port to listen at (default: the first free one from 8028 on)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")
    options = parser.parse_args(arguments)
    run = find_run(options)
    from mnist_lab.inference.server import serve

    serve(run, options.host, options.port, browser=not options.no_browser)
