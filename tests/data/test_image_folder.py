"""A folder of images becomes a data set: which images, classes and sets it has, and what is refused."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mnist_lab.data import ImageFolder, MNISTDataModule
from mnist_lab.data.images import fit_image
from mnist_lab.data.own_images import OwnImages
from mnist_lab.errors import UsageError

CLASSES = {"circle": 10, "cross": 8, "square": 9}  # numbers of images


def draw_shape(name: str, side: int, height: int | None = None, mode: str = "RGB") -> Image.Image:
    """Draw a dark shape on light paper."""
    image = Image.new("RGB", (side, height or side), (250, 248, 240))
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = side // 6, image.height // 6, side - side // 6, image.height - image.height // 6
    if name == "cross":
        draw.line((left, top, right, bottom), fill="navy", width=3)
        draw.line((left, bottom, right, top), fill="navy", width=3)
    else:
        {"circle": draw.ellipse, "square": draw.rectangle}[name]((left, top, right, bottom), outline="navy", width=3)
    return image.convert(mode)


def write_shapes(folder: Path, counts: dict[str, int] = CLASSES) -> Path:
    """Write a folder of shapes in several sizes and file formats, with a folder for each class."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            suffix, mode = [("png", "RGB"), ("jpg", "L"), ("webp", "RGBA")][number % 3]
            draw_shape(name, 30 + number, 40, mode).save(folder / name / f"{number}.{suffix}")
    return folder


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "test")  # The folder of the data may have the name of a set.


def test_each_folder_is_a_class_in_the_order_of_its_name(shapes: Path) -> None:
    source = ImageFolder(path=str(shapes))
    assert source.read_settings()["classes"] == list(CLASSES)
    arrays = source.load()
    assert arrays.train_images.shape[1:] == (28, 28) and arrays.train_images.dtype == np.uint8
    total = np.bincount(np.concatenate([arrays.train_labels, arrays.test_labels]))
    assert total.tolist() == list(CLASSES.values())
    for name, number in zip(CLASSES, ("10", "9", "11"), strict=True):
        (shapes / name).rename(shapes / number)
    assert ImageFolder(path=str(shapes)).read_settings()["classes"] == ["9", "10", "11"]


def write_noise(folder: Path, count: int, seed: int = 0) -> None:
    """Write so many different images."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["training", "testing"], (10, 0, 4)),
        (["Train", "VALID", "test"], (10, 4, 4)),
        (["train-images", "dev_set"], (8, 4, 2)),
    ],
)
def test_sets_are_found_by_name_and_used(tmp_path: Path, names: list[str], counts: tuple[int, int, int]) -> None:
    for seed, name in enumerate(names):
        for label, class_name in enumerate(("cat", "dog")):
            write_noise(tmp_path / name / class_name, 2 if seed else 5, 10 * seed + label)
    source = ImageFolder(path=str(tmp_path))
    assert source.read_settings()["classes"] == ["cat", "dog"]
    data = MNISTDataModule(source=source, val_size=0)
    assert tuple(len(labels) for _, labels in data.raw_sets().values()) == (counts[0], 0, counts[2])
    data = MNISTDataModule(source=source, val_size=0.3)
    if counts[1]:
        data.setup()
        assert tuple(len(labels) for _, labels in data.raw_sets().values()) == counts
        assert sum(len(labels) for _, labels in data.val_dataloader()) == counts[1]
        assert any(note.startswith("the data have a validation set of their own") for note in source.notes())


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/cat", "train/dog", "Training/cat", "test/cat"], "has the folders"),
        (["train/cat", "train/dog", "val/cat", "dev/dog"], "needed are one named train and at most one of val"),
        (["train/cat", "train/dog", "more/cat"], "train mixes sets and classes"),
        (["cat/train", "cat/test", "dog/train"], "cat mixes sets and classes"),
        (["train", "test"], "train contains no folders of images"),
        (["train/cat", "train/dog", "test/fox"], "class fox of the test set is not one of cat, dog"),
    ],
)
def test_sets_that_cannot_be_told_from_classes_are_refused(tmp_path: Path, folders: list[str], message: str) -> None:
    for name in folders:
        write_noise(tmp_path / name, 3)
    with pytest.raises(UsageError, match=message):
        ImageFolder(path=str(tmp_path)).load()


@pytest.mark.parametrize("name", [".thumbnails", "@eaDir", "a/$RECYCLE.BIN/b"])
def test_hidden_and_tool_folders_are_left_out_at_every_depth_and_named(tmp_path: Path, name: str) -> None:
    for folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
        write_noise(tmp_path / folder, 5)
    before = ImageFolder(path=str(tmp_path)).read_settings()
    for folder in ("train/cat", "test/dog", *[".", "train"] * ("/" not in name)):
        write_noise(tmp_path / folder / name, 2)
    (tmp_path / "test" / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "test" / "cat" / "notes.txt").write_text("words")
    assert ImageFolder(path=str(tmp_path)).read_settings() == before
    OwnImages._last.clear()
    _, note = ImageFolder(path=str(tmp_path)).notes()
    assert note.startswith("left out because hidden, ") and "test/cat/.hidden.png" in note


def test_links_lead_to_classes_but_not_in_circles_and_names_may_have_any_bytes(tmp_path: Path) -> None:
    write_noise(tmp_path / "far", 4)
    write_noise(tmp_path / "data" / "cat", 4)
    (tmp_path / "data" / "cat" / "0.png").rename(tmp_path / "data" / "cat" / "\udcff\n.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "far")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "cat" / "inside").symlink_to(tmp_path / "far")
    (tmp_path / "data" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
    source = ImageFolder(path=str(tmp_path / "data"))
    assert source.read_settings()["classes"] == ["cat", "dog"]
    assert len(source._files()) == 8
    assert source.notes()[1].endswith(": 3 (cat/gone.png, cat/inside, loop)")


def test_images_in_no_folder_of_a_set_or_of_a_class_are_named(tmp_path: Path) -> None:
    for folder in ("train/cat", "train/dog", "test/cat", "test/dog", "more/cat"):
        write_noise(tmp_path / folder, 3)
    shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "test/stray.png")
    *_, note = ImageFolder(path=str(tmp_path)).notes()
    assert note.endswith(": 4 (more/cat/0.png, more/cat/1.png, more/cat/2.png, test/stray.png)")


@pytest.mark.parametrize("name", ["a${b}", "\udcff"])
def test_names_that_a_configuration_or_a_terminal_would_take_otherwise_are_refused(tmp_path: Path, name: str) -> None:
    for class_name in ("cat", name):
        write_noise(tmp_path / class_name, 3)
    with pytest.raises(UsageError, match="rename it"):
        ImageFolder(path=str(tmp_path)).load()


@pytest.mark.parametrize(("top", "split"), [(1, "train"), (16, "test")])
def test_images_that_are_almost_black_are_refused(tmp_path: Path, top: int, split: str) -> None:
    for folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
        write_noise(tmp_path / folder, 5)
    for path in (tmp_path / split).rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) * (top / 255)).astype(np.uint8)).save(path)
    with pytest.raises(UsageError, match="images are almost blank, most with shades from 0 to"):
        ImageFolder(path=str(tmp_path)).load()


def test_rectangle_keeps_its_aspect_ratio_on_paper_of_its_own_colour() -> None:
    wide = Image.new("L", (56, 28), 200)
    ImageDraw.Draw(wide).ellipse((14, 0, 41, 27), fill=10)  # a circle of half the width
    pixels = fit_image(wide)
    rows, columns = (pixels < 100).nonzero()
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1 and 12 <= np.ptp(rows) + 1 <= 15
    assert pixels[0].tolist() == [200] * 28


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "LA", "CMYK"])
def test_images_of_any_mode_are_dark_shapes_on_light_paper(mode: str) -> None:
    shape = draw_shape("square", 56, mode="L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(shape, np.uint16) * 257)
    elif mode == "LA":
        image = Image.merge("LA", (Image.new("L", shape.size, 0), shape.point(lambda value: 255 - value)))
    else:
        image = shape.convert(mode)
    assert np.abs(fit_image(image).astype(int) - fit_image(shape)).mean() < 16


@pytest.mark.parametrize(("background", "inverted"), [(0, True), (128, False), (None, False)])
def test_light_image_is_inverted_where_edges_should_be_dark(background: int | None, inverted: bool) -> None:
    shape = draw_shape("circle", 28)
    expected = 255 - fit_image(shape).astype(int) if inverted else fit_image(shape)
    assert np.abs(fit_image(shape, background) - expected).max() <= 1


def test_recorded_checksum_is_that_of_sha256sum(shapes: Path) -> None:
    if not shutil.which("sha256sum"):
        pytest.skip("this machine has no sha256sum")
    command = "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    process = subprocess.run(["sh", "-c", command], cwd=shapes, capture_output=True, text=True, check=True)
    assert ImageFolder(path=str(shapes)).read_settings()["sha256"] == process.stdout.split()[0]


def test_other_images_than_those_recorded_are_refused(shapes: Path) -> None:
    recorded = ImageFolder(path=str(shapes), sha256=ImageFolder(path=str(shapes)).read_settings()["sha256"])
    recorded.load()
    draw_shape("circle", 99).save(shapes / "circle" / "0.png")
    with pytest.raises(UsageError, match="have changed since they were recorded"):
        recorded.load()
    assert len(ImageFolder(path=str(shapes)).load().train_labels) == 21, "read anew without a recorded checksum"


def _become_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("words")


def _leave_one_image(folder: Path) -> None:
    for path in sorted((folder / "cross").iterdir())[1:]:
        path.unlink()


def _damage(folder: Path) -> None:
    (folder / "cross" / "3.png").write_bytes((folder / "cross" / "3.png").read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_become_a_file, "not a folder"),
        (lambda folder: [shutil.rmtree(folder / name) for name in CLASSES], "a folder for each class is needed"),
        (lambda folder: (folder / "empty").mkdir(), "empty contains no images"),
        (_leave_one_image, "class cross has one image; two are needed"),
        (_damage, r"cross/3\.png: corrupt or incomplete .*; remove or replace it"),
        (lambda folder: (folder / "cross").rename(folder / "cr\tss"), "holds control characters or"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(shapes: Path, spoil: object, message: str) -> None:
    spoil(shapes)  # type: ignore[operator]
    with pytest.raises(UsageError, match=message) as caught:
        ImageFolder(path=str(shapes)).load()
    assert str(caught.value).startswith(f"data.source.path={shapes}: ") and "\n" not in str(caught.value)


def test_file_that_may_not_be_read_is_named(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UsageError, match=r"circle/0\.png: cannot be read \(Permission denied\)$"):
        ImageFolder(path=str(shapes)).load()
