"""A .npz or CSV file becomes a data set: which forms are read, and what is refused."""

import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_pixel_csv import IMAGES, LABELS

from mnist_lab.data import ArrayFile, MNISTDataModule
from mnist_lab.errors import UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own.npz"


def save(path: Path, **arrays: Any) -> ArrayFile:
    np.savez_compressed(path, **arrays)
    return ArrayFile(path=str(path))


@pytest.mark.parametrize(
    "names", ["Train_Images train_labels val_images val_labels", "X y x_valid y_valid", "x_train y_train x_test y_test"]
)
def test_sets_of_the_file_are_used_and_arrays_without_a_set_are_not_read(path: Path, names: str) -> None:
    arrays = dict(zip(names.split(), (IMAGES, LABELS, IMAGES[:5], LABELS[:5]), strict=True))
    source = save(path, **arrays, extra=np.array([{}]), images_2=IMAGES, data=LABELS)
    sets = MNISTDataModule(source=source, val_size=0.2).raw_sets()
    kind, counts = ("test", [16, 4, 5]) if "test" in names else ("validation", [16, 5, 4])
    assert np.array_equal(sets[kind][0], IMAGES[:5]) and np.array_equal(sets[kind][1], LABELS[:5])
    assert [len(labels) for _, labels in sets.values()] == counts
    assert "left out because not needed: 3 (extra, images_2, data)" in source.notes()


@pytest.mark.parametrize(
    ("images", "scale"),
    [
        (np.round(IMAGES / 17).astype(np.float64), "0 to 15 (black 0, white 16)"),
        (np.where(IMAGES > 254, 1.003, IMAGES / 255), "0 to 1.003 (black 0, white 1)"),
        (IMAGES.astype(np.int16) - 128, "-128 to 127 (black -128, white 127)"),
        (IMAGES > 99, "0 to 1 (black 0, white 1)"),
    ],
    ids=["0 to 15", "one of 1.003", "int16", "bool"],
)
def test_scale_is_found_and_described(path: Path, images: np.ndarray, scale: str) -> None:
    source = save(path, x_train=images, y_train=LABELS, x_test=images[::-1], y_test=LABELS[::-1])
    arrays = source.load()
    expected = np.where(IMAGES > 99, 255, 0) if images.dtype == bool else IMAGES
    assert np.abs(arrays.train_images.astype(int) - expected).max() <= 25
    assert np.array_equal(arrays.test_images[::-1], arrays.train_images)
    assert source.notes()[0] == f"28 x 28 pixels, values {scale}"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (IMAGES, IMAGES / 255),
        (IMAGES // 16, IMAGES),
        (IMAGES / 255 * 1.3, IMAGES / 255 * 1.3),
        (np.where(np.arange(784).reshape(28, 28) == 9, [[[200]]] + [[[0]]] * 19, IMAGES / 255), IMAGES / 255),
        (IMAGES / 255 * np.where(IMAGES == 3, np.nan, 1), IMAGES / 255),
        (IMAGES * 0, IMAGES * 0),
        (np.where(np.arange(784).reshape(28, 28) == 9, 300, IMAGES / 1), np.where(IMAGES == 3, 300, IMAGES / 1)),
    ],
)
def test_arrays_on_no_scale_or_on_several_are_refused(path: Path, train: np.ndarray, test: np.ndarray) -> None:
    source = save(path, x_train=train, y_train=LABELS, x_test=test, y_test=LABELS)
    with pytest.raises(UsageError, match=r"usual scale, one for all|almost blank|NaN|300 in image 0 "):
        source.load()


@pytest.mark.parametrize(
    "shapes",
    [
        {"images": (1000, 28, 28), "labels": (1000,)},
        {"images": (1000, 1, 1), "labels": (1000,)},
        {"images": (40, 1), "labels": (2**17,)},
        {"images": (40, 1), "labels": (40,), "classes": (2**17,)},
    ],
)
def test_arrays_far_larger_than_their_file_are_refused_before_they_are_converted(
    path: Path, shapes: dict[str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lab.data.data_files.SMALL_FILE", 2000)
    monkeypatch.setattr("mnist_lab.data.array_file.to_bytes", None)
    np.savez_compressed(path, **{name: np.zeros(shape, np.uint8) for name, shape in shapes.items()})
    with pytest.raises(UsageError, match=r"GB once read, too much for a file of its size"):
        ArrayFile(path=str(path)).load()


@pytest.mark.parametrize(("kind", "count"), [("S700", 3000), ("U900", 900), ("U1", 400_000), ("U1", 20_000)])
def test_labels_that_are_texts_take_no_more_memory_than_a_file_may(
    path: Path, kind: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lab.data.data_files.SMALL_FILE", 100_000)
    labels = np.zeros(count, kind)
    labels[: count // 2] = np.arange(count // 2).astype(kind)
    source = save(path, images=IMAGES, labels=labels)
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"too much for a file of its size|is needed, an image for each of"):
        source.load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 100_000


@pytest.mark.parametrize("names", ["images x labels", "x_val x_dev y_val", "x y x_test", "pictures", ""])
def test_arrays_that_do_not_make_sets_are_refused(path: Path, names: str) -> None:
    source = save(path, **{name: LABELS if name[0] in "yl" else IMAGES for name in names.split()})
    with pytest.raises(UsageError, match=r"that may be the images; say|say which have|holds no arrays"):
        source.load()


def test_test_set_is_split_off_anew_for_another_size_and_leaves_each_class_an_image(path: Path) -> None:
    save(path, images=IMAGES[:10], labels=np.array([0, 0, *[1] * 8]))
    for test_size, test in ((0.2, [1, 2]), (0.9, [1, 7]), (0.5, [1, 4])):
        arrays = ArrayFile(path=str(path), test_size=test_size).load()
        assert np.bincount(arrays.test_labels).tolist() == test
        assert np.bincount(arrays.train_labels).tolist() == [1, 8 - test[1]]


@pytest.mark.parametrize(
    ("arrays", "classes"),
    [
        ({"labels": LABELS - 1, "classes": [-1, 0, 1, 2]}, ["-1", "0", "1", "2"]),
        ({"labels": LABELS, "classes": ["a", "b", "c", "d", "e"]}, ["a", "b", "c", "d", "e"]),
        ({"labels": np.array(["10", "9", "2", "9"])[LABELS]}, ["2", "9", "10"]),
    ],
    ids=["negative", "named by an array", "numbers as text"],
)
def test_classes_have_the_files_names_or_their_numbers(path: Path, arrays: dict[str, Any], classes: list[str]) -> None:
    source = save(path, images=IMAGES, **arrays)
    assert source.read_settings()["classes"] == classes
    labels = source.load().train_labels
    assert labels.min() >= 0 and labels.max() < len(classes)


def test_recorded_checksum_is_that_of_the_file(path: Path) -> None:
    source = save(path, images=IMAGES, labels=LABELS)
    assert source.read_settings()["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"images": IMAGES, "labels": LABELS[:-1]},
            r"images has shape \(20, 28, 28\).* an image for each of 19 labels",
        ),
        ({"images": IMAGES[:, :, :0], "labels": LABELS}, r"images has shape \(20, 28, 0\)"),
        ({"images": IMAGES, "labels": LABELS * 5000}, "labels hold 10000, which is not one of 0, 1, 2"),
        ({"images": IMAGES, "labels": LABELS + 1, "classes": range(4)}, "labels hold 4, which is not one of 0, 1"),
        ({"images": IMAGES, "labels": LABELS - 1}, r"labels hold -1; say data.source.classes=\[-1,0,1,2\] if"),
        ({"images": IMAGES, "labels": LABELS + 0.5}, "labels holds float64"),
        ({"images": IMAGES, "labels": np.array([None] * 20)}, r"labels holds object; .*: \.astype\(str\) in NumPy"),
        ({"images": IMAGES, "labels": 2 * np.eye(4)[LABELS]}, r"labels has shape \(20, 4\)"),
        ({"images": IMAGES, "labels": np.zeros((0, 0))}, r"labels has shape \(0, 0\)"),
        ({"images": IMAGES, "labels": LABELS * 0}, "the number of classes is 1; must be from 2 to 1,000"),
        ({"images": IMAGES, "labels": LABELS, "classes": ["a", "b", "b", "c"]}, "class name b occurs twice"),
        (
            {"images": IMAGES, "labels": np.array([*"abab"])[LABELS], "classes": ["a", "c"]},
            "labels hold b, which is not",
        ),
        ({"images": IMAGES, "labels": [*"abab"] * 5, "classes": np.arange(30_000).astype(str)}, r"of 0, 1, .{94}$"),
    ],
)
def test_error_in_the_arrays_is_named_in_one_line(path: Path, arrays: dict[str, Any], message: str) -> None:
    source = save(path, **arrays)
    with pytest.raises(UsageError, match=message) as caught:
        source.load()
    assert str(caught.value).startswith(f"data.source.path={source.path}: ") and "\n" not in str(caught.value)
