"""`python -m mnist_lab report RUN|SWEEP...`: one HTML page of a run or a sweep."""

import webbrowser
from pathlib import Path

from mnist_lab.cli.parser import CommandParser, find_named_folders
from mnist_lab.console import working_on
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, print_lines
from mnist_lab.report.render import report


def main(arguments: list[str]) -> None:
    parser = CommandParser("report")
    parser.add_runs()
    parser.add_argument("--out", type=Path, metavar="FILE", help="file of a page (default: report.html in its folder)")
    parser.add_argument("--open", action="store_true", help="open the pages in a browser")
    options = parser.parse_runs(arguments)
    folders = find_named_folders(options)
    if options.out and len(folders) > 1:
        raise UsageError(f"--out={options.out}: only valid for one page; {len(folders)} are named")
    for folder in folders:
        with working_on(f"writing the report of {display_path(folder)}"):
            path = report(str(folder), options.out)
        print_lines(f"written: {display_path(path)}")
        if options.open:
            from mnist_lab.web.server import has_screen  # It imports torch, as a page of a sweep need not.

            if not (has_screen() and webbrowser.open(path.absolute().as_uri())):
                print_lines("not opened: no browser can open a window here")
