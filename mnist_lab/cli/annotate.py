"""`tag` and `note`: keep labels and a description with a run, which ls, compare and report show."""

from mnist_lab.cli.parser import CommandParser, select_runs_and_words
from mnist_lab.errors import UsageError
from mnist_lab.formatting import print_lines
from mnist_lab.runs.trash import annotate, read_annotations, tag_run


def tag(arguments: list[str]) -> None:
    parser = CommandParser("tag")
    parser.add_runs("TAG ...", "tags, one word each; without a tag, the runs' tags are shown")
    parser.add_argument("--remove", action="store_true", help="remove the tags")
    options = parser.parse_runs(arguments)
    runs, tags = select_runs_and_words(options)
    if options.remove and not tags:
        raise UsageError("--remove: name the tags to remove")
    for run in runs:
        if tags:
            tag_run(run, tags, remove=options.remove)
        print_lines(f"{run}: {' '.join(read_annotations(run)['tags']) or 'no tag'}")


def note(arguments: list[str]) -> None:
    parser = CommandParser("note")
    parser.add_runs("TEXT ...", 'the note; "" removes it; without a text, the note is shown')
    runs, words = select_runs_and_words(parser.parse_runs(arguments))
    for run in runs:
        if words:
            annotate(run, {**read_annotations(run), "note": " ".join(words).strip() or None})
        print_lines(f"{run}: {read_annotations(run)['note'] or 'no note'}")
