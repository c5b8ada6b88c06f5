"""Find and open files of arrays, alone, in a folder or in an archive, plain or as .gz, within bounds of memory."""

import gzip
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from mnist_lab.errors import UsageError
from mnist_lab.files import ARRAY_FILES
from mnist_lab.formatting import shorten

SAVE_AS_CSV = "save it as CSV UTF-8"  # Excel has the format under this name.
HIDDEN = (".", "__MACOSX/")
MAX_EXPANSION = 50  # Arrays may take this many bytes for each byte of their files.
SMALL_FILE = 10_000_000  # A smaller file may have arrays as large as those of a file of this size.

DataFile = Path | zipfile.Path


def find_files(path: Path) -> list[Path]:
    """Return the file at a path or, of a folder, those that may have arrays."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError("not a file" if path.exists() else "file not found")
    files = sorted(file for file in path.iterdir() if _may_have_arrays(file.name) and file.is_file())
    if not files:
        others = "data=image_folder reads images, and data=idx MNIST's format"
        raise UsageError(f"has no arrays ({' '.join(ARRAY_FILES)}); {others}")
    return files


def list_members(path: Path) -> list[DataFile]:
    """Return the file itself or, of an archive, the files in it that may have arrays."""
    if not zipfile.is_zipfile(path):
        return [path]
    root = zipfile.Path(path)
    files = [name for name in root.root.namelist() if not name.startswith(HIDDEN)]
    if "xl/workbook.xml" in files:
        raise UsageError(f"is a spreadsheet; {SAVE_AS_CSV}")
    names = [name for name in files if _may_have_arrays(name) or len(files) == 1]
    if not names:
        raise UsageError(f"holds no arrays ({shorten(', '.join(files)) or 'it is empty'})")
    return [root / name for name in names]


def _may_have_arrays(name: str) -> bool:
    return name.lower().endswith(ARRAY_FILES) and not name.startswith(HIDDEN)


@contextmanager
def open_file(path: DataFile) -> Iterator[IO[bytes]]:
    """Open a file, which is decompressed if it is a .gz."""
    with path.open("rb") as file, gzip.open(file) as unpacked:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield cast(IO[bytes], unpacked) if is_gzip else file


def limit_memory(files: Collection[Path]) -> int:
    """Return how many bytes the contents of files may take."""
    return MAX_EXPANSION * max(sum(file.stat().st_size for file in files), SMALL_FILE)


def check_memory(needed: int, most: int) -> None:
    """Raise UsageError if more bytes are needed than allowed."""
    if needed > most:
        raise UsageError(f"takes {needed / 1e9:.1f} GB once read, too much for a file of its size; save fewer images")


@contextmanager
def explain(where: str = "") -> Iterator[None]:
    """Turn every error of reading a file into a UsageError that begins with where it is."""
    try:
        yield
    except UsageError as error:
        raise type(error)(f"{where}{error}") from error
    except Exception as error:  # NumPy, SciPy, zipfile and zlib raise anything for damaged files.
        reason = shorten(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        remedy = f"; if it is a CSV, {SAVE_AS_CSV}" * isinstance(error, UnicodeDecodeError)
        raise UsageError(f"{where}cannot be read as .npz, .npy, .mat, IDX or UTF-8 CSV ({reason}){remedy}") from error
