"""Arrays of other names, shapes and files are read; where there are two readings, both are named."""

import csv
import io
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import Command, assert_refused
from omegaconf import OmegaConf, open_dict
from scipy.io import savemat
from test_pixel_csv import IMAGES, LABELS, expected, frame, read

from mnist_lab.config.compose import compose
from mnist_lab.config.validate import validate
from mnist_lab.data import ArrayFile
from mnist_lab.errors import UsageError
from mnist_lab.sweeps.plan import job_id

RANDOM = np.random.default_rng(0)
ONE_TO_TEN = np.arange(20) % 10 + 1
COLOURS = np.stack([IMAGES] * 3, axis=-1)
SHAPES = {
    "N1HW": IMAGES[:, None],
    "NHW1": IMAGES[..., None],
    "NHWC": COLOURS,
    "NCHW": COLOURS.transpose(0, 3, 1, 2),
    "HWN": IMAGES.transpose(1, 2, 0),
    "HWCN": COLOURS.transpose(1, 2, 3, 0),
    "NP": IMAGES.reshape(20, 784),
    "PN": IMAGES.reshape(20, 784).T,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_number_of_labels_tells_the_order_of_the_axes(tmp_path: Path, shape: str) -> None:
    np.savez(tmp_path / "x.npz", images=SHAPES[shape], labels=LABELS)
    assert read(tmp_path / "x.npz") == expected(LABELS)


@pytest.mark.parametrize(
    ("images", "axes"),
    [
        (RANDOM.integers(0, 256, (28, 28, 28), np.uint8), {"NHW": "NHW", "HWN": "HWN"}),
        (COLOURS.reshape(20, -1), {"NHWC": "NHWC"}),
        (COLOURS.transpose(0, 3, 1, 2).reshape(20, -1), {"NCHW": "NCHW"}),
    ],
    ids=["28 of 28x28", "flat colours", "flat planes of colours"],
)
def test_axes_decide_where_two_orders_fit(tmp_path: Path, images: np.ndarray, axes: dict[str, str]) -> None:
    labels = np.arange(len(images)) % 4
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "x.npz")
    assert all(f"data.source.axes={order}" in str(caught.value) for order in axes)
    for order in axes:
        by_image = IMAGES if images.ndim == 2 else images.transpose([order.index(axis) for axis in "NHW"])
        assert read(tmp_path / "x.npz", axes=order) == expected(labels, by_image)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.eye(4)[LABELS], LABELS),
        (LABELS[:, None], LABELS),
        (LABELS + 1, LABELS + 1),
        (LABELS + 5, LABELS + 5),
        (np.array(["b ", "a", "ö", "10"])[LABELS], np.array([*"baö", "10"])[LABELS]),
        (np.array([b"b", b"a"])[LABELS % 2], np.array(["b", "a"])[LABELS % 2]),
    ],
    ids=["one-hot", "a column", "from 1", "from 5", "texts", "bytes"],
)
def test_class_is_named_by_its_label(tmp_path: Path, labels: np.ndarray, names: np.ndarray) -> None:
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=labels)
    assert read(tmp_path / "x.npz") == expected(names)
    classes = ArrayFile(path=str(tmp_path / "x.npz")).read_settings()["classes"]
    assert len(classes) == len({*names})
    assert read(tmp_path / "x.npz", classes=classes) == expected(names), "as a run has recorded them"


@pytest.mark.parametrize("classes", [["3", "8"], ["8", "5", "3"]])
def test_classes_that_are_numbers_name_the_labels_of_these_numbers(tmp_path: Path, classes: list[str]) -> None:
    labels = np.array([3, 8])[LABELS % 2]
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=labels)
    assert read(tmp_path / "x.npz", classes=classes) == expected(labels)


def test_given_classes_name_labels_from_0_or_from_1(tmp_path: Path) -> None:
    for labels in (LABELS, LABELS + 1):
        np.savez(tmp_path / f"{labels[0]}.npz", images=IMAGES, labels=labels)
        assert read(tmp_path / f"{labels[0]}.npz", classes=[*"abcd"]) == expected(np.array([*"abcd"])[LABELS])


@pytest.mark.parametrize("name", ["images", "labels"])
def test_each_array_that_may_be_meant_is_named(tmp_path: Path, name: str) -> None:
    array = {"images": IMAGES, "labels": LABELS}[name]
    arrays = {"images": IMAGES, "labels": LABELS, "a": array, "b": array}
    del arrays[name]
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UsageError, match=rf"data\.source\.{name}=a or data\.source\.{name}=b$"):
        read(tmp_path / "x.npz")
    assert read(tmp_path / "x.npz", **{name: "b"}) == expected(LABELS)


@pytest.mark.parametrize("settings", [{}, {"images": "arr_0"}, {"labels": "arr_1"}])
def test_arrays_are_found_when_there_is_one_choice(tmp_path: Path, settings: dict[str, Any]) -> None:
    np.savez(tmp_path / "x.npz", IMAGES, LABELS, mean=np.array(0.5))
    assert read(tmp_path / "x.npz", **settings) == expected(LABELS)


def test_given_names_stand_for_those_of_the_test_set_too(tmp_path: Path) -> None:
    rest = {
        "x_train": IMAGES[:9],
        "x_test": IMAGES[9:],
        "y_train": np.eye(4)[LABELS[:9]],
        "y_test": np.eye(4)[LABELS[9:]],
    }
    np.savez(tmp_path / "x.npz", **rest, Y_train=LABELS[:9], Y_test=LABELS[9:] % 3)
    with pytest.raises(UsageError, match=r"data\.source\.labels=y_train or data\.source\.labels=Y_train"):
        read(tmp_path / "x.npz")
    assert len(ArrayFile(path=str(tmp_path / "x.npz"), labels="Y_train").load().test_labels) == 11
    assert read(tmp_path / "x.npz", labels="y_train") == expected(LABELS)
    assert read(tmp_path / "x.npz", labels="Y_train") == expected([*LABELS[:9], *LABELS[9:] % 3])


@pytest.mark.parametrize("names", ["images labels", "X y", "mnist_imgs mnist_targets", "X_train y_train X_test y_test"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_npy_files_are_read_together(tmp_path: Path, names: str, packed: bool) -> None:
    parts = (IMAGES, LABELS) if " X_test" not in names else (IMAGES[:9], LABELS[:9], IMAGES[9:], LABELS[9:])
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "README.txt").write_text("words")
    for name, array in zip(names.split(), parts, strict=True):
        np.save(folder / f"{name}.npy", array)
    if packed:
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as file:
            for path in folder.iterdir():
                file.write(path, path.name)
    assert read(tmp_path / "data.zip" if packed else folder) == expected(LABELS)


def test_sets_in_files_of_their_own_are_told_by_the_names_of_the_files(tmp_path: Path) -> None:
    for name, part in (("mnist_train.csv", slice(9)), ("mnist_test.csv", slice(9, None))):
        rows = np.column_stack([LABELS[part], IMAGES[part].reshape(-1, 784)]).tolist()
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([["label", *range(784)], *rows])
    assert len(ArrayFile(path=str(tmp_path)).load().test_labels) == 11
    assert read(tmp_path) == expected(LABELS)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_files_without_labels_beside_others_are_left_out(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "digit-recognizer"
    folder.mkdir()
    frame().to_csv(folder / "train.csv", index=False)
    frame().drop(columns="label").to_csv(folder / "test.csv", index=False)
    (folder / "sample_submission.csv").write_text("ImageId,Label\n1,0\n2,0\n")
    path = folder
    if packed:
        path = Path(shutil.make_archive(str(folder), "zip", folder))
    assert read(path) == expected(LABELS)
    (left_out,) = ArrayFile(path=str(path)).notes()[1:]
    assert left_out.startswith("left out because without labels or pixels: 2 (") and "test.csv" in left_out
    (folder / "train.csv").unlink()
    with pytest.raises(UsageError, match=r"test\.csv: has no column named label; data\.source\.labels=NAME says"):
        read(folder)


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_file_with_10_for_0_needs_its_classes(tmp_path: Path, compressed: bool) -> None:
    arrays = {"X": COLOURS.transpose(1, 2, 3, 0), "y": ONE_TO_TEN[:, None], "notes": {"a": 1}}
    savemat(tmp_path / "train_28x28.mat", arrays, do_compression=compressed)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "train_28x28.mat")
    for last in ("0", "10"):
        assert f"data.source.classes=[1,2,3,4,5,6,7,8,9,{last}]" in str(caught.value)
    for classes in ([*"1234567890"], [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]):
        assert read(tmp_path / "train_28x28.mat", classes=classes) == expected(ONE_TO_TEN % 10)


def test_flat_images_of_matlab_need_their_axes(tmp_path: Path) -> None:
    savemat(tmp_path / "x.mat", {"X": IMAGES.transpose(0, 2, 1).reshape(20, 784), "y": LABELS[:, None] + 1.0})
    with pytest.raises(UsageError, match=r"data\.source\.axes=NHW or data\.source\.axes=NWH"):
        read(tmp_path / "x.mat")
    assert read(tmp_path / "x.mat", axes="NWH") == expected(LABELS + 1)
    assert read(tmp_path / "x.mat", axes="NHW") == expected(LABELS + 1, IMAGES.transpose(0, 2, 1))


def test_names_in_a_matlab_file_are_classes(tmp_path: Path) -> None:
    savemat(tmp_path / "x.mat", {"images": IMAGES, "labels": np.array(["cat", "emu", "ox", "ant"])[LABELS]})
    assert read(tmp_path / "x.mat") == expected(np.array(["cat", "emu", "ox", "ant"])[LABELS])


def cells() -> bytes:
    file = io.BytesIO()
    savemat(file, {"X": IMAGES, "y": np.array(["cat", "emu"], object)})
    return file.getvalue()


def matlab(*parts: bytes) -> bytes:
    """Write a .mat file by hand."""
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    packed = [zlib.compress(part) for part in parts]
    return header + b"".join(struct.pack("<II", 15, len(part)) + part for part in packed)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.mat", matlab(struct.pack("<II", 14, 10**7) + bytes(10**7)), "too much for a file of its size"),
        (
            "x.mat",
            matlab(struct.pack("<II", 14, 16) + bytes(9)),
            "cannot be read as .npz, .npy, .mat, IDX or UTF-8 CSV",
        ),
        ("x.mat", matlab()[:-4] + b"\x00\x01IM" + struct.pack("<II", 14, 2**32 - 1), "too much for a file of its size"),
        ("x.mat", matlab(), "holds no arrays"),
        ("x.mat", cells(), "y holds object; whole numbers from 0, or names, are needed; save names as texts"),
        ("x.mat", b"MATLAB 7.3 MAT-file, HDF5" + bytes(200), "save it with save('FILE.mat', '-v7')"),
        ("x.npy", b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535, "cannot be read as .npz, .npy, .mat, IDX or UTF-8 CSV"),
        ("x.npy", b"\x93NUMPY\x09\x00\x01\x00 ", "cannot be read as .npz, .npy, .mat, IDX or UTF-8 CSV"),
    ],
)
def test_hostile_file_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lab.data.data_files.SMALL_FILE", 2000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.npz", "labels.npy"])
def test_pickled_objects_are_never_loaded(tmp_path: Path, name: str) -> None:
    objects = np.array([{}] * 20)
    if name == "x.npz":
        np.savez(tmp_path / name, images=IMAGES, labels=objects)
    else:
        np.save(tmp_path / "images.npy", IMAGES)
        np.save(tmp_path / name, objects)
    with pytest.raises(UsageError, match="labels holds object; whole numbers from 0, or names, are needed"):
        read(tmp_path, images="images", labels="labels")


def test_settings_of_arrays_are_validated_and_do_not_change_the_id_of_a_job(command: Command) -> None:
    outcome = command("data=arrays", "data.source.path=x", "data.source.axes=NNH", "--check", data=False)
    assert_refused(outcome, "data.source.axes=NNH: input should be 'NHW', 'NWH'")
    outcome = command("data=arrays", "data.source.path=x", "data.source.classes=[1,2,[3]]", "--check", data=False)
    assert_refused(outcome, "data.source.classes=[1, 2, [3]]: input should be a valid string")
    cfg = compose("data=arrays", "data.source.path=x", "data.source.classes=[1,2]")
    assert not validate(cfg), "numbers are names"
    cfg = compose("data=arrays", "data.source.path=x")
    former = OmegaConf.create(OmegaConf.to_container(cfg))
    with open_dict(former):
        for name in ("images", "labels", "axes"):
            del former.data.source[name]
    assert job_id(cfg) == job_id(former) != job_id(compose("data=arrays", "data.source.path=x", "data.source.axes=NHW"))
