"""A CSV is read as pandas, Kaggle, NumPy, R and spreadsheets write it; if it has two readings, both are named."""

import csv
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mnist_lab.data import ArrayFile
from mnist_lab.errors import UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
FLAT = IMAGES.reshape(20, 784)
LABELS = np.arange(20) % 4
NAMES = np.array(["a cat", "dog; big", "emu, small", "été"])[LABELS]


def frame(labels: Any = LABELS, *, place: int = 0, name: str = "label", pixels: Any = FLAT) -> pd.DataFrame:
    table = pd.DataFrame(pixels)
    table.insert(place, name, labels)
    return table


def to_csv(table: pd.DataFrame, **settings: Any) -> bytes:
    return str(table.to_csv(**settings)).encode()


def r_table(header: list[str], separator: str) -> bytes:
    """Write a table as R does: texts in quotes, and the names of the lines in front."""
    rows = [[str(i), name, *row] for i, (name, row) in enumerate(zip(NAMES, FLAT.tolist(), strict=True), start=1)]
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, delimiter=separator).writerows([header, *rows])
    return file.getvalue().encode()


def numpy_text(table: np.ndarray, **settings: Any) -> bytes:
    file = io.BytesIO()
    np.savetxt(file, table, **settings)
    return file.getvalue()


def german_spreadsheet() -> bytes:
    table = frame(name="Ziffer", pixels=FLAT / 255)
    return b"\xef\xbb\xbf" + to_csv(table, sep=";", decimal=",", index=False, lineterminator="\r\n") + b"\r\n\r\n"


PIXELS = [f"pixel{i}" for i in range(784)]
SQUARES = pd.DataFrame(FLAT, columns=[f"{row}x{column}" for row in range(28) for column in range(28)])
DARK_ENDS = FLAT.copy()
DARK_ENDS[:, [0, 783]] = 0
DIALECTS: dict[str, tuple[Callable[[], bytes], Any]] = {
    "Kaggle": (lambda: to_csv(frame(pixels=SQUARES.set_axis(PIXELS, axis=1)), index=False), LABELS),
    "pandas": (lambda: to_csv(frame()), LABELS),
    "label last": (lambda: to_csv(frame(place=784), index=False), LABELS),
    "label in the middle": (lambda: to_csv(frame(place=300, name="Class")), LABELS),
    "pixels sorted by name": (lambda: to_csv(frame(pixels=SQUARES.sort_index(axis=1)), index=False), LABELS),
    "pixels shuffled": (lambda: to_csv(frame().sample(785, axis=1, random_state=0), index=False), LABELS),
    "another name": (lambda: to_csv(frame(name="what", pixels=SQUARES)), LABELS),
    "other columns": (lambda: to_csv(frame().assign(split="train", image_id=range(20))), LABELS),
    "numbers as names": (lambda: to_csv(frame(name="0").set_axis(range(785), axis=1), index=False), LABELS),
    "no names": (lambda: to_csv(frame(), index=False, header=False), LABELS),
    "no names, an index": (lambda: to_csv(frame(pixels=DARK_ENDS), header=False), LABELS),
    "no names, label last": (lambda: to_csv(frame(place=784, pixels=DARK_ENDS), index=False, header=False), LABELS),
    "no names, texts": (lambda: to_csv(frame(NAMES), index=False, header=False), NAMES),
    "semicolons": (lambda: to_csv(frame(), sep=";"), LABELS),
    "tabs": (lambda: to_csv(frame(NAMES), sep="\t"), NAMES),
    "floats": (lambda: to_csv(frame(LABELS * 1.0, pixels=FLAT * 1.0), index=False), LABELS),
    "floats to 1": (lambda: to_csv(frame(pixels=FLAT / 255)), LABELS),
    "labels above 255": (lambda: to_csv(frame(LABELS + 300)), LABELS + 300),
    "German": (german_spreadsheet, LABELS),
    "Excel's empty lines": (lambda: to_csv(frame(), index=False) + 2 * (b"," * 784 + b"\r\n"), LABELS),
    "Excel's sep=": (lambda: b"sep=;\r\n" + to_csv(frame(), sep=";"), LABELS),
    "R write.csv": (lambda: r_table(["", "label", *PIXELS], ","), NAMES),
    "R write.table": (lambda: r_table(["label", *PIXELS], " "), NAMES),
    "NumPy": (lambda: numpy_text(np.column_stack([LABELS, DARK_ENDS])), LABELS),
    "NumPy with a comment": (lambda: numpy_text(frame(), fmt="%d", delimiter=",", header="digit, pixels"), LABELS),
}


def read(path: Path, **settings: Any) -> dict[bytes, str]:
    """Return the class of each image that is read."""
    source = ArrayFile(path=str(path), **settings)
    arrays, classes = source.load(), source.read_settings()["classes"]
    images = np.concatenate([arrays.train_images, arrays.test_images])
    labels = np.concatenate([arrays.train_labels, arrays.test_labels])
    return {image.tobytes(): classes[label] for image, label in zip(images, labels, strict=True)}


def expected(labels: Any, images: Any = FLAT) -> dict[bytes, str]:
    rows = np.asarray(images, np.uint8)
    return {image.tobytes(): str(label) for image, label in zip(rows, labels, strict=True)}


@pytest.mark.parametrize("name", DIALECTS)
def test_each_image_of_a_dialect_has_its_class(tmp_path: Path, name: str) -> None:
    write, labels = DIALECTS[name]
    (tmp_path / "x.csv").write_bytes(write())
    images = DARK_ENDS if name in ("no names, an index", "no names, label last", "NumPy") else FLAT
    assert read(tmp_path / "x.csv") == expected(labels, images)


@pytest.mark.parametrize("name", ["x.csv.gz", "x.csv.zip", "x.zip", "x"])
def test_compressed_file_is_read_as_the_file_in_it(tmp_path: Path, name: str) -> None:
    if name.endswith("gz"):
        (tmp_path / name).write_bytes(gzip.compress(to_csv(frame())))
    else:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("x" if name == "x" else "train.csv", to_csv(frame()))
            file.writestr("__MACOSX/._train.csv", b"\0\1")
    assert read(tmp_path / name) == expected(LABELS)


def test_columns_that_are_neither_label_nor_pixels_are_named(tmp_path: Path) -> None:
    frame().assign(split="train", image_id=range(20)).to_csv(tmp_path / "x.csv")
    notes = ArrayFile(path=str(tmp_path / "x.csv")).notes()
    assert notes[1:] == ["left out because not needed: 2 (split, image_id)"]


FLOATS = pd.DataFrame(FLAT / 255)
BOTH = frame(pixels=np.where(np.arange(784) == 783, LABELS[::-1, None], FLAT))


@pytest.mark.parametrize(
    ("table", "header", "readings"),
    [
        (BOTH, False, {"first": (LABELS, BOTH.iloc[:, 1:]), "last": (LABELS[::-1], BOTH.iloc[:, :-1])}),
        (frame(name="id").assign(kind=NAMES, what=LABELS), True, {"kind": (NAMES, FLAT), "what": (LABELS, FLAT)}),
    ],
    ids=["first or last", "two names"],
)
def test_setting_decides_which_column_has_the_labels(
    tmp_path: Path, table: pd.DataFrame, header: bool, readings: dict[str, Any]
) -> None:
    table.to_csv(tmp_path / "x.csv", index=False, header=header)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "x.csv")
    assert all(f"data.source.labels={label}" in str(caught.value) for label in readings)
    for label, (labels, images) in readings.items():
        assert read(tmp_path / "x.csv", labels=label) == expected(labels, images)


@pytest.mark.parametrize("given", [None, "label", "digit"])
def test_further_csv_has_the_form_of_the_first_and_may_lack_labels(tmp_path: Path, given: str | None) -> None:
    source = ArrayFile(path="none.csv", labels=given, axes="NWH")
    frame(NAMES[::-1]).to_csv(tmp_path / "test.csv.gz", sep=";")
    FLOATS.to_csv(tmp_path / "unlabelled.csv", index=False)
    images, labels = source.read_more(tmp_path / "test.csv.gz", [*NAMES[:4]])
    assert np.array_equal(images, IMAGES.transpose(0, 2, 1))
    assert (labels is None) if given == "digit" else np.array_equal(labels, LABELS[::-1])
    images, labels = source.read_more(tmp_path / "unlabelled.csv", [*NAMES[:4]])
    assert labels is None and np.allclose(images, IMAGES.transpose(0, 2, 1) / 255)


ROW = "1," + ",".join(["0"] * 784)
HEAD = "label," + ",".join(f"p{i}" for i in range(784))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (f"My digits\n{ROW}\n".encode(), "the first line has 1 values, and the second 785; make them equal"),
        (b"label,a\n", "the first line has 2 values, and the second 0; make them equal"),
        (f"{ROW}\n{ROW},0\n".encode(), "line 2: has 786 values, and the lines above have 785; make them equal"),
        (f"{ROW}\n\n{ROW[:-1]}x\n".encode(), "line 3, column 785: 'x' must be a number"),
        (f"{HEAD}\r\n\r\n{ROW}\r\n{ROW[:-1]}\r\n".encode(), "line 4, column 785 (p783): '' must be a number"),
        (
            f"{HEAD}\n{ROW}\n{ROW[1:]}\n".encode(),
            "line 3, column 1 (label): '' must be the name of a class, of 1 to 100",
        ),
        (f"{HEAD}\n{ROW}\n{'x' * 101}{ROW[1:]}\n".encode(), "must be the name of a class, of 1 to 100 characters"),
        (f"{ROW}\n{ROW[:-1]}nan\n".encode() * 9, "has a value that is no number (NaN); replace it"),
        (f"{ROW[:-2]}\n".encode() * 9, "has no column named label; data.source.labels=NAME"),
        (f"{ROW[:-8]}\n".encode() * 9, "found 781 columns of pixels"),
        (f"label,{ROW}".encode().replace(b"1,0", b"\xe9,p") + b"\n", "'utf-8' codec can't decode byte 0xe9"),
        (
            to_csv(frame(NAMES)).decode().encode("utf-16"),
            "0: invalid start byte); if it is a CSV, save it as CSV UTF-8",
        ),
        (f'{ROW}\n"{ROW}\n'.encode(), "line 2: "),
        (b"0" * (1 << 22), "has a line of more than"),
        (gzip.compress(ROW.encode(), mtime=0)[:-9], "ended before"),
        (b"PK\x03\x04", "is an archive that is damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "codec can't decode"),
    ],
)
def test_hostile_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "x.csv")
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("line", [b"0," * 784 + b"1\n", b"0.5," * 784 + b"1\n", b" \n", b"# x\n"])
def test_compressed_file_far_larger_than_its_archive_is_refused(
    tmp_path: Path, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lab.data.data_files.SMALL_FILE", 2000)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(line * (2_000_000 // len(line))))
    with pytest.raises(UsageError, match="too much for a file of its size"):
        read(tmp_path / "x.csv.gz")
