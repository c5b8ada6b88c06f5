"""Runs as one ZIP file with the SHA-256 of each of their files, by which they are verified when they are unpacked."""

import hashlib
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from mnist_lab.errors import UsageError
from mnist_lab.files import make_folder, sync_tree, user_output
from mnist_lab.formatting import display_path
from mnist_lab.runs.locks import HOLDER, LOCK, holder_of
from mnist_lab.runs.run import RECORD, Run

MANIFEST = "MANIFEST.json"  # in the ZIP file: the SHA-256 of each file by its path
CHUNK = 1 << 20  # bytes


def archive(runs: Sequence[Run], runs_dir: Path, path: Path) -> int:
    """Write runs into a ZIP file, under their paths below `runs_dir` or their names; return the number of files."""
    places: dict[str, Run] = {}
    for run in runs:
        if (holder := holder_of(run.folder)) is not None:
            raise UsageError(f"{run}: is in use by {holder}; archive it when it has ended")
        folder, root = run.folder.resolve(), runs_dir.resolve()
        place = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.name
        if place in places:
            raise UsageError(f"{run}: has the name of {places[place]}; archive one of them by itself")
        places[place] = run
    sums: dict[str, str] = {}
    with (
        user_output(path, display_path(path)) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as content,
    ):
        for place, run in places.items():
            for file in sorted(each for each in run.folder.rglob("*") if each.is_file()):
                if file.name not in (LOCK, HOLDER):
                    name = f"{place}/{file.relative_to(run.folder).as_posix()}"
                    with file.open("rb") as source, content.open(name, "w", force_zip64=True) as target:
                        sums[name] = _copy(source, target)
        content.writestr(MANIFEST, json.dumps(sums, indent=1) + "\n")
    return len(sums)


def unarchive(path: Path, runs_dir: Path) -> list[Run]:
    """Unpack the runs of a ZIP file that `archive` has written to where they were, all of them or none."""
    try:
        with zipfile.ZipFile(path) as content:
            sums = _manifest(content)
            places = sorted({name.removesuffix(f"/{RECORD}") for name in sums if name.endswith(f"/{RECORD}")})
            if not places:
                raise ValueError("it has no run")
            for place in filter(lambda place: (runs_dir / place).exists(), places):
                raise UsageError(f"{display_path(runs_dir / place)}: is there already; name another --runs-dir")
            make_folder(runs_dir)
            with tempfile.TemporaryDirectory(prefix=".unarchive-", dir=runs_dir) as name:
                for file, expected in sums.items():
                    target = Path(name) / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with content.open(file) as source, target.open("wb") as unpacked:
                        if _copy(source, unpacked) != expected:
                            raise UsageError(f"{path}: {file} has a wrong SHA-256; get the archive anew")
                sync_tree(Path(name))
                for place in places:
                    make_folder((runs_dir / place).parent)
                    (Path(name) / place).rename(runs_dir / place)
    except UsageError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, KeyError) as error:
        raise UsageError(f"{path}: damaged, or not an archive of runs ({error})") from error
    except OSError as error:
        where = error.filename or runs_dir
        raise UsageError(f"{path}: cannot be unpacked into {runs_dir} ({where}: {error.strerror})") from error
    return [Run(runs_dir / place) for place in places]


def _manifest(content: zipfile.ZipFile) -> dict[str, str]:
    """Return the SHA-256 of each file by its path; ValueError if that does not fit the ZIP file or the disk."""
    sums = json.loads(content.read(MANIFEST))
    names = [entry.filename for entry in content.infolist() if entry.filename != MANIFEST]
    if not isinstance(sums, dict) or sorted(names) != sorted(sums):
        raise ValueError(f"{MANIFEST} names other files than it has")
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ".." in parts or ":" in parts[0] or len(parts) < 2:
            raise ValueError(f"{name!r} is no path of a run")
    size, free = sum(entry.file_size for entry in content.infolist()), shutil.disk_usage(".").free
    if size > free:
        raise ValueError(f"it has {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free")
    return sums


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy a file, and return its SHA-256."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()
