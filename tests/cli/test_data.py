"""`data` describes any data set, finds copies and doubted labels, and names their files or rows."""

import base64
import csv
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from lab import Command, Tiny, assert_refused, tiny_arrays
from PIL import Image

from mnist_lab.data import ArrayFile, ImageFolder, MNISTDataModule
from mnist_lab.data.image_source import ImageSource
from mnist_lab.data.images import open_image
from mnist_lab.runs.run import Run


def pictures(page: str, section: str) -> list[np.ndarray]:
    """Return the images in a section of a page, in its order."""
    part = page.split(f'aria-labelledby="{section}"')[1].split("</section>")[0]
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"', part)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))) for content in found]


def write_bars(folder: Path, split: str, count: int) -> None:
    """Write a set of an image folder: bright bars in noise, whose place shows one of three classes."""
    for number, image in enumerate(np.random.default_rng(count).integers(0, 90, (count, 28, 28), np.uint8)):
        label = number % 3
        image[8 * label + 3 : 8 * label + 8] = 255
        path = folder / split / f"bar {label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    for split, count in (("train", 60), ("valid", 16), ("test", 23)):
        write_bars(tmp_path / "bars", split, count)
    return tmp_path / "bars"


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def test_counts_values_and_examples_are_those_of_the_training_images(tiny: Tiny, lab: Command) -> None:
    outcome = lab("data", *tiny.arguments("model=mlp", "data.mean=0.25"))
    assert outcome.status == 0 and outcome.err == "", outcome
    images, labels, _, test_labels = tiny_arrays()
    rows = [line.split() for line in outcome.out.splitlines()[2:14]]
    assert (rows[0], rows[-1]) == (["class", "training", "validation", "test"], ["all", "190", "40", "57"])
    for name, training, validation, test in rows[1:-1]:
        assert int(training) + int(validation) == (labels == int(name)).sum()
        assert int(test) == (test_labels == int(name)).sum()
    known = {(255 - image).tobytes(): label for image, label in zip(images, labels, strict=True)}
    shown = [known[image.tobytes()] for image in pictures(Path("data.html").read_text(), "classes")]
    assert shown == sorted(shown) and len(shown) == sum(min(24, int(row[1])) for row in rows[1:-1])


@pytest.mark.parametrize("kind", ["idx", "csv", "npz", "files", "files of sets"])
def test_name_of_each_image_leads_to_it(tiny: Tiny, bars: Path, tmp_path: Path, kind: str) -> None:
    originals: dict[str, np.ndarray] = dict.fromkeys(("training", "validation", "test"), noise(30))
    path, source = tmp_path / "own", None
    if kind == "csv":
        with path.with_suffix(".csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["label", *(f"pixel{i}" for i in range(784))])
            rows.writerows([i % 3, *image.flat] for i, image in enumerate(noise(30)))
        source = ArrayFile(path=f"{path}.csv")
    elif kind == "npz":
        originals = {split: noise(30, seed) for seed, split in enumerate(originals)}
        arrays = {f"{split}_images": images for split, images in originals.items()}
        np.savez(path, **arrays, **{f"{split}_labels": np.arange(30) % 3 for split in originals})
        source = ArrayFile(path=f"{path}.npz")
    elif kind == "idx":
        train, _, test, _ = tiny_arrays()
        originals = {"training": train, "validation": train, "test": test}
    folder = bars if kind == "files of sets" else bars / "train"
    chosen: ImageSource = tiny.source() if kind == "idx" else source or ImageFolder(path=str(folder))
    data = MNISTDataModule(source=chosen, root=str(tiny.root), val_size=0.2)
    names = data.image_names()
    for split, (images, _) in data.raw_sets().items():
        assert len(images) == len(names[split]) > 3
        for image, name in zip(images, names[split], strict=True):
            assert np.array_equal(image, open_image(folder / name) if "files" in kind else originals[split][name])


def test_copies_within_and_between_sets_and_with_other_labels_are_named(lab: Command) -> None:
    train, test = noise(40), noise(20, 1)
    train[[7, 8]], test[[3, 4]], test[5] = train[6], train[[10, 11]], 99
    labels = np.arange(40) % 2
    np.savez(
        "own.npz", x_train=train, y_train=labels, x_test=test, y_test=np.array([0, 0, 0, *labels[10:12], *[1] * 15])
    )
    outcome = lab("data", "data=arrays", "data.source.path=own.npz", "data.val_size=0")
    assert outcome.status == 0
    assert "2 of 40 training images repeat another one of this set\n" in outcome.out
    assert outcome.err.splitlines() == [
        "mnist_lab: warning: 2 of 20 test images are in the training set, too: 3, 4",
        "mnist_lab: warning: 1 of 20 test images are blank: all their pixels are equal",
        "mnist_lab: warning: 3 images have copies with another label: training 6, training 7, training 8",
    ]
    page = Path("data.html").read_text()
    assert all(warning.partition("warning: ")[2] in page for warning in outcome.err.splitlines())


def test_wrong_labels_come_first_with_file_probabilities_and_picture(lab: Command, bars: Path) -> None:
    moved = {("test", "bar 0", "bar 2"): "3.png", ("valid", "bar 1", "bar 0"): "4.png"}
    for (split, is_of, wrong), name in moved.items():
        (bars / split / is_of / name).rename(bars / split / wrong / name)
    settings = ("model=mlp", "trainer.max_epochs=10", "data.batch_size=8", "trainer.accelerator=cpu", "figures=false")
    own = ("data=image_folder", f"data.source.path={bars}", "hydra.run.dir=run")
    assert lab(*own, *settings).status == 0
    outcome = lab("data", "run")
    assert outcome.status == 0, outcome.err
    assert "labels that the network doubts: 2\n" in outcome.out
    rows = [re.split("  +", line) for line in outcome.out.splitlines()[-3:-1]]
    assert {tuple(row[:3] + row[4:5]) for row in rows} == {
        ("test", "test/bar 2/3.png", "bar 2", "bar 0"),
        ("validation", "valid/bar 0/4.png", "bar 0", "bar 1"),
    }
    for *_, label_share, _, share in rows:
        assert float(label_share.strip("<%> ")) < 50 < float(share.strip("<%> "))
    assert outcome.out.endswith("written: run/data.html\n")
    page = Path("run/data.html").read_text()
    for row, picture in zip(rows, pictures(page, "doubts"), strict=True):
        assert f"{row[0]} {row[1]}" in page and f"predicted {row[4]}: " in page
        assert np.array_equal(picture, Image.open(bars / row[1]))


@pytest.mark.parametrize(
    ("classes", "labels", "settings", "warned"),
    [
        (["0", "1", "2"], np.arange(60) % 2 * 2, [], "no images of 1; data.source.classes=[0,2] leaves out"),
        (["a", "b", "nothing"], np.arange(60) % 2, [], "the training set has no images of nothing"),
        (["a", "b"], np.arange(60) % 2, ["data.val_size=0"], ""),
        (
            [f"{i}. a class with a rather long name, of so many" for i in range(62)],
            np.arange(310) % 62,
            [],
            "the validation set has no images of ",
        ),
    ],
)
def test_page_has_every_class_whatever_the_data_are(
    lab: Command, classes: list[str], labels: np.ndarray, settings: list[str], warned: str
) -> None:
    np.savez("own.npz", images=noise(len(labels)), labels=labels, classes=classes)
    outcome = lab("data", "data=arrays", "data.source.path=own.npz", *settings, "--out", "new/x.html")
    assert outcome.status == 0 and warned in outcome.err and bool(warned) == bool(outcome.err), outcome
    page = Path("new/x.html").read_text()
    for name in classes:
        assert f"<h3>{name}</h3>" in page
    assert len(outcome.out.splitlines()) < 40


def test_run_without_its_data_is_refused_in_one_line_and_reads_them_elsewhere(lab: Command, bars: Path) -> None:
    own = ("data=image_folder", f"data.source.path={bars}", "hydra.run.dir=run", "trainer.max_epochs=1")
    assert lab(*own, "model=mlp", "figures=false").status == 0
    before = sorted(Path("run").iterdir())
    shutil.move(bars, bars.parent / "moved")
    assert_refused(
        lab("data", "run"),
        f"data.source.path={bars}: folder not found",
        "make a link to them here",
    )
    assert sorted(Path("run").iterdir()) == before
    assert lab("data", "run", f"data.source.path={bars.parent / 'moved'}").status == 0
    assert sorted(Path("run").iterdir()) == sorted([*before, Run(Path("run")).data_page_path])
    bars.symlink_to(bars.parent / "moved")
    assert lab("data", "run").status == 0
