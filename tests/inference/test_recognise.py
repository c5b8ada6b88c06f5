"""`predict` answers for every image with a digit, reports the others, and writes Kaggle's submission file."""

import csv
import gzip
import io
import json
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from lab import Command, Outcome, Tiny, assert_refused, change_settings, tiny_arrays
from PIL import Image, ImageChops
from scipy.io import savemat
from test_digits import LINES, drawn, row_of_digits

from benchmarks.digits import found, hits_and_notes
from mnist_lab.cli.predict import list_images
from mnist_lab.config.compose import compose
from mnist_lab.data.images import UnreadableImage
from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.inference.digits import NetworkInput, NoDigit, find_digit, find_number
from mnist_lab.inference.recognise import Answer, ImageClassifier, predict
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train


def tiny_run(tiny: Tiny, name: str) -> Run:
    """Train a network on the tiny data, and remove the data."""
    run = train(tiny.compose(f"model={name}", "trainer.max_epochs=1"))
    shutil.rmtree(tiny.root)
    return run


@pytest.fixture(scope="module")
def trained(module_tiny: Tiny) -> Run:
    return tiny_run(module_tiny, "lenet")


@pytest.fixture
def photos(tiny: Tiny) -> Path:
    """Make a folder of images and other files."""
    folder = Path("photos")
    folder.mkdir()
    for name, digit in (("10.png", 4), ("2.JPG", 2), ("1.tiff", 7)):
        drawn(digit).save(folder / name)
    drawn(7).save(folder / ".hidden.png")
    (folder / "readme.txt").write_text("words")
    (folder / "deeper.png").mkdir()
    return folder


def table(outcome: Outcome) -> list[list[str]]:
    return [line.split() for line in outcome.out.splitlines()]


def test_answers_are_the_networks_probabilities_of_the_digit_found(trained: Run, photos: Path) -> None:
    paths = [photos / "2.JPG", str(photos / "1.tiff")]
    answers = predict(trained, paths)
    network = TrainedRun(trained)
    for path, answer in zip(paths, answers, strict=True):
        with Image.open(path) as picture:
            pixels = find_digit(picture).pixels
        (digit,) = answer.found
        assert np.array_equal(digit.pixels, pixels)
        expected = network.model.probabilities(network.data.normalise(pixels[None]))[0]
        assert answer.probabilities[0].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        (first, second), (best, next_best) = (part.tolist() for part in reversed(expected.topk(2)))
        assert (answer.text, answer.probability) == (str(first), pytest.approx(best, abs=1e-5))
        assert answer.runner_up == (str(second), pytest.approx(next_best, abs=1e-5))


def test_json_and_csv_have_all_ten_probabilities(command: Command, trained: Run, photos: Path) -> None:
    arguments = ["predict", str(trained), str(photos)]
    assert list_images([str(photos)]) == [photos / name for name in ("1.tiff", "2.JPG", "10.png", "deeper.png")]
    rows = json.loads(command(*arguments, "--json", data=False).out)
    for row, answer in zip(rows, predict(trained, list_images([str(photos)])[:3]), strict=True):
        assert row["file"] == str(answer.path)
        assert (str(row["digit"]), row["probability"]) == (answer.text, answer.probability)
        assert (row["number"], row["place"]) == (answer.text, 1)
        assert [row[f"p{digit}"] for digit in range(10)] == answer.probabilities[0].tolist()
    outcome = command(*arguments, "--csv", data=False)
    lines = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [{name: str(value) for name, value in row.items()} for row in rows] == lines
    assert outcome.status == 1 and "deeper.png" in outcome.err


def test_file_without_an_answer_is_reported_and_skipped(command: Command, trained: Run, photos: Path) -> None:
    whole = (photos / "2.JPG").read_bytes()
    Path("cut.jpg").write_bytes(whole[: len(whole) // 2])
    Path("empty.png").touch()
    Path("phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    Image.new("L", (50, 50), 255).save("blank.png")
    Image.new("1", (12_000, 11_000)).save("huge.png")
    names = ["cut.jpg", "empty.png", "phone.HEIC", "none.png", "blank.png", "huge.png"]
    outcome = command("predict", str(trained), *names[:3], "photos/2.JPG", *names[3:], "photos/1.tiff", data=False)
    assert outcome.status == 1
    reported = outcome.err.splitlines()
    assert [line.split(":")[1].strip() for line in reported] == names
    assert all(line.startswith("mnist_lab: ") and line.endswith("; skipped") for line in reported)
    words = ("incomplete", "format", "JPEG or PNG", "not found", "blank", "too many")
    assert all(word in line for line, word in zip(reported, words, strict=True))
    assert [line[0] for line in table(outcome)[1:]] == ["photos/2.JPG", "photos/1.tiff"]
    alone = command("predict", str(trained), "blank.png", "--json", data=False)
    assert (alone.status, json.loads(alone.out)) == (1, [])


def test_row_of_digits_is_read_as_a_number_or_its_clearest_digit(command: Command, trained: Run, photos: Path) -> None:
    row_of_digits().save("row.png")
    single_answers = [predict(trained, [save_digit(digit)])[0] for digit in LINES]
    outcome = command("predict", str(trained), "row.png", "photos/2.JPG", data=False)
    assert (outcome.status, outcome.err) == (0, "")
    answer, other = predict(trained, ["row.png", "photos/2.JPG"])
    assert len(answer.found) == 3 and answer.text == "".join(single.text for single in single_answers)
    probabilities = [single.probability for single in single_answers]
    assert answer.probability == pytest.approx(np.prod(probabilities), rel=0.1)
    heads, *lines = table(outcome)
    assert heads[:4] == ["file", "number", "probability", "runner-up"]
    for line, shown in zip(lines, (answer, other), strict=True):
        runner_up, probability = shown.runner_up
        cells = [shown.text, f"{shown.probability:.2%}", runner_up, f"({probability:.2%})"]
        assert line == [str(shown.path), *cells, *shown.note.split()]
    rows = json.loads(command("predict", str(trained), "row.png", "--json", data=False).out)
    assert [(row["number"], row["place"]) for row in rows] == [(answer.text, place) for place in (1, 2, 3)]
    assert "".join(str(row["digit"]) for row in rows) == answer.text
    edges = [row[side] for row in rows for side in ("left", "right")]
    assert edges == sorted(edges) and edges[0] > 0 and edges[-1] < 1
    (single,) = json.loads(command("predict", str(trained), "row.png", "--single", "--json", data=False).out)
    assert list(single) == ["file", "digit", "probability", "note", *(f"p{digit}" for digit in range(10))]
    assert single["note"] == "one of 3 digits"


def save_digit(digit: int) -> Path:
    path = Path(f"{digit}.png")
    drawn(digit).save(path)
    return path


def test_runner_up_differs_where_the_network_is_least_sure(trained: Run) -> None:
    probabilities = np.full((3, 10), 0.001)
    probabilities[0, [2, 7]] = 0.98, 0.012
    probabilities[1, [0, 6]] = 0.6, 0.392
    probabilities[2, [6, 0]] = 0.9, 0.092
    found = [NetworkInput(np.full((28, 28), 255, np.uint8), candidates=3)] * 3
    answer = Answer(Path("x.png"), found, probabilities, ImageClassifier(trained))
    assert (answer.text, answer.probability) == ("206", pytest.approx(0.98 * 0.6 * 0.9))
    assert answer.runner_up == ("266", pytest.approx(0.98 * 0.392 * 0.9))


def answer_with(run: Run, probability: float, box: tuple[int, int], count: int = 1, others: int = 0) -> Answer:
    """Return an answer of a probability for each of count digits, whose box is (height, width)."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[: box[0], : box[1]] = 255
    probabilities = np.array([[probability, *[(1 - probability) / 9] * 9]] * count)
    found = [NetworkInput(pixels, candidates=count + others)] * count
    return Answer(Path("x.png"), found, probabilities, ImageClassifier(run))


def test_improbable_digits_are_doubtful_and_wide_ones_may_touch(trained: Run) -> None:
    assert answer_with(trained, 0.99, (20, 20)).note == answer_with(trained, 0.56, (20, 10), 2).note == ""
    assert answer_with(trained, 0.54, (20, 10)).note == "doubtful"
    for probability, box in ((0.99, (10, 20)), (0.8, (16, 20)), (0.5, (16, 20))):
        assert answer_with(trained, probability, box, 2).note == "digits may touch"
    assert answer_with(trained, 0.99, (16, 20)).note == ""
    assert answer_with(trained, 0.99, (20, 20), 2, others=1).note == "1 more outside the row"


@pytest.mark.parametrize(("shift", "touches"), [(66, True), (70, True), (140, False)])
def test_drawn_digits_that_touch_are_noted(trained: Run, shift: int, touches: bool) -> None:
    picture = ImageChops.darker(drawn(4, at=(60, 60)), drawn(2, at=(60 + shift, 60)))
    found = find_number(picture)
    probabilities = np.full((len(found), 10), 0.03)
    probabilities[:, 4] = 0.73  # A network is unsure of two digits in one.
    answer = Answer(Path("x.png"), found, probabilities, ImageClassifier(trained))
    assert (len(found), answer.note) == ((1, "digits may touch") if touches else (2, ""))


def test_from_python_the_first_bad_file_raises(trained: Run, tiny: Tiny) -> None:
    Image.new("L", (50, 50)).save("blank.png")
    with pytest.raises(NoDigit, match=r"^blank.png: no digit found"):
        predict(trained, ["blank.png"])
    with pytest.raises(UnreadableImage, match=r"^none.png: file not found"):
        predict(trained, ["none.png"])


def test_show_saves_the_networks_input_beside_the_image(command: Command, trained: Run, photos: Path) -> None:
    Path("more").mkdir()
    drawn(4, page=(400, 90), height=70, at=(40, 10)).convert("RGBA").save("more/10.webp")
    files = ["photos/10.png", "more/10.webp", "photos/1.tiff"]
    arguments = ("predict", str(trained), *files, "--show", "new/seen")
    outcome = command(*arguments, data=False)
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "previews: new/seen"
    previews = sorted(Path("new/seen").iterdir())
    assert [path.name for path in previews] == ["001-10.png", "002-10.png", "003-1.png"]
    for path, answer in zip(previews, predict(trained, files), strict=True):
        with Image.open(path) as sheet:
            right, below = sheet.width - 12, 12 + 280
            network_input = sheet.convert("L").crop((right - 280, 12, right, below))
            resized = network_input.resize((28, 28), Image.Resampling.NEAREST)
            assert np.array_equal(np.asarray(resized), answer.found[0].pixels)
            red = (np.asarray(sheet.convert("RGB")) == (214, 39, 40)).all(-1)
            assert red[:, : right - 280].any() and not red[:, right - 280 :].any()
    outcome = command(*arguments, data=False)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "mnist_lab: --show=new/seen: is not empty; choose a new folder\n"


def test_bad_arguments_are_reported_in_one_line(command: Command, trained: Run, photos: Path) -> None:
    Path("empty").mkdir()
    run, pixels = str(trained), write_csv("test.csv", tiny_arrays()[2])
    with zipfile.ZipFile("book.xlsx", "w") as book:
        book.writestr("xl/workbook.xml", "")
    np.savez("std.npz", images=(tiny_arrays()[2] / 255 - 0.13) / 0.31)
    before = pixels.read_bytes()
    for arguments, message in (
        ([run, "empty"], "empty: contains no image files (.apng"),
        ([run, "photos/1.tiff", "--out", "x.csv"], "--out=x.csv: only valid with a file of arrays or a CSV"),
        ([run, "photos/1.tiff", "--show", "photos/1.tiff"], "--show=photos/1.tiff: cannot be written"),
        ([run, "nix.csv"], "nix.csv: file not found"),
        ([run, "book.xlsx"], "book.xlsx: is a spreadsheet; save it as CSV UTF-8"),
        ([run, "std.npz"], "std.npz: has values from -0.419"),
        ([run, "test.csv", "--out", "test.csv"], "--out=test.csv: would overwrite the input"),
        ([run, "test.csv", "--out", "/proc/x.csv"], "--out=/proc/x.csv: cannot be written"),
    ):
        assert_refused(command("predict", *arguments, data=False), message)
    assert pixels.read_bytes() == before
    shutil.copy(pixels, "test.txt")
    assert command("predict", run, "test.txt", data=False).status == 0
    skipped = command("predict", run, "empty", "photos/1.tiff", data=False)
    assert (skipped.status, skipped.err) == (1, "mnist_lab: empty: not an image file; skipped\n")
    assert "photos/1.tiff" in skipped.out


def test_network_for_clothes_is_given_the_whole_photograph_light_on_dark(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    clothes = Run(tmp_path / "run")
    change_settings(clothes, {"data.source": compose("data=fashion_mnist").data.source})
    shirt = Image.new("RGB", (40, 60), "white")
    shirt.paste("navy", (10, 10, 30, 50))
    shirt.save(tmp_path / "shirt.png")
    (answer,) = predict(clothes, [tmp_path / "shirt.png"])
    (found,) = answer.found
    assert found.box == (0, 0, 1, 1) and found.pixels[0].max() == 0 and found.pixels.max() > 200
    assert answer.text in answer.classifier.classes
    assert answer.classifier.classes[-1] == "Ankle boot"


def write_csv(name: str, images: np.ndarray, labels: np.ndarray | None = None) -> Path:
    flat = images.reshape(len(images), 784)
    names, rows = [f"pixel{i}" for i in range(784)], flat.tolist()
    if labels is not None:
        names, rows = ["label", *names], np.column_stack([labels, flat]).tolist()
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return Path(name)


def expected(run: Run, images: np.ndarray) -> list[int]:
    trained = TrainedRun(run)
    return trained.model.predict(trained.data.normalise(images)).tolist()


def test_csv_of_pixels_gives_the_submission_file(command: Command, trained: Run, tiny: Tiny) -> None:
    images = tiny_arrays()[2]
    write_csv("test.csv", images)
    outcome = command("predict", str(trained), "test.csv", data=False)
    assert (outcome.status, outcome.err, outcome.out) == (0, "", "written: submission.csv (57 images)\n")
    digits = expected(trained, images)
    lines = [f"{number},{digit}" for number, digit in enumerate(digits, start=1)]
    assert Path("submission.csv").read_bytes().decode() == "\n".join(["ImageId,Label", *lines]) + "\n"


def test_pixels_of_another_scale_are_recognised_as_those_of_bytes(command: Command, trained: Run, tiny: Tiny) -> None:
    bits = (tiny.source().load(tiny.root).test_images > 99).astype(np.uint8)
    answers = []
    for scale in (255, 16):
        outcome = command("predict", str(trained), str(write_csv("pixels.csv", bits * scale)), data=False)
        warning = f"mnist_lab: warning: pixels.csv: values up to {scale}, taken as 0 to {scale}\n"
        assert (outcome.status, outcome.err) == (0, warning if scale < 255 else "")
        answers.append(Path("submission.csv").read_bytes())
    assert answers[0] == answers[1]


def test_labelled_csv_gives_the_accuracy_too(command: Command, trained: Run, tiny: Tiny) -> None:
    images, labels = tiny_arrays()[2:]
    path = write_csv("train.csv", images, labels)
    lines = [line.split(",", 1) for line in path.read_text().splitlines()]
    # The label may also be last, and be named class.
    path.write_text("\ufeff" + "\n".join(f"{rest},{label.replace('label', 'Class')}" for label, rest in lines))
    outcome = command("predict", str(trained), "train.csv", "--out", "new/answers.csv", data=False)
    accuracy = (np.array(expected(trained, images)) == labels).mean()
    assert outcome.out == f"accuracy by the labels: {accuracy:.2%}\nwritten: new/answers.csv (57 images)\n"
    assert Path("new/answers.csv").read_text().count("\n") == 58


@pytest.mark.parametrize(
    ("name", "has_labels"),
    [("x.npz", True), ("x.mat", True), ("x.mat", False), ("x.npy", False), ("x-ubyte.gz", False)],
)
def test_every_kind_of_file_that_training_reads_is_recognised(
    command: Command, trained: Run, name: str, has_labels: bool
) -> None:
    images, labels = tiny_arrays()[2:]
    arrays = {"images": images} | ({"labels": labels} if has_labels else {})
    if name == "x.npy":
        np.save(name, images)
    elif name == "x.npz":
        np.savez(name, x_train=images[:9], y_train=labels[:9], x_test=images, y_test=labels)
    elif name == "x.mat":
        savemat(name, arrays | {"images": images.transpose(1, 2, 0)})
    else:
        head = struct.pack(">HBB3I", 0, 8, 3, *images.shape)
        Path(name).write_bytes(gzip.compress(head + images.tobytes()))
    outcome = command("predict", str(trained), name, data=False)
    digits = expected(trained, images)
    accuracy = f"accuracy by the labels: {(np.array(digits) == labels).mean():.2%}\n" * has_labels
    out = f"{accuracy}written: submission.csv (57 images)\n"
    assert (outcome.status, outcome.err, outcome.out) == (0, "", out)
    assert [int(line.split(",")[1]) for line in Path("submission.csv").read_text().splitlines()[1:]] == digits


@pytest.mark.slow
@pytest.mark.real_data
def test_images_of_test_digits_keep_the_test_accuracy(tmp_path: Path) -> None:
    settings = ["model=lenet", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}", "figures=false"]
    run = train(compose(*settings, "trainer.accelerator=cpu"))
    classifier = ImageClassifier(run)
    images, labels = (array[:200] for array in classifier.data.raw_test_set())
    hits = (classifier.probabilities(images).argmax(1) == labels).sum()
    assert hits > 190
    for name, least in {"as it is": 0.99, "enlarged, shifted, inverted": 0.97, "photographed": 0.9}.items():
        share, notes = hits_and_notes(classifier, found(name, images), labels)
        assert 200 * share / hits >= least, f"{name}: {share:.1%}"
        assert notes <= 0.03, f"{name}: {notes:.1%} of right answers are called doubtful"
