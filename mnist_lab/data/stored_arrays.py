"""Read the arrays in .npy, .mat, IDX and CSV files."""

import io
import math
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from mnist_lab.data.data_files import DataFile, check_memory, explain, list_members, open_file
from mnist_lab.data.image_source import split_name
from mnist_lab.data.mnist_files import parse_idx, parse_idx_header
from mnist_lab.data.pixel_csv import Unlabelled, read_table
from mnist_lab.errors import UsageError

MATLAB_BYTES = {"double": 8, "single": 4, "logical": 1, "char": 4}
MATLAB_BYTES |= {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}
MATLAB_COMPRESSED = 15  # the type of a compressed part


class Contents(NamedTuple):
    """The arrays in files."""

    arrays: dict[str, np.ndarray]
    matlab: list[str]  # the names of arrays that MATLAB wrote
    left_out: dict[str, list[str]]  # the names of columns and files, by the reason


def read_arrays(files: Iterable[Path], label: str | None, max_bytes: int, *, must_have_labels: bool = True) -> Contents:
    """Return the arrays of files by name, with the set in a file's name; a CSV without labels may be left out."""
    members = [member for file in files for member in list_members(file)]
    contents, errors = Contents({}, [], {"not needed": [], "without labels or pixels": []}), list[UsageError]()
    for member in members:
        try:
            with explain(f"{member.name}: " if len(members) > 1 else ""):
                found, is_matlab, columns = _read_member(member, label, max_bytes, must_have_labels)
        except Unlabelled as error:
            contents.left_out["without labels or pixels"].append(member.name)
            errors.append(error)
            continue
        split = split_name(member.name)[0] if len(members) > 1 else None
        named = {f"{split}_{name}" if split and not split_name(name)[0] else name: found[name] for name in found}
        if twice := sorted(named.keys() & contents.arrays):
            raise UsageError(f"{member.name} and another file have {twice[0]}; keep one")
        contents.arrays.update(named)
        contents.matlab.extend(named if is_matlab else ())
        contents.left_out["not needed"].extend(columns)
        check_memory(sum(array.nbytes for array in contents.arrays.values()), max_bytes)
    if errors and not contents.arrays:
        raise errors[-1]
    return contents


def _read_member(
    member: DataFile, label: str | None, max_bytes: int, must_have_labels: bool
) -> tuple[dict[str, np.ndarray], bool, list[str]]:
    """Return the arrays of a file by name, whether MATLAB wrote them, and the names of columns that are not read."""
    with open_file(member) as file:
        start = file.read(128)
        file.seek(0)
        if start.startswith(npy.MAGIC_PREFIX):
            return {PurePath(member.name).stem: _read_npy(file, max_bytes)}, False, []
        if start.startswith(b"MATLAB"):
            return _read_matlab(file, start, max_bytes), True, []
        kind, shape, dtype, _ = parse_idx_header(start)
        if kind:
            check_memory(math.prod(shape) * dtype.itemsize, max_bytes)
            return {member.name: parse_idx(file.read(max_bytes), kind)}, False, []
    if start.startswith(b"PK"):
        raise UsageError("is an archive that is damaged, or in another one")
    pixels, labels, columns = read_table(member, label, max_bytes, must_have_labels=must_have_labels)
    named = {} if labels is None else {split_name(label or "labels")[1]: labels}
    return {"images": pixels} | named, False, columns


def _read_npy(file: IO[bytes], max_bytes: int) -> np.ndarray:
    """Return the array in a .npy file; an empty one in place of pickled objects, which are never read."""
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        return np.empty(0, object)
    check_memory(math.prod(shape) * dtype.itemsize, max_bytes)
    file.seek(0)
    return np.asarray(npy.read_array(file, allow_pickle=False))


def _read_matlab(file: IO[bytes], start: bytes, max_bytes: int) -> dict[str, np.ndarray]:
    """Return the numbers and texts in a .mat file; of a cell, an empty array, and nothing of a structure."""
    from scipy.io import loadmat, whosmat

    if not start.startswith(b"MATLAB 5.0"):
        raise UsageError("is in another MATLAB format; save it with save('FILE.mat', '-v7')")
    content = _decompress_matlab(file, max_bytes // 2)
    found = [(name, math.prod(shape), kind) for name, shape, kind in whosmat(content)]
    listed = [(name, count, kind) for name, count, kind in found if kind in MATLAB_BYTES]
    check_memory(2 * sum(count * MATLAB_BYTES[kind] for _, count, kind in listed), max_bytes)
    content.seek(0)
    loaded = loadmat(content, variable_names=[name for name, *_ in listed])
    cells = {name: np.empty(0, object) for name, _, kind in found if kind == "cell"}
    return {name: np.asarray(loaded[name]) for name, *_ in listed} | cells


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
