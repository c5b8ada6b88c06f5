"""MNIST's relatives, KMNIST, EMNIST and QMNIST, and IDX files of any names; the tests make the files by hand."""

import gzip
import hashlib
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torchvision
import yaml
from lab import Command, Mirror, Tiny, assert_refused, change_settings, idx, same, slow, thorough, weights
from PIL import Image

from mnist_lab.config.compose import compose
from mnist_lab.data import IDXFolder, Source
from mnist_lab.data import mnist_files as network
from mnist_lab.data.mnist_files import FILES, Arrays, find_torchvision_mirrors
from mnist_lab.errors import DataUnavailable, UsageError
from mnist_lab.runs.run import Run
from mnist_lab.training.build import instantiate_node

sets = torchvision.datasets
KANA = sets.KMNIST.classes
SPLITS = {split: [*names[names[0] == "N/A" :]] for split, names in sets.EMNIST.classes_split_dict.items()}
QMNIST = ["qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"]
QMNIST += [name.replace("train", "test") for name in QMNIST]


def make_arrays(classes: int, train: int = 186, test: int = 124) -> Arrays:
    """Make images, in which the place of a bright column shows the class, and labels from 0."""
    arrays = []
    for count in (train, test):
        labels = np.arange(count) % classes
        images = np.random.default_rng(count).integers(0, 90, (count, 28, 28), np.uint8)
        images[np.arange(count), :, labels % 28] = 255
        arrays += [images, labels]
    return Arrays(*arrays)


def pack_emnist(arrays: Arrays, split: str) -> bytes:
    """Pack transposed images, and labels, those of letters from 1, in one archive beside other files."""
    packed = io.BytesIO()
    parts = ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("gzip/emnist-other-train-images-idx3-ubyte.gz", b"not needed")
        for part, array in zip(parts, arrays, strict=True):
            stored = array.transpose(0, 2, 1) if array.ndim == 3 else array + (split == "letters")
            archive.writestr(f"gzip/emnist-{split}-{part}-ubyte.gz", gzip.compress(idx(stored)))
    return packed.getvalue()


def pack_qmnist(labels: np.ndarray) -> bytes:
    """Write labels as the first of eight columns of 32 bits."""
    return idx(np.stack([labels, *np.arange(7 * len(labels)).reshape(7, -1)], axis=1), 12)


class Relative(NamedTuple):
    """A tiny data set of a kind: its content, the archives that a mirror has, and how it is used."""

    arrays: Arrays
    archives: dict[str, bytes]
    overrides: list[str]
    source: Source
    root: Path
    folder: Path


Make = Callable[[str], Relative]


@pytest.fixture
def make(tiny: Tiny, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a data set of a kind: kmnist, qmnist or a split of EMNIST; data=own is the lab's, with other sums."""
    monkeypatch.setattr(network, "PAUSE", 0.01)

    def made(kind: str) -> Relative:
        arrays = make_arrays(len(SPLITS.get(kind, KANA)))
        choice, root, sha256 = "emnist" if kind in SPLITS else kind, tiny.folder / "relatives", {}
        if kind in SPLITS:
            archives = {"gzip.zip": pack_emnist(arrays, kind)}
        elif kind == "kmnist":
            archives = {f"{name}.gz": gzip.compress(idx(array)) for name, array in zip(FILES, arrays, strict=True)}
        else:
            contents = [idx(array) if array.ndim == 3 else pack_qmnist(array) for array in arrays]
            archives = {f"{name}.gz": gzip.compress(content) for name, content in zip(QMNIST, contents, strict=True)}
            sha256 = {QMNIST[place]: hashlib.sha256(contents[place]).hexdigest() for place in (1, 3)}
        md5 = {name: hashlib.md5(archives[name]).hexdigest() for name in archives if "idx2" not in name}
        changes = {"mirrors": [mirror.address], "md5": md5, "sha256": sha256}
        data = {"defaults": [choice, "_self_"], "source": changes, "root": str(root), "val_size": 62, "batch_size": 31}
        (tiny.conf / "data" / "own.yaml").write_text(yaml.safe_dump(data))
        mirror.files |= archives
        overrides = ["data=own", *([f"data.source.split={kind}"] if kind in SPLITS else [])]
        source = instantiate_node(compose(*overrides, config_dir=str(tiny.conf)).data.source, "data.source")
        return Relative(arrays, archives, overrides, source, root, root / choice.upper() / "raw")

    return made


def equal(loaded: Arrays, expected: Arrays) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(loaded, expected, strict=True))


@pytest.mark.parametrize(
    "kind", ["kmnist", "qmnist", "letters", "byclass", *thorough("digits", "balanced", "bymerge", "mnist")]
)
def test_relative_is_fetched_once_and_has_its_images_labels_and_classes(make: Make, mirror: Mirror, kind: str) -> None:
    relative = make(kind)
    kept = [name.removesuffix(".gz") if "idx2" in name else name for name in relative.archives]
    with pytest.raises(UsageError, match=f"^data.download=false, .*put {', '.join(kept)} into {relative.folder}"):
        relative.source.load(relative.root, download=False)
    for _ in range(2):
        assert equal(relative.source.load(relative.root), relative.arrays)
        assert sorted(mirror.requests) == sorted(f"/{name}" for name in relative.archives)
    assert {path.name for path in relative.folder.iterdir()} == {*kept, ".lock"}
    names = {"kmnist": KANA, "qmnist": sets.MNIST.classes}.get(kind, SPLITS.get(kind))
    assert [name.split(" - ")[0] for name in names] == list(relative.source.classes)


@pytest.mark.parametrize("kind", ["kmnist", "letters"])
def test_archive_that_torchvision_left_is_used_and_one_with_another_md5_is_not(
    make: Make, mirror: Mirror, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    relative = make(kind)
    relative.folder.mkdir(parents=True)
    for name, content in relative.archives.items():
        (relative.folder / name).write_bytes(content)
    assert equal(relative.source.load(relative.root, download=False), relative.arrays) and mirror.requests == []
    (relative.folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert equal(relative.source.load(relative.root), relative.arrays)
    assert mirror.requests == [f"/{name}"], "fetched again"
    assert capsys.readouterr().err.count(f"warning: {relative.folder / name} is damaged") == 1
    (relative.folder / name).unlink()
    mirror.files[name] += b"\0"
    with pytest.raises(DataUnavailable, match=f"{name} has a wrong MD5"):
        relative.source.load(relative.root)
    assert not (relative.folder / name).exists()


def test_sums_and_addresses_are_those_that_torchvision_lists() -> None:
    resources = [*sets.QMNIST.resources["train"], *sets.QMNIST.resources["test"]]
    images = {url.rpartition("/")[2]: md5 for url, md5 in resources if "images" in url}
    sums = {"kmnist": dict(sets.KMNIST.resources), "emnist": {"gzip.zip": sets.EMNIST.md5}, "qmnist": images}
    assert {choice: dict(compose(f"data={choice}").data.source.md5) for choice in sums} == sums
    for listed in (sets.MNIST, sets.FashionMNIST, sets.KMNIST):
        assert find_torchvision_mirrors(listed.__name__) == listed.mirrors != []
    assert find_torchvision_mirrors("EMNIST") == [sets.EMNIST.url.removesuffix("gzip.zip")]
    assert find_torchvision_mirrors("QMNIST") == [resources[0][0].removesuffix(f"{QMNIST[0]}.gz")]
    assert find_torchvision_mirrors("CIFAR10") == [], "no relative"


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("emnist-letters-train-images-idx3-ubyte.gz", content)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK", "not a zip file"),
        (b"", "not a zip file"),
        (zipped(gzip.compress(bytes(30_000_000))), "has more than 100,000 bytes"),
        (zipped(bytes(30_000_000)), "Not a gzipped file"),
    ],
    ids=["short", "empty", "gzip bomb", "zip bomb"],
)
def test_damaged_or_hostile_zip_is_refused_before_it_grows(
    make: Make, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    monkeypatch.setattr(network, "MAX_BYTES", 100_000)
    monkeypatch.setattr("test_family.pack_emnist", lambda *arguments: content)
    relative = make("letters")
    relative.folder.mkdir(parents=True)
    (relative.folder / "gzip.zip").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UsageError, match=f"^{relative.folder}: gzip.zip is damaged .*{reason}"):
        relative.source.load(relative.root, download=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def write_folder(arrays: Arrays, names: list[str], code: int = 8) -> None:
    """Write four IDX files into the folder mine; a file whose name ends in .gz is compressed."""
    Path("mine").mkdir(exist_ok=True)
    for name, array in zip(names, arrays, strict=True):
        content = idx(array, 8 if array.ndim == 3 else code)
        (Path("mine") / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


BY_SIZE = ["a", "b.gz", "c.gz", "d"]
NAMES = [list(FILES), BY_SIZE, ["x_train", "y_train.gz", "x_test.idx", "y_test"], ["I-Train", "L-Train", "I.gz", "L"]]
NAMES += [["images", "labels.gz", "test", "labels.t10k"]]


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
def test_idx_files_of_any_names_are_told_apart(tiny: Tiny, names: list[str]) -> None:
    first, code = (1, 11) if names == BY_SIZE else (0, 8)  # Labels of two bytes, from 1.
    images, labels, *test = arrays = make_arrays(5, 40, 20 if names == BY_SIZE else 60)
    write_folder(Arrays(images, labels + first, test[0], test[1] + first), names, code)
    (Path("mine") / "README.md").write_text("words")
    (Path("mine") / "broken.gz").write_bytes(b"\x1f\x8b")
    (Path("mine") / f"{names[0]}.gz").write_bytes(gzip.compress(idx(images)))
    assert equal(IDXFolder(path="mine").load(), arrays)
    assert IDXFolder(path="mine").read_settings()["classes"] == [str(first + place) for place in range(5)]
    assert np.array_equal(IDXFolder(path="mine", axes="NWH").load().test_images, arrays[2].transpose(0, 2, 1))
    assert IDXFolder(path="mine", classes=[*"abcde"]).read_settings()["classes"] == [*"abcde"]


def test_idx_folder_that_cannot_be_read_is_refused_with_what_was_found(lab: Command, tiny: Tiny) -> None:
    def assert_found(*texts: str) -> None:
        with pytest.raises(UsageError) as caught:
            IDXFolder(path="mine").load()
        assert str(caught.value).startswith(f"data.source.path=mine: {texts[0]}")
        assert all(text in str(caught.value) for text in texts), caught.value

    assert_found("folder not found")
    write_folder(make_arrays(3, 30, 30), BY_SIZE)
    assert_found("found the IDX files a (30x28x28), c.gz", "needed are four")
    write_folder(make_arrays(3, 30, 20), BY_SIZE)
    (Path("mine") / "d").write_bytes(idx(np.zeros((20, 8), int)))
    assert_found("found the IDX files a (30x28x28), c.gz", "), b.gz (30); needed")
    (Path("mine") / "d").write_bytes(idx(np.zeros(19, int)))
    assert_found("c.gz has shape (20, 28, 28)", "an image for each of 19 labels")
    (Path("mine") / "c.gz").write_bytes(gzip.compress(idx(np.zeros((20, 28, 28), int)))[:-20])
    assert_found("c.gz: cannot be read as", "(Compressed file ended")
    (Path("mine") / "c.gz").unlink()
    assert_found("found the IDX files a (30x28x28), b.gz (30), d (19); needed")
    assert_refused(lab("data=idx", "data.source.path=mine/a"), "data.source.path=mine/a: not a folder")
    assert_refused(lab("data=emnist", "data.source.split=upper"), "data.source.split=upper: input should be 'letters'")


@pytest.mark.parametrize("kind", [*slow("letters"), *thorough("qmnist")])
def test_every_command_works_and_names_the_classes(command: Command, tiny: Tiny, make: Make, kind: str) -> None:
    classes = SPLITS.get(kind, [*"0123456789"])
    settings = [*make(kind).overrides, "model=mlp", "optimizer.lr=0.1", "trainer.max_epochs=3"]
    assert command(*settings, "--check").status == 0
    assert command(*settings, "hydra.run.dir=whole").status == 0
    assert command(*settings, "trainer.max_epochs=1", "hydra.run.dir=parts").status == 0
    resume = ["resume=parts", "trainer.max_epochs=3", "--config-dir", str(tiny.conf)]  # It has a mirror of its own.
    assert command(*resume, data=False).status == 0
    whole, parts = Run(Path("whole")), Run(Path("parts"))
    assert same(weights(whole.checkpoint("last")), weights(parts.checkpoint("last")))
    tested = command("test", "whole", data=False)
    assert tested.status == 0 and f"{whole.info['metrics']['test/acc']:.2%}" in tested.out
    assert command("report", "whole", data=False).status == 0
    page = Path("whole/report.html").read_text()
    assert all(f'<th scope="row">{name}</th>' in page for name in classes)
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 12:16] = 255
    Image.fromarray(image).save("one.png")
    (row,) = json.loads(command("predict", "whole", "one.png", "--json", data=False).out)
    assert str(row["digit" if kind == "qmnist" else "class"]) in classes
    assert command("export", "whole", "--format", "state_dict", data=False).status == 0


@pytest.mark.slow
def test_sweep_over_data_sets_gives_each_job_its_classes(command: Command, make: Make) -> None:
    sweep = ["-m", f"{make('letters').overrides[0]},tiny", "model=mlp", "sweep=s", "trainer.max_epochs=1"]
    for _ in range(2):
        assert command(*sweep).status == 0
        assert sorted(len(run.config.data.source.get("classes", KANA)) for run in Run.records(Path("runs"))) == [10, 26]


@pytest.mark.slow
def test_stranger_chooses_neither_address_nor_path_of_a_relative(command: Command, make: Make, mirror: Mirror) -> None:
    assert command(*make("letters").overrides, "model=mlp", "trainer.max_epochs=1", "hydra.run.dir=r").status == 0
    run, before = Run(Path("r")), len(mirror.requests)
    assert run.config.data.source.mirrors is None, "torchvision's"
    recorded = run.config_path.read_text()
    for key, value in {"files": ["../a", *"bcd"], "md5": {"../../x.zip": "0"}, "split": "${oc.env:HOME}"}.items():
        run.config_path.write_text(recorded)
        change_settings(run, {f"data.source.{key}": value})
        assert_refused(command("test", "r", data=False), "", key)
    assert len(mirror.requests) == before
