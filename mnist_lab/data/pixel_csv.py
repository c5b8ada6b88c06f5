"""A CSV with the pixels of an image in each line, as Kaggle, pandas, NumPy and R write it."""

import csv
import gzip
import io
import math
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import TextIO

import numpy as np

from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten

LABEL_NAMES = {"label", "labels", "class", "target", "y", "digit"}
INDEX_NAME = re.compile("|unnamed.*|index|row.?names?|.*id")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
MAX_LINE, MAX_LABEL = 1 << 22, 100  # characters
COPIES = 3  # NumPy copies the table while it grows.

DataFile = Path | zipfile.Path


def check_memory(needed: int, most: int) -> None:
    """Raise UsageError if more bytes are needed than allowed."""
    if needed > most:
        raise UsageError(f"takes {needed / 1e9:.1f} GB once read, too much for a file of its size; save fewer images")


def read_table(
    path: DataFile, label: str | None, max_bytes: int, *, must_have_labels: bool = True
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Return the pixels of a CSV, (N, P), the labels, (N,) numbers or names, and the names of columns left out.

    The label is the name of a column, "first" or "last", or None to find it. The pixels are bytes, if all fit.
    """
    delimiter, names, values, has_names = _read_head(path, max_bytes)
    place, others = _find_label(names, values, label, must_exist=must_have_labels)
    texts: list[str] = []

    def collect(text: str) -> int:
        if len(text) > MAX_LABEL:
            raise ValueError(f"a label has more than {MAX_LABEL} characters")
        texts.append(text.strip())
        return 0

    converters: dict[int | str, Callable[[str], int]] = {column: lambda text: 0 for column in others}
    if place is not None:
        converters[place] = collect
    for dtype in (np.uint8, np.float32):
        texts.clear()
        row_bytes = COPIES * len(names) * np.dtype(dtype).itemsize + 8 * MAX_LABEL
        try:
            with _open_text(path) as file, warnings.catch_warnings():
                warnings.simplefilter("error")  # NumPy warns of a file without rows, and of bytes such as 0.5.
                lines: Iterator[str] = islice(_read_lines(file, max_bytes, row_bytes), int(has_names), None)
                if delimiter != ",":
                    lines = (DECIMAL_COMMA.sub(".", line) for line in lines)
                table = np.loadtxt(lines, dtype, None, delimiter, converters, ndmin=2, quotechar='"')
            break
        except (ValueError, Warning) as error:
            if dtype is np.float32:
                reason = str(error).split(";")[0].replace("float32", "a number")
                raise UsageError(f"cannot be read ({shorten(reason, 200)})") from error
    pixels = [column for column in range(len(names)) if column not in converters]
    labels = np.array(texts) if texts else None
    if labels is None and _is_square(len(pixels) - 1):
        labels = table[:, pixels.pop(_choose_end(table[:, pixels[0]], table[:, pixels[-1]], must_have_labels))]
    if not _is_square(len(pixels)):
        raise UsageError(f"found {len(pixels)} columns of pixels; as many as in a square are needed, such as {28 * 28}")
    if labels is None and must_have_labels:
        raise UsageError("has no column named label; data.source.labels=NAME says which it is")
    with suppress(ValueError):
        labels = labels if labels is None else labels.astype(float)
    return table[:, pixels], labels, [names[i] for i in others if names[i]]


def _read_head(path: DataFile, max_bytes: int) -> tuple[str | None, list[str], list[str], bool]:
    """Return the separator, the names of columns, the first values, and whether the file has the names.

    The separator is None for spaces. If names are numbers, they count up, as those of pandas.
    """
    with _open_text(path) as file:
        first, second = [*islice(_read_lines(file, max_bytes), 2), "", ""][:2]
    if not first:
        raise UsageError("is empty")
    # A comma in 0,5 does not separate; then another separator is at least half as frequent.
    counts = {mark: weight * first.count(mark) for mark, weight in ((",", 1), (";", 2), ("\t", 2))}
    delimiter = max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else None
    names, values = _split(first, delimiter), _split(second, delimiter)
    numbers = [float(name) for name in names if NUMBER.fullmatch(name)]
    steps = [after - before for before, after in pairwise(numbers)]
    if steps.count(1) < 0.9 * len(steps):
        # A column in front of label and pixels numbers the lines.
        return delimiter, ["" if _is_square(len(names) - 2) else "0", *["0"] * (len(names) - 1)], names, False
    if len(names) == len(values) - 1:  # R does not name the column of the names of lines.
        names = ["", *names]
    if len(names) != len(values):
        raise UsageError(f"the first line has {len(names):,} values, and the second {len(values):,}; make them equal")
    return delimiter, names, values, True


def _split(line: str, delimiter: str | None) -> list[str]:
    line = line.strip("\r\n ") if delimiter == "," else DECIMAL_COMMA.sub(".", line.strip("\r\n "))
    fields = next(csv.reader([line], delimiter=delimiter or " ", skipinitialspace=True), [])
    return [field.strip() for field in fields]


def _is_square(count: int) -> bool:
    return count > 3 and math.isqrt(count) ** 2 == count


def _find_label(
    names: list[str], values: list[str], label: str | None, *, must_exist: bool
) -> tuple[int | None, list[int]]:
    """Return the column of labels, None if it is not found, and the columns that are neither labels nor pixels.

    The names of pixels differ in their numbers only.
    """
    patterns = [re.sub(r"\d+", "0", name.lower()) for name in names]
    usual = Counter(patterns).most_common(1)[0][0] if patterns else ""
    others = {i for i, value in enumerate(values) if patterns[i] != usual or (value and not NUMBER.fullmatch(value))}
    columns = [i for i, name in enumerate(names) if i not in others or not INDEX_NAME.fullmatch(name.lower())]
    possible = [i for i in columns if i in others]
    possible = [i for i in possible if names[i].lower() in LABEL_NAMES] or possible
    if label is not None:
        ends = {"first": columns[:1], "last": columns[-1:]}
        possible = [names.index(label)] if label in names else ends.get(label, [])
        if not possible and must_exist:
            raise UsageError(f"has no column {shorten(label)}; data.source.labels names one, or is first or last")
    elif len(possible) > 1:
        choices = " or ".join(f"data.source.labels={names[i]}" for i in possible)
        raise UsageError(f"{len(possible)} columns may be the labels; say {shorten(choices)}")
    return (possible[0] if possible else None), sorted(others - {*possible})


def _choose_end(first: np.ndarray, last: np.ndarray, must_be_sure: bool) -> int:
    """Return 0 if the first column has the labels, -1 if the last: whole numbers from 0 or 1, two or more of a kind."""
    kinds = [np.unique(column) for column in (first, last)]
    may_be = [
        1 < len(found) <= len(first) / 2 and found[0] in (0, 1) and bool((found == np.rint(found)).all())
        for found in kinds
    ]
    if all(may_be) and must_be_sure:
        remedy = "say data.source.labels=first or data.source.labels=last"
        raise UsageError(f"its first and its last column may both be the labels; {remedy}")
    return -1 if may_be == [False, True] else 0


@contextmanager
def _open_text(path: DataFile) -> Iterator[TextIO]:
    with path.open("rb") as file, gzip.open(file) as unpacked:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with io.TextIOWrapper(unpacked if is_gzip else file, encoding="utf-8-sig") as text:
            yield text


def _read_lines(file: TextIO, max_bytes: int, row_bytes: int = 0) -> Iterator[str]:
    """Yield the lines that are not empty, not comments or Excel's sep= above, while memory allows a row for each."""
    characters = rows = 0
    for line in iter(lambda: file.readline(MAX_LINE), ""):
        characters += len(line)
        check_memory(max(characters, rows * row_bytes), max_bytes)
        if len(line) == MAX_LINE:
            raise UsageError(f"has a line of more than {MAX_LINE:,} characters")
        is_comment = rows == 0 and re.match(r"#[^,;\t]|sep=.\s*$", line)
        if not line.isspace() and not is_comment:
            rows += 1
            yield line
