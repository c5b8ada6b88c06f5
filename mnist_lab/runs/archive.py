"""Pack runs and sweeps into a ZIP file with the SHA-256 of each of their files, and verify them when unpacking."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from mnist_lab.config.trust import RECORDS
from mnist_lab.errors import UsageError
from mnist_lab.files import make_folder, user_output
from mnist_lab.formatting import display_path, shorten
from mnist_lab.runs.locks import LOCK, holder_of
from mnist_lab.runs.record import parse_json
from mnist_lab.runs.run import SWEEP_RECORD

MANIFEST = "MANIFEST.json"  # It has the SHA-256 of each file by its path.
CHUNK = 1 << 20  # bytes
MAX_MANIFEST = 20_000_000  # bytes
MAX_DEPTH = 16  # The path of a file may have so many parts.
MAX_RATIO = 100  # The files may be so many times larger than the archive; checkpoints hardly shrink at all.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, OverflowError, RuntimeError)


def archive(folders: Sequence[Path], runs_dir: Path, path: Path) -> tuple[list[str], list[Path]]:
    """Write and verify a ZIP file of runs and sweeps; return the names of its files, and the links left out."""
    roots = {folder.resolve(): folder for folder in folders}
    packed: dict[str, Path] = {}
    for root, folder in roots.items():
        if not any(parent in roots for parent in root.parents):  # A nested run is packed with the outer one.
            name = _name_in_archive(root, runs_dir.resolve())
            if name in packed:
                raise UsageError(f"{folder}: has the name of {packed[name]}; archive one of them by itself")
            packed[name] = folder
    sums: dict[str, str] = {}
    left_out: list[Path] = []
    with user_output(path, display_path(path)) as partial, _explain_errors(path, "not written", "not written"):
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as content:
            for name, folder in packed.items():
                for file in _find_files(folder, left_out):
                    if file.resolve() != path.resolve():
                        member = f"{name}/{file.relative_to(folder).as_posix()}"
                        with file.open("rb") as source, content.open(member, "w", force_zip64=True) as target:
                            sums[member] = _copy(source, target)
            content.writestr(MANIFEST, json.dumps(sums, indent=1) + "\n")
        with zipfile.ZipFile(partial) as content:
            _check(content, partial.stat().st_size)
            for member, expected in sums.items():
                with content.open(member) as source:
                    if _copy(source) != expected:
                        raise ValueError(f"{member} has another SHA-256 than its file")
    return list(sums), left_out


def _name_in_archive(root: Path, runs_dir: Path) -> str:
    """Return the path that a folder has in an archive."""
    if root.is_relative_to(runs_dir) and root != runs_dir:
        return root.relative_to(runs_dir).as_posix()
    return f"sweeps/{root.name}" if (root / SWEEP_RECORD).is_file() else root.name  # sweep=NAME needs it there.


def _find_files(folder: Path, left_out: list[Path]) -> Iterator[Path]:
    """Yield the files of a folder that are not hidden; add links and whatever else is not a file to `left_out`."""

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        if LOCK in files and (holder := holder_of(Path(parent))) is not None:
            raise UsageError(f"{display_path(Path(parent))}: is in use by {holder}; archive it when it has ended")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in (Path(parent, name) for name in sorted([*folders, *files]) if not name.startswith(".")):
            if file.is_file() and file.resolve().is_relative_to(folder.resolve()):
                yield file
            elif file.is_symlink() or not file.is_dir():
                left_out.append(file)


def unarchive(path: Path, runs_dir: Path) -> list[Path]:
    """Unpack the runs and sweeps of a ZIP file, written by `archive`, to where they were: all of them or none."""
    damage, problem = "damaged, or not an archive of runs", f"cannot be unpacked into {runs_dir}"
    with _explain_errors(path, damage, problem), zipfile.ZipFile(path) as content:
        sums, names = _check(content, path.stat().st_size)
        targets = [runs_dir / name for name in names]
        for folder in targets:
            if folder.exists() or folder.is_symlink():
                raise UsageError(f"{display_path(folder)}: is there already; name another --runs-dir")
        make_folder(runs_dir)
        size, free = sum(entry.file_size for entry in content.infolist()), shutil.disk_usage(runs_dir).free
        if size > free:
            raise UsageError(f"{path}: has {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free in {runs_dir}")
        with tempfile.TemporaryDirectory(prefix=".unarchive-", dir=runs_dir) as temporary:
            for member, expected in sums.items():
                file = Path(temporary, member)
                file.parent.mkdir(parents=True, exist_ok=True)
                with content.open(member) as source, file.open("xb") as unpacked:
                    if _copy(source, unpacked) != expected:
                        raise UsageError(f"{path}: {member} has a wrong SHA-256; get the archive anew")
            os.sync()  # Syncing thousands of files one by one would take minutes.
            for folder in targets:
                make_folder(folder.parent)  # With all parents made, no rename fails after another one.
            for name, folder in zip(names, targets, strict=True):
                Path(temporary, name).rename(folder)
    return targets


@contextmanager
def _explain_errors(path: Path, damage: str, problem: str) -> Iterator[None]:
    """Turn the errors of a damaged or hostile archive, and those of a disk, into a UsageError."""
    try:
        yield
    except UsageError:
        raise
    except DAMAGE as error:
        raise UsageError(f"{path}: {damage} ({shorten(str(error), 200)})") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise UsageError(f"{path}: {problem} ({where}{error.strerror})") from error


def _check(content: zipfile.ZipFile, size: int) -> tuple[dict[str, str], list[str]]:
    """Return the SHA-256 of each file by its path, and the paths of the runs and sweeps; ValueError for other files."""
    entries = content.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if content.getinfo(MANIFEST).file_size > MAX_MANIFEST or unpacked > MAX_RATIO * (size + CHUNK):
        raise ValueError(f"its {size:,} bytes would unpack to {len(entries):,} files of {unpacked:,} bytes")
    for entry in entries:
        name, path = entry.filename, PurePosixPath(entry.filename)
        if re.search(r"[\\\x00-\x1f\x7f-\x9f]", name):
            raise ValueError(f"a name has control characters or a backslash: {name!r}")
        is_inside = 2 <= len(path.parts) <= MAX_DEPTH and str(path) == name and not path.is_absolute()
        if name != MANIFEST and (not is_inside or ".." in path.parts):
            raise ValueError(f"{name!r} is no path of a run")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name!r} is compressed in a way that is not read")
    sums = parse_json(content.read(MANIFEST).decode())
    if not isinstance(sums, dict) or sorted(entry.filename for entry in entries) != sorted([*sums, MANIFEST]):
        raise ValueError(f"{MANIFEST} names other files than it has")
    kept = {name: value for name, value in sums.items() if "/." not in f"/{name}"}  # No run needs hidden files.
    folders = {folder for folder, _, file in (name.rpartition("/") for name in kept) if file in RECORDS}
    strays = [name for name in sums if folders.isdisjoint(_folders_above(name))]
    if strays or not sums:
        raise ValueError(f"it has no run, or files beside: {strays[:1]}")
    return kept, sorted(folder for folder in folders if folders.isdisjoint(_folders_above(folder)))


def _folders_above(name: str) -> Iterator[str]:
    return (name[: slash.start()] for slash in re.finditer("/", name))


def _copy(source: IO[bytes], target: IO[bytes] | None = None) -> str:
    """Return the SHA-256 of a file, and copy it if there is a target."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()
