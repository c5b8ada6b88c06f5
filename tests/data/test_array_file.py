"""A .npz or CSV file becomes a data set: the forms that are read, and what is refused, and why."""

import hashlib
import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_lab.data import ArrayFile, MNISTDataModule
from mnist_lab.errors import UsageError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (20, 28, 28), np.uint8)
LABELS = np.arange(20) % 4


def npy(array: np.ndarray) -> bytes:
    np.save(content := io.BytesIO(), array)
    return content.getvalue()


def save(path: Path, **arrays: Any) -> ArrayFile:
    np.savez(path, **arrays)
    return ArrayFile(path=str(path))


@pytest.mark.parametrize(
    "names", ["train_images train_labels test_images test_labels", "x_train y_train x_test y_test"]
)
def test_test_set_of_the_file_is_kept_apart(tmp_path: Path, names: str) -> None:
    arrays = dict(zip(names.split(), (IMAGES, LABELS, IMAGES[:5], LABELS[:5]), strict=True))
    found = save(tmp_path / "own.npz", **arrays).load()
    for array, expected in zip(found, arrays.values(), strict=True):
        assert np.array_equal(array, expected)


@pytest.mark.parametrize("names", ["Train_Images train_labels val_images val_labels", "X y x_valid y_valid"])
def test_validation_set_of_the_file_is_used(tmp_path: Path, names: str) -> None:
    arrays = dict(zip(names.split(), (IMAGES, LABELS, IMAGES[:5], LABELS[:5]), strict=True))
    source = save(tmp_path / "own.npz", **arrays, extra=LABELS)
    data = MNISTDataModule(source=source, val_size=0.2)
    assert np.array_equal(data.raw_sets()["validation"][0], IMAGES[:5])
    assert [len(labels) for _, labels in data.raw_sets().values()] == [16, 5, 4]
    assert "left out, unused arrays: extra" in source.notes()


@pytest.mark.parametrize(
    ("images", "scale"),
    [
        (np.round(IMAGES / 17).astype(np.float64), "0 to 15 on a scale of 0 to 16"),
        (np.where(IMAGES > 254, 1.003, IMAGES / 255), "0 to 1.003 on a scale of 0 to 1"),
        (IMAGES / np.float16(127.5) - 1, "-1 to 1 on a scale of -1 to 1"),
        (IMAGES.astype(">u2") * 257, "0 to 65535 on a scale of 0 to 65535"),
        (IMAGES.astype(np.int16) - 128, "-128 to 127 on a scale of -128 to 127"),
        (IMAGES > 99, "0 to 1 on a scale of 0 to 1"),
        ((IMAGES > 99).astype(np.uint8), "0 to 1 on a scale of 0 to 1"),
    ],
    ids=["0 to 15", "one of 1.003", "-1 to 1", "uint16", "int16", "bool", "bytes of 0 and 1"],
)
def test_scale_is_found_and_said(tmp_path: Path, images: np.ndarray, scale: str) -> None:
    source = save(tmp_path / "own.npz", x_train=images, y_train=LABELS, x_test=images[::-1], y_test=LABELS[::-1])
    arrays = source.load()
    shown = np.where(IMAGES > 99, 255, 0) if scale.startswith("0 to 1 ") else IMAGES
    assert np.abs(arrays.train_images.astype(int) - shown).max() <= 25
    assert np.array_equal(arrays.test_images[::-1], arrays.train_images)
    assert source.notes()[0] == f"28 x 28 pixels, values {scale}"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (IMAGES, IMAGES / 255),
        (IMAGES, IMAGES > 99),
        (IMAGES // 16, IMAGES),
        (IMAGES / 127.5 - 1, IMAGES / 255),
        (IMAGES / 255 * 1.3, IMAGES / 255 * 1.3),
        (IMAGES // 5, IMAGES // 5),
        ((IMAGES - 33.0) / 78, (IMAGES - 33.0) / 78),
        (np.where(np.arange(784).reshape(28, 28) == 9, [[[200]]] + [[[0]]] * 19, IMAGES / 255), IMAGES / 255),
        (IMAGES / 255 * np.where(IMAGES == 3, np.nan, 1), IMAGES / 255),
        (IMAGES * 0, IMAGES * 0),
    ],
)
def test_arrays_on_no_scale_or_on_several_are_refused(tmp_path: Path, train: np.ndarray, test: np.ndarray) -> None:
    source = save(tmp_path / "own.npz", x_train=train, y_train=LABELS, x_test=test, y_test=LABELS)
    with pytest.raises(UsageError, match=r"usual scale, one for all|almost blank"):
        source.load()


def test_pixels_of_a_csv_have_a_scale_too(tmp_path: Path) -> None:
    rows = [",".join(map(str, [label, *image.ravel()])) for image, label in zip(IMAGES // 16, LABELS, strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(rows))
    source = ArrayFile(path=str(tmp_path / "own.csv"))
    assert source.load().train_images.max() > 200
    assert source.notes() == ["28 x 28 pixels, values 0 to 15 on a scale of 0 to 16"]


def write_huge(path: Path, **shapes: tuple[int, ...]) -> ArrayFile:
    """Write arrays of bytes that compress a thousandfold."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, shape in shapes.items():
            header = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode() + b"\n"
            with file.open(f"{name}.npy", "w") as member:
                member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
                for _ in range(math.prod(shape) // 2**20):
                    member.write(bytes(range(0, 256, 255)) * 2**19)
                member.write(b"\0" * (math.prod(shape) % 2**20))
    return ArrayFile(path=str(path))


@pytest.mark.parametrize(
    "shapes",
    [
        {"images": (2**20, 28, 28), "labels": (2**20,)},
        {"images": (2**20, 1, 1), "labels": (2**20,)},
        {"images": (40, 1), "labels": (2**29,)},
        {"images": (40, 1), "labels": (40,), "classes": (2**29,)},
    ],
)
def test_arrays_far_larger_than_their_file_are_refused_before_they_are_read(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lab.data.array_files.SMALL_FILE", 100_000)
    shrunk = {
        name: tuple(max(1, size // 2**8) if size >= 2**20 else size for size in shape) for name, shape in shapes.items()
    }
    source = write_huge(tmp_path / "own.npz", **shrunk)
    monkeypatch.setattr("mnist_lab.data.array_files._to_numbers", None)
    with pytest.raises(UsageError, match=r"GB once read, too much for a file of its size"):
        source.load()


def test_array_that_is_not_needed_is_not_read(tmp_path: Path) -> None:
    source = save(tmp_path / "own.npz", images=IMAGES, labels=LABELS, unused=np.array([{}]))
    assert len(source.load().train_labels) == 16
    assert source.notes()[1:] == ["left out, unused arrays: unused"]


@pytest.mark.parametrize("names", ["images x labels", "x_val x_dev y_val", "x y x_test", "y", ""])
def test_arrays_that_do_not_make_sets_are_refused(tmp_path: Path, names: str) -> None:
    source = save(tmp_path / "own.npz", **{name: LABELS if name[0] in "yl" else IMAGES for name in names.split()})
    with pytest.raises(UsageError, match=r"keep one|needed are train_images"):
        source.load()


@pytest.mark.parametrize("names", ["images labels", "x y", "X y"])
def test_a_share_of_each_class_becomes_the_test_set(tmp_path: Path, names: str) -> None:
    arrays = save(tmp_path / "own.npz", **dict(zip(names.split(), (IMAGES, LABELS), strict=True))).load()
    assert np.bincount(arrays.train_labels).tolist() == [4] * 4 and np.bincount(arrays.test_labels).tolist() == [1] * 4


def test_share_is_read_anew_when_it_is_another_and_leaves_each_class_an_image(tmp_path: Path) -> None:
    source = save(tmp_path / "own.npz", images=IMAGES[:10], labels=np.array([0, 0, *[1] * 8]))
    for share, test in ((0.2, [1, 2]), (0.9, [1, 7]), (0.5, [1, 4])):
        arrays = ArrayFile(path=source.path, test_size=share).load()
        assert np.bincount(arrays.test_labels).tolist() == test
        assert np.bincount(arrays.train_labels).tolist() == [1, 8 - test[1]]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (IMAGES / 255, IMAGES),
        (IMAGES.astype(np.float32), IMAGES),
        (IMAGES.astype(np.int64), IMAGES),
        (IMAGES.reshape(20, 784), IMAGES),
        (IMAGES[..., None], IMAGES),
        (np.stack([IMAGES] * 3, axis=-1), IMAGES),
        (IMAGES > 127, np.where(IMAGES > 127, 255, 0)),
        (IMAGES.repeat(2, axis=1).repeat(2, axis=2), IMAGES),
    ],
    ids=["floats", "floats to 255", "integers", "rows of pixels", "one channel", "grey RGB", "booleans", "larger"],
)
def test_images_in_many_forms_are_bytes_of_28x28(tmp_path: Path, images: np.ndarray, expected: np.ndarray) -> None:
    found = save(tmp_path / "own.npz", train_images=images, train_labels=LABELS, test_images=images, test_labels=LABELS)
    pixels = found.load().train_images
    assert pixels.dtype == np.uint8 and pixels.shape == (20, 28, 28)
    # Shrinking to half mixes a pixel with its neighbours by an eighth.
    tolerance = 1 if images.shape[-1] != 56 else 255
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance
    assert np.corrcoef(pixels.ravel(), expected.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("arrays", "classes"),
    [
        ({"labels": LABELS}, ["0", "1", "2", "3"]),
        ({"labels": LABELS[:, None].astype(float)}, ["0", "1", "2", "3"]),
        ({"labels": LABELS, "classes": ["a", "b", "c", "d", "e"]}, ["a", "b", "c", "d", "e"]),
        ({"labels": np.array(["10", "9", "2", "9"])[LABELS]}, ["2", "9", "10"]),
        ({"labels": np.array(["cat", "dog", "cat", "dog"])[LABELS]}, ["cat", "dog"]),
    ],
    ids=["numbers", "a column of floats", "named by an array", "numbers as text", "names"],
)
def test_classes_have_the_names_of_the_file_or_their_numbers(
    tmp_path: Path, arrays: dict[str, Any], classes: list[str]
) -> None:
    source = save(tmp_path / "own.npz", images=IMAGES, **arrays)
    assert source.read_settings()["classes"] == classes
    labels = source.load().train_labels
    assert labels.min() >= 0 and labels.max() < len(classes)


def test_kaggles_csv_is_read_with_its_labels(tmp_path: Path) -> None:
    heads = ",".join(["label", *(f"pixel{number}" for number in range(784))])
    rows = [",".join(map(str, [label, *image.ravel()])) for image, label in zip(IMAGES, LABELS + 10, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join([heads, *rows]))
    source = ArrayFile(path=str(tmp_path / "train.csv"))
    assert source.read_settings()["classes"] == [str(number) for number in range(14)]
    arrays = source.load()
    for image, label in zip(arrays.test_images, arrays.test_labels, strict=True):
        (place,) = (image == IMAGES).all((1, 2)).nonzero()[0]
        assert LABELS[place] + 10 == label


def test_recorded_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    source = save(tmp_path / "own.npz", images=IMAGES, labels=LABELS)
    checksum = hashlib.sha256((tmp_path / "own.npz").read_bytes()).hexdigest()
    assert source.read_settings()["sha256"] == checksum
    save(tmp_path / "own.npz", images=255 - IMAGES, labels=LABELS)
    with pytest.raises(UsageError, match="have changed since they were recorded"):
        ArrayFile(path=source.path, sha256=checksum).load()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, "holds pictures; needed are train_images"),
        ({"images": IMAGES, "labels": LABELS[:-1]}, "20 training images but 19 labels"),
        ({"images": IMAGES[:, :, :0], "labels": LABELS}, r"images has shape \(20, 28, 0\)"),
        ({"images": IMAGES * 1e3, "labels": LABELS}, "has values from 0 to 255000 in the training set; must be"),
        ({"images": IMAGES.astype(complex), "labels": LABELS}, "images holds complex128"),
        ({"images": IMAGES, "labels": LABELS - 1}, "invalid label -1 in the training set"),
        ({"images": IMAGES, "labels": LABELS * 5000}, "invalid label 15000 in the training set; must be from 0 to 999"),
        ({"images": IMAGES, "labels": LABELS + 0.5}, "labels holds float64"),
        ({"images": IMAGES, "labels": np.eye(4)[LABELS]}, r"labels has shape \(20, 4\)"),
        ({"images": IMAGES, "labels": LABELS * 0}, "has one class, 0"),
        ({"images": IMAGES, "labels": LABELS, "classes": ["a", "b", "b", "c"]}, "class name b occurs twice"),
        ({"images": IMAGES, "labels": np.array([*"abab"])[LABELS], "classes": ["a", "c"]}, "holds b, which is not"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    source = save(tmp_path / "own.npz", **arrays)
    with pytest.raises(UsageError, match=message) as caught:
        source.load()
    assert str(caught.value).startswith(f"data.source.path={source.path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.npz", b"PK\x03\x04", "not a .npz or .csv file of images"),
        ("own.npy", npy(IMAGES), "is one array; save images and labels together"),
        ("own.npz", npy(IMAGES), "is one array"),
        ("own", b"", "not a .npz or .csv file of images"),
        ("own.tar", b"words", "not a .npz or .csv file of images"),
        ("own.csv", b"1,2,3", "found 3 columns"),
        ("own.csv", ("0," * 783 + "0\n").encode() * 2, "has no column named label"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        ArrayFile(path=str(tmp_path / name)).load()


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    source = save(tmp_path / "own.npz", images=IMAGES, labels=np.array([{}] * 20))
    with pytest.raises(UsageError, match=r"not a \.npz or .csv file of images"):
        source.load()
