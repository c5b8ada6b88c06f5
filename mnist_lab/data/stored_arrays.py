"""List and read arrays in .npy, .mat and CSV files, which may be alone, in a folder, or in a .npz or .zip archive."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from mnist_lab.data.image_source import split_name
from mnist_lab.data.pixel_csv import DataFile, check_memory, read_table
from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten

SUFFIXES = (".npy", ".npz", ".mat", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".zip")
HIDDEN = (".", "__MACOSX/")
MAX_FILES = 1000  # An archive of more would take long to list.
MATLAB_TYPES = {"double": "f8", "single": "f4", "logical": "u1", "char": "U1"}
MATLAB_TYPES |= {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
MATLAB_COMPRESSED = 15  # the type of a compressed part


class StoredArray(NamedTuple):
    """An array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]
    is_matlab: bool = False


def find_files(path: Path) -> list[Path]:
    """Return the file at a path or, of a folder, those that may have arrays."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError("not a file" if path.exists() else "file not found")
    files = sorted(file for file in path.iterdir() if _may_have_arrays(file.name) and file.is_file())
    if not files:
        others = "data=image_folder reads images, and data=idx MNIST's format"
        raise UsageError(f"has no arrays ({' '.join(SUFFIXES)}); {others}")
    return files


def _may_have_arrays(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(HIDDEN)


def list_arrays(files: list[Path], label: str | None, max_bytes: int) -> tuple[dict[str, StoredArray], list[str]]:
    """Return the arrays of files by name, and the names of columns that were not read.

    Of several files, the set in the name of a .mat or CSV file becomes part of its arrays' names.
    """
    members = [member for file in files for member in list_members(file)]
    arrays: dict[str, StoredArray] = {}
    unread: list[str] = []
    for member in members:
        split = split_name(member.name)[0]
        prefix = f"{split}_" if len(members) > 1 and split else ""
        with member.open("rb") as file:
            start = file.read(128)
        try:
            if start.startswith(npy.MAGIC_PREFIX):
                prefix, found = "", {PurePath(member.name).stem: _list_npy(member)}
            elif start.startswith(b"MATLAB"):
                found = _list_matlab(member, start, max_bytes)
            elif start.startswith(b"PK"):
                raise UsageError("is an archive that is damaged, or in another one")
            else:
                pixels, labels, columns = read_table(member, label, max_bytes)
                assert labels is not None, "A CSV without labels is refused."
                found = {"images": _stored(pixels), split_name(label or "labels")[1]: _stored(labels)}
                unread += columns
        except UsageError as error:
            raise UsageError(f"{member.name}: {error}" if len(members) > 1 else str(error)) from error
        if twice := [prefix + name for name in found if prefix + name in arrays]:
            raise UsageError(f"{member.name} and another file have {twice[0]}; keep one")
        arrays |= {prefix + name: array for name, array in found.items()}
    return arrays, unread


def _stored(array: np.ndarray) -> StoredArray:
    return StoredArray(array.shape, array.dtype, lambda: array)


def list_members(path: Path) -> list[DataFile]:
    """Return the file itself or, of an archive, the files in it that may have arrays."""
    if not zipfile.is_zipfile(path):
        return [path]
    root = zipfile.Path(path)
    files = [name for name in root.root.namelist() if not name.startswith(HIDDEN)]
    names = [name for name in files if _may_have_arrays(name) or len(files) == 1]
    if not 0 < len(names) <= MAX_FILES:
        others = shorten(", ".join(files))
        raise UsageError(f"holds {len(names):,} files of arrays ({others}); must be from 1 to {MAX_FILES:,}")
    return [root / name for name in names]


def _list_npy(member: DataFile) -> StoredArray:
    with member.open("rb") as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
    return StoredArray(shape, dtype, partial(_read_npy, member))


def _read_npy(member: DataFile) -> np.ndarray:
    with member.open("rb") as file:
        array: np.ndarray = npy.read_array(file, allow_pickle=False)
    return array


def _list_matlab(member: DataFile, start: bytes, max_bytes: int) -> dict[str, StoredArray]:
    """Return the numbers and texts in a .mat file; cells and structures are left out."""
    from scipy.io import whosmat

    if not start.startswith(b"MATLAB 5.0"):
        raise UsageError("is in another MATLAB format; save it with save('FILE.mat', '-v7')")
    with member.open("rb") as file:
        content = _decompress_matlab(file, max_bytes // 2)
    return {
        name: StoredArray(shape, np.dtype(MATLAB_TYPES[kind]), partial(_load_matlab, content, name), True)
        for name, shape, kind in whosmat(content)
        if kind in MATLAB_TYPES
    }


def _decompress_matlab(file: IO[bytes], max_bytes: int) -> io.BytesIO:
    """Return a .mat file with its parts decompressed, as SciPy does it without bounds."""
    content = io.BytesIO()
    header = file.read(128)
    content.write(header)
    order = "<" if header.endswith(b"IM") else ">"
    while len(tag := file.read(8)) == 8:
        kind, size = struct.unpack(f"{order}II", tag)
        check_memory(content.tell() + size, max_bytes)
        part = file.read(size)
        if kind == MATLAB_COMPRESSED:
            tag, part = b"", zlib.decompressobj().decompress(part, max_bytes + 1 - content.tell())
        content.write(tag + part)
        check_memory(content.tell(), max_bytes)
    content.seek(0)
    return content


def _load_matlab(content: io.BytesIO, name: str) -> np.ndarray:
    from scipy.io import loadmat

    content.seek(0)
    return np.asarray(loadmat(content, variable_names=[name])[name])
