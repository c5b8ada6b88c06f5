"""`python -m mnist_lab draw RUN`: draw a digit in the browser and see the prediction as you draw."""

from mnist_lab.cli.parser import CommandParser, find_named_runs
from mnist_lab.errors import UsageError
from mnist_lab.sweeps.process import import_torch


def main(arguments: list[str]) -> None:
    parser = CommandParser("draw")
    parser.add_runs()
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s; 0.0.0.0: all)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 8028 on)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")
    options = parser.parse_runs(arguments)
    runs = find_named_runs(options, options.runs)
    if len(runs) > 1:
        raise UsageError(f"{len(runs)} runs are named; name one, or combine their networks with `ensemble`")
    import_torch(f"preparing the page of {runs[0]}")
    from mnist_lab.web.server import serve

    serve(runs[0], options.host, options.port, browser=not options.no_browser)
