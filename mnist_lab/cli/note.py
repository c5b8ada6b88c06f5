"""`python -m mnist_lab note RUN TEXT`: keep a note with a run, for compare, report and ls --columns run,note."""

from __future__ import annotations

from mnist_lab.cli.parser import CommandParser, select_runs_and_words
from mnist_lab.runs.trash import note_run, read_annotations
from mnist_lab.viz.annotations import write_annotations


def main(arguments: list[str]) -> None:
    parser = CommandParser("note", __doc__)
    parser.add_selection("TEXT ...", 'the note; "" removes it; without one, the note is shown')
    options = parser.parse_intermixed_args(arguments)
    runs, words = select_runs_and_words(options)
    for run in runs:
        if words:
            note_run(run, " ".join(words))
            write_annotations(run)
        print(f"{run}: {read_annotations(run)['note'] or 'no note'}")
