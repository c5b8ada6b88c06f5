"""A CSV with the pixels of an image in each line, as Kaggle, pandas, NumPy and R write it."""

import csv
import io
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice, pairwise

import numpy as np

from mnist_lab.data.data_files import DataFile, check_memory, open_file
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key, shorten

LABEL_NAMES = {"label", "labels", "class", "target", "y", "digit"}
INDEX_NAME = re.compile("|unnamed.*|index|row.?names?|.*id")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
MAX_LINE, MAX_LABEL = 1 << 22, 100  # characters
COPIES = 3  # NumPy copies the table while it grows.


class Unlabelled(UsageError):
    """A CSV has no labels, or no pixels, so that it cannot be trained on."""


class _Lines:
    """The lines of a CSV with values, without comments and Excel's sep= above, while memory allows a row for each."""

    def __init__(self, path: DataFile, max_bytes: int, row_bytes: int = 0) -> None:
        self.path, self.max_bytes, self.row_bytes = path, max_bytes, row_bytes
        self.number = 0  # The number of the last line, as an editor counts lines.

    def __iter__(self) -> Iterator[str]:
        characters = rows = 0
        with open_file(self.path) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as text:
            for self.number, line in enumerate(iter(lambda: text.readline(MAX_LINE), ""), start=1):
                characters += len(line)
                check_memory(max(characters, rows * self.row_bytes), self.max_bytes)
                if len(line) == MAX_LINE:
                    raise UsageError(f"has a line of more than {MAX_LINE:,} characters")
                is_comment = rows == 0 and re.match(r"#[^,;\t]|sep=.\s*$", line)
                if line.strip(" ,;\t\r\n") and not is_comment:
                    rows += 1
                    yield line


def read_table(
    path: DataFile, label: str | None, max_bytes: int, *, must_have_labels: bool = True
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Return the pixels of a CSV, (N, P), the labels, (N,) numbers or names, and the names of columns left out.

    The label is the name of a column, "first" or "last", or None to find it. The pixels are bytes, if all fit.
    """
    delimiter, names, values, has_names = _read_head(path, max_bytes)
    place, others = _find_label(names, values, label, must_exist=must_have_labels)
    pixels = [column for column in range(len(names)) if column not in (place, *others)]
    titles = [names[column] for column in pixels]
    # Two numbers in a name, in an order of their own, may be by rows or by columns.
    if titles == sorted(titles) or all(len(re.findall(r"\d+", title)) == 1 for title in titles):
        pixels.sort(key=lambda column: natural_key(names[column]))
    is_at_an_end = place is None and _is_square(len(pixels) - 1)
    if not _is_square(len(pixels) - is_at_an_end):
        raise Unlabelled(f"found {len(pixels)} columns of pixels; as many as in a square are needed, such as {28 * 28}")
    if place is None and must_have_labels and not is_at_an_end:
        raise Unlabelled("has no column named label; data.source.labels=NAME says which it is")
    texts: list[str] = []

    def collect(text: str) -> int:
        if not 0 < len(text.strip()) <= MAX_LABEL:
            raise UsageError(f"must be the name of a class, of 1 to {MAX_LABEL} characters")
        texts.append(text.strip())
        return 0

    converters: dict[int | str, Callable[[str], int]] = {column: lambda text: 0 for column in others}
    if place is not None:
        converters[place] = collect
    for dtype in (np.uint8, np.float32):
        texts.clear()
        lines = _Lines(path, max_bytes, COPIES * len(names) * np.dtype(dtype).itemsize + 8 * MAX_LABEL)
        rows: Iterator[str] = islice(lines, int(has_names), None)
        if delimiter != ",":
            rows = (DECIMAL_COMMA.sub(".", line) for line in rows)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # NumPy warns of a file without rows, and of bytes such as 0.5.
                table = np.loadtxt(rows, dtype, None, delimiter, converters, ndmin=2, quotechar='"')
            break
        except UsageError:
            raise
        except (ValueError, Warning) as error:
            if dtype is np.float32:
                raise _explain(error, lines.number, names if has_names else []) from error
    labels = np.array(texts) if texts else None
    if is_at_an_end:
        labels = table[:, pixels.pop(_choose_end(table[:, pixels[0]], table[:, pixels[-1]], must_have_labels))]
    with suppress(ValueError):
        labels = labels if labels is None else labels.astype(float)
    return table[:, pixels], labels, [names[i] for i in others if names[i]]


def _explain(error: Exception, line: int, names: list[str]) -> UsageError:
    """Return the error for a line that NumPy cannot read, as the user sees the file."""
    if found := re.match(r"could not convert string (.*) to .* column (\d+)", str(error)):
        column = f"{found[2]} ({shorten(names[int(found[2]) - 1])})" if names else found[2]
        needed = error.__cause__ if isinstance(error.__cause__, UsageError) else "must be a number"
        return UsageError(f"line {line}, column {column}: {shorten(found[1])} {needed}")
    if found := re.match(r"the number of columns changed from (\d+) to (\d+)", str(error)):
        return UsageError(f"line {line}: has {found[2]} values, and the lines above have {found[1]}; make them equal")
    return UsageError(f"line {line}: cannot be read ({shorten(str(error), 200)})")


def _read_head(path: DataFile, max_bytes: int) -> tuple[str | None, list[str], list[str], bool]:
    """Return the separator, None for spaces, the names of columns, the first values, and whether the file has names."""
    first, second = [*islice(_Lines(path, max_bytes), 2), "", ""][:2]
    if not first:
        raise UsageError("is empty")
    # A comma in 0,5 does not separate; then another separator is at least half as frequent.
    counts = {mark: weight * (first + second).count(mark) for mark, weight in ((",", 1), (";", 2), ("\t", 2))}
    delimiter = max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else None
    names, values = _split(first, delimiter), _split(second, delimiter)
    # If names are numbers, most follow one another, as those of pandas.
    numbers = [float(name) for name in names if NUMBER.fullmatch(name)]
    steps = [after - before for before, after in pairwise(sorted(numbers))]
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
    """Return the column of labels, None if it is not found, and the columns that are neither labels nor pixels."""
    # The names of pixels differ in their numbers only.
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
