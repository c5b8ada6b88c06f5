"""`python -m mnist_lab tag RUN TAG...`: mark runs, to find them again with ls --where "tag == keep"."""

from __future__ import annotations

from mnist_lab.cli.parser import CommandParser, select_runs_and_words
from mnist_lab.errors import UsageError
from mnist_lab.runs.trash import read_annotations, tag_run
from mnist_lab.viz.annotations import write_annotations


def main(arguments: list[str]) -> None:
    parser = CommandParser("tag", __doc__)
    parser.add_selection("TAG ...", "tags, a word each; without one, the runs' tags are shown")
    parser.add_argument("--remove", action="store_true", help="take the tags away")
    options = parser.parse_intermixed_args(arguments)
    runs, tags = select_runs_and_words(options)
    if options.remove and not tags:
        raise UsageError("--remove: name the tags to take away")
    for run in runs:
        if tags:
            tag_run(run, **{"remove" if options.remove else "add": tags})
            write_annotations(run)
        print(f"{run}: {' '.join(read_annotations(run)['tags']) or 'no tag'}")
