"""`tag`, `note`, `rm`, `restore`, `archive` and `unarchive`: keep order among runs and sweeps."""

from pathlib import Path

from mnist_lab.cli.parser import CommandParser, find_named_folders, select_runs_and_words
from mnist_lab.cli.tables import print_table
from mnist_lab.config.trust import RECORDS
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, format_command, format_date, print_lines, print_warning
from mnist_lab.runs import archive as archives
from mnist_lab.runs import trash
from mnist_lab.runs.run import RECORD


def tag(arguments: list[str]) -> None:
    parser = CommandParser("tag")
    parser.add_runs("TAG ...", "tags, a word each; without one, the runs' tags are shown")
    parser.add_argument("--remove", action="store_true", help="take the tags away")
    options = parser.parse_runs(arguments)
    runs, tags = select_runs_and_words(options)
    if options.remove and not tags:
        raise UsageError("--remove: name the tags to take away")
    for run in runs:
        if tags:
            trash.tag_run(run, **{"remove" if options.remove else "add": tags})
        print_lines(f"{run}: {' '.join(trash.read_annotations(run)['tags']) or 'no tag'}")


def note(arguments: list[str]) -> None:
    parser = CommandParser("note")
    parser.add_runs("TEXT ...", 'the note; "" removes it; without one, the note is shown')
    runs, words = select_runs_and_words(parser.parse_runs(arguments))
    for run in runs:
        if words:
            trash.annotate(run, {**trash.read_annotations(run), "note": " ".join(words).strip() or None})
        print_lines(f"{run}: {trash.read_annotations(run)['note'] or 'no note'}")


def rm(arguments: list[str]) -> None:
    parser = CommandParser("rm")
    parser.add_runs()
    parser.add_argument("--force", action="store_true", help="also what is in use, or a job that its sweep needs")
    parser.add_argument("--empty-trash", action="store_true", help="delete for good what is in the trash")
    options = parser.parse_runs(arguments)
    if options.empty_trash:
        if options.runs or options.where is not None:
            raise UsageError("--empty-trash: deletes all that is in the trash; name no runs")
        print_lines(f"{trash.empty_trash(options.runs_dir)} runs and sweeps deleted for good")
        return
    for removed in trash.remove(find_named_folders(options), options.runs_dir, force=options.force):
        runs_dir = removed.entry.parents[1]
        other = [] if runs_dir == Path("runs") else ["--runs-dir", str(runs_dir)]
        command = format_command(["restore", removed.folder.name, *other])
        print_lines(f"removed: {display_path(removed.folder)}; to have it back: {command}")


def restore(arguments: list[str]) -> None:
    parser = CommandParser("restore")
    parser.add_argument("names", metavar="NAME", nargs="*", help="of a removed folder: its path, or part of its name")
    parser.add_runs_dir()
    options = parser.parse_args(arguments)
    for removed in [trash.find_removed(name, options.runs_dir) for name in options.names]:
        print_lines(f"restored: {display_path(trash.restore(removed))}")
    if options.names:
        return
    removed_folders = trash.list_trash(options.runs_dir)
    lines = [(format_date(each.date), display_path(each.folder)) for each in removed_folders]
    if lines:
        print_table(("removed", "folder"), lines, left=("removed", "folder"))
    else:
        print_lines("the trash is empty")


def archive(arguments: list[str]) -> None:
    parser = CommandParser("archive")
    parser.add_runs()
    parser.add_argument("file", metavar="FILE.zip", type=Path, help="the file to write")
    options = parser.parse_runs(arguments)
    if options.file.suffix != ".zip":
        raise UsageError(f"{options.file}: name the file to write last; it ends in .zip")
    roots = [Path(name) for name in options.named]
    folders = [_whole(folder, roots) for folder in find_named_folders(options)]
    names, left_out = archives.archive(folders, options.runs_dir, options.file)
    for path in left_out:
        print_warning(f"{path}: a link out of it, or no ordinary file; left out")
    runs, size = sum(Path(name).name == RECORD for name in names), options.file.stat().st_size / 1e6
    described = f"{runs} run{'s' * (runs != 1)}, {len(names)} files, {size:.1f} MB"
    print_lines(f"written: {display_path(options.file)} ({described})")


def _whole(folder: Path, roots: list[Path]) -> Path:
    """Return the sweep or reproduction that a run is part of, if that, or a folder with it, was named."""
    above = [path for path in folder.parents if any(path.is_relative_to(root) for root in roots)]
    return next((path for path in reversed(above) if any((path / name).is_file() for name in RECORDS)), folder)


def unarchive(arguments: list[str]) -> None:
    parser = CommandParser("unarchive")
    parser.add_argument("file", metavar="FILE.zip", type=Path, help="what `archive` has written")
    parser.add_runs_dir("where to unpack it")
    options = parser.parse_args(arguments)
    for folder in archives.unarchive(options.file, options.runs_dir):
        print_lines(f"unpacked: {display_path(folder)}")
