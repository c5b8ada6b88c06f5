"""A report is self-contained, has all results of its subject, and is readable on a phone, in the dark and on paper."""

import html
import itertools
import json
import re
import shutil
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from lab import Command, Tiny, assert_refused, change_settings, slow, thorough
from playwright.sync_api import Browser, Page

from mnist_lab.cli.data import main as describe
from mnist_lab.config.presets import find_presets
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.export.model_card import describe_preset
from mnist_lab.report.images import HEIGHT, WIDTH, image_values
from mnist_lab.report.importance import importances
from mnist_lab.report.render import report
from mnist_lab.report.run import class_rows, most_confused
from mnist_lab.report.sweep import is_grid
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, write_job
from mnist_lab.training.train import train
from mnist_lab.viz.curves import plot_accuracy
from mnist_lab.viz.model import describe_prediction, plot_reliability
from mnist_lab.viz.style import COLOURS
from mnist_lab.viz.sweep import plot_sweep_curves

Visit = Callable[..., Page]
HOSTILE = "<script>alert('x')</script>"


# The pictures that are not visible.
HIDDEN = """() => {
    const empty = [...document.querySelectorAll("img")].filter(each => !each.complete || !each.naturalWidth);
    const flat = [...document.querySelectorAll("svg, svg .series use, svg text")].filter(each => {
        const box = each.getBoundingClientRect();
        return each.checkVisibility() && Math.max(box.width, box.height) < 2;
    });
    return [...empty, ...flat].map(each => each.outerHTML.slice(0, 200));
}"""
# The least contrast of texts and of the marks in figures with their background.
CONTRAST = """() => {
    const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const seen = colour => {
        pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data];
    };
    const light = colour => seen(colour).slice(0, 3).map(value => value / 255)
        .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
    const below = each => {
        const colour = getComputedStyle(each).backgroundColor;
        return seen(colour)[3] ? colour : below(each.parentElement);
    };
    const contrast = each => {
        const colour = getComputedStyle(each)[each.namespaceURI.endsWith("svg") ? "fill" : "color"];
        const [high, low] = [light(colour), light(below(each))].sort((a, b) => b - a);
        return (high + 0.05) / (low + 0.05);
    };
    const visible = [...document.body.querySelectorAll("*")].filter(each => each.checkVisibility());
    const texts = visible.filter(each => [...each.childNodes].some(node => node.nodeType == 3 && node.data.trim()));
    return {
        text: Math.min(...texts.map(contrast)),
        lines: Math.min(100, ...visible.filter(each => each.matches(".series use")).map(contrast)),
        paper: light(getComputedStyle(document.documentElement).backgroundColor),
    };
}"""


@dataclass
class Lab:
    """A run, of two epochs of mlp, and its predictions."""

    run: Run
    predictions: Predictions

    def copy(self, without: tuple[str, ...] = (), **changes: Any) -> Run:
        """Copy the run to another folder, without some of its files and with changes to its run.json."""
        folder = self.run.folder.parent / f"copy{len(list(self.run.folder.parent.iterdir()))}"
        shutil.copytree(self.run.folder, folder, ignore=shutil.ignore_patterns(*without, "report.html"))
        run = Run(folder)
        run.update(**changes)
        return run


@pytest.fixture(scope="module")
def lab(module_tiny: Tiny) -> Lab:
    folder = module_tiny.folder / "runs" / "first"
    run = train(module_tiny.compose("model=mlp", "optimizer.lr=0.1", f"hydra.run.dir={folder}"))
    return Lab(run, TrainedRun(run).predictions)


@pytest.fixture(scope="module")
def page_of_run(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(str(lab.run.folder), tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open a page's file; at the end, assert that it has requested nothing else and reported no error."""
    pages: list[tuple[Page, Path, list[str]]] = []

    def open_page(path: Path, **settings: Any) -> Page:
        page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}} | settings)
        events: list[str] = []
        page.on("console", lambda message: events.append(message.text))
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on("dialog", lambda dialog: events.append(dialog.message))
        page.on("request", lambda request: events.append(request.url))
        page.goto(path.absolute().as_uri())
        pages.append((page, path, events))
        return page

    yield open_page
    for page, path, events in pages:
        page.wait_for_load_state("networkidle")
        assert [event for event in events if not event.startswith("data:")] == [path.absolute().as_uri()]
        page.close()


def cells(page: Page, table: str) -> list[list[str]]:
    """Return the rows of a table's body."""
    rows = page.locator(f"{table} tbody tr").all()
    return [[text.strip() for text in row.locator("th, td").all_inner_texts()] for row in rows]


def tiles(page: Page) -> dict[str, str]:
    found = [tile.inner_text().split("\n") for tile in page.locator(".tiles li").all()]
    return {name: value for name, value, *_ in found}


def made_sweep(folder: Path, swept: dict[str, list[str]], *, failed: int = 0, waiting: int = 0) -> Sweep:
    """Write the records of a sweep whose jobs' validation accuracy falls from 97 %; the last jobs are not finished."""
    texts = [[f"{key}={value}" for value in values] for key, values in swept.items()]
    planned = {f"id{i}": list(overrides) for i, overrides in enumerate(itertools.product(*texts))}
    sweep = Sweep.open(folder, "python -m mnist_lab -m sweep=s", list(swept), planned)
    started = len(planned) - waiting
    for i, (id, overrides) in enumerate(list(planned.items())[:started]):
        end = (RunState.FAILED, 1, f"RuntimeError: {HOSTILE}") if i >= started - failed else (RunState.FINISHED, 1)
        job = Job(tuple(overrides), folder / f"{','.join(overrides)}-{id}", *end)
        job.folder.mkdir()
        write_job(job)
        accuracies = {"val/acc": 0.97 - 0.01 * i, "test/acc": 0.9 + 0.0011 * i}
        info: dict[str, Any] = {"status": job.state, "started": "2026-11-21T12:00:00+00:00", "config_dir": None}
        info |= {"metrics": accuracies if job.state == "finished" else {}, "seconds": {"total": 3.5}}
        info |= {"epochs": 2, "max_epochs": 2, "seed": 0}
        (job.folder / "run.json").write_text(json.dumps(info))
    return sweep


SWEPT = {
    "one": {"optimizer.lr": ["0.001", "0.01", "0.1"]},
    "two": {"optimizer.lr": ["0.001", "0.01", "0.1"], "model": ["mlp", "lenet"]},
    "three": {"optimizer.lr": ["0.001", "0.01"], "model": ["mlp", "lenet"], "data.batch_size": ["64", "128"]},
    "seeds": {"optimizer.lr": ["0.001", "0.1"], "seed": ["0", "1"]},
    "none": {},
}


def test_headline_and_legends_show_the_epoch_whose_weights_were_tested(lab: Lab) -> None:
    run = lab.copy(("checkpoints",))
    run.update(tested={"checkpoint": "best", "epoch": 1}, metrics=run.info["metrics"] | {"val/acc": 0.1234})
    page = report(str(run)).read_text(encoding="utf-8")
    assert '<strong>12.34%</strong> <span class="note">in epoch 1, the one tested' in page
    words = f"validation, {run.curve('val/acc')[1]:.2%} (epoch 1)"
    assert words in page
    assert words in [str(line.get_label()) for line in plot_accuracy(run).axes[0].get_lines()]


@pytest.fixture(scope="module", params=["run", "data", "two", *thorough("unsaved", "three")])
def kind_of_page(lab: Lab, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Return a page of each kind."""
    name, folder = request.param, tmp_path_factory.mktemp("pages")
    if name == "data":
        describe([str(lab.run.folder), "--out", str(folder / "page.html")])
        return folder / "page.html"
    if name in SWEPT:
        subject = made_sweep(folder / "s", SWEPT[name], failed=int(len(SWEPT[name]) > 1)).folder
    else:
        subject = lab.run.folder if name == "run" else lab.copy(("checkpoints",), status="failed", error="lost").folder
    return report(str(subject), folder / "page.html")


def test_preset_of_the_user_needs_neither_title_nor_source(lab: Lab, tmp_path: Path) -> None:
    for stated, shown in (({"title": "Mine"}, "“Mine”"), ({"source": "me"}, "me"), ({}, "a preset without a title")):
        run = lab.copy()
        change_settings(run, {"tutorial": stated | {"published": {"test/acc": [None, 50.0]}}})
        assert describe_preset(run) == shown
    assert f"as published in {shown}." in report(str(run.folder), tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_shows_all_on_a_phone_and_a_desk_in_light_and_dark(visit: Visit, kind_of_page: Path, scheme: str) -> None:
    page = visit(kind_of_page, color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
    for width in (375, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(HIDDEN) == []
    contrast = page.evaluate(CONTRAST)
    assert contrast["text"] >= 4.5 and contrast["lines"] >= 3
    assert contrast["paper"] > 0.9 if scheme == "light" else contrast["paper"] < 0.05
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(each => +each.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.locator("th:not([scope]), svg:not([aria-label])").count() == 0
    ids = page.locator("[id]").evaluate_all("all => all.map(each => each.id)")
    assert len(ids) == len(set(ids)) >= 3


@pytest.mark.slow
def test_page_on_paper_is_light_and_without_its_closed_parts(visit: Visit, page_of_run: Path) -> None:
    page = visit(page_of_run, color_scheme="dark")
    page.locator("details:has(#differences)").evaluate("each => each.open = true")
    page.emulate_media(media="print", color_scheme="dark")
    contrast = page.evaluate(CONTRAST)
    assert contrast["paper"] == 1 and contrast["text"] >= 4.5
    assert page.locator("#differences").is_visible()
    assert all(page.locator(part).is_hidden() for part in ("#precision", ".scripted >> nth=0"))


@pytest.mark.slow
def test_figures_are_those_of_the_run_and_of_its_predictions(lab: Lab, visit: Visit, page_of_run: Path) -> None:
    page, made, info = visit(page_of_run), lab.predictions, lab.run.info
    main, wrong = tiles(page), round((1 - made.accuracy) * 57)
    accuracies = (f"{info['metrics'][name]:.2%}" for name in ("test/acc", "val/acc"))
    assert (main["test accuracy"], main["validation accuracy"], main["wrong"]) == (*accuracies, str(wrong))
    rows = [[int(cell or 0) for cell in row[1:]] for row in cells(page, ".matrix")]
    assert rows == made.confusion().tolist()
    page.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
    assert cells(page, "#precision") == [list(row) for row in class_rows(made)]
    assert page.locator("#ece").inner_text() == f"{made.calibration_error():.2%}"
    assert page.locator("#worst ~ .gallery").first.locator("li").count() == min(wrong, 24) > 0
    pairs = [f"{i} as {j}: {count}" for i, j, count in most_confused(made.confusion())]
    assert page.locator(".pair").all_inner_texts() == pairs
    curve = lab.run.curve("val/acc")
    spoken, points = f"validation, {curve[2]:.2%}", [f"validation, epoch {i}: {y:.2%}" for i, y in curve.items()]
    assert spoken in (page.locator("svg[aria-label^='Accuracy: ']").get_attribute("aria-label") or "")
    assert set(points) <= set(re.findall("<title>(.*?)</title>", page_of_run.read_text()))
    assert "sure" in (page.locator("svg[aria-label^='Reliability diagram: ']").get_attribute("aria-label") or "")


@pytest.mark.slow
def test_cell_of_the_matrix_opens_its_images_and_points_have_their_values(
    lab: Lab, visit: Visit, page_of_run: Path
) -> None:
    page, made = visit(page_of_run, has_touch=True), lab.predictions
    for button in page.locator(".matrix button").all():
        button.click()
        i, j = map(int, (button.get_attribute("data-cell") or "").split("-"))
        members = ((made.labels == i) & (made.predicted == j)).nonzero().flatten().tolist()
        lines = describe_prediction(i, j, made.probabilities[members[0]].tolist(), made.classes, "as")
        texts = page.locator("#cell li").all_inner_texts()
        assert "\n".join(lines) in texts and len(texts) == len(members)
    values = image_values(TrainedRun(lab.run))
    assert len(values["shown"]) == 57
    page.locator(".map").scroll_into_view_if_needed()
    box = page.locator(".map").bounding_box()
    assert box is not None
    _, x, y, *lines = values["shown"][0]
    place = box["x"] + x / WIDTH * box["width"], box["y"] + y / HEIGHT * box["height"]
    for point in (page.mouse.move, page.touchscreen.tap):
        point(*place)
        assert page.locator("#tip .digit").is_visible() and page.locator("#tip").inner_text() == "\n".join(lines)
        page.mouse.move(1, 1)
    mark = page.locator("svg[aria-label^='Loss: '] .series use").last
    mark.scroll_into_view_if_needed()
    page.wait_for_timeout(200)  # The event of scrolling, which hides the box, comes with the next frame.
    mark.hover(force=True)
    assert page.locator("#tip").inner_text().startswith("test, epoch 2: ")


def test_only_script_of_a_page_is_the_labs(page_of_run: Path) -> None:
    text = page_of_run.read_text()
    script, *others = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'\"" in text and not others


def test_classes_pairs_and_calibration_are_those_of_a_matrix_by_hand() -> None:
    labels = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2]
    predicted = [0, 0, 0, 1, 1, 2, 1, 1, 0, 0]
    probabilities = torch.nn.functional.one_hot(torch.tensor(predicted), 4).double()
    probabilities[0] = torch.tensor([0.95, 0.05, 0, 0])  # This is in the same interval as the probabilities of 1.
    made = Predictions(torch.tensor(labels), probabilities, ("a", "b", "c", "d"))
    assert class_rows(made) == [
        ("a", "6", "60.00%", "50.00%"),
        ("b", "3", "50.00%", "66.67%"),
        ("c", "1", "0.00%", "0.00%"),
        ("d", "0", "-", "-"),
    ]
    assert most_confused(made.confusion()) == [(0, 1, 2), (0, 2, 1), (1, 0, 1), (2, 0, 1)]
    assert made.calibration() == [(pytest.approx(0.995), pytest.approx(0.5), 10)]
    points = plot_reliability(made).axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(points, [[99.5, 50]])


def test_half_filled_grid_is_a_heat_map_and_an_emptier_one_is_not() -> None:
    def jobs(*places: str) -> Results:
        planned = [Job((f"optimizer.lr={lr}", f"model={model}"), Path(f"no-{lr}{model}")) for lr, model in places]
        return Results(Sweep(Path("s")), planned, [])

    keys = ["optimizer.lr", "model"]
    assert is_grid(jobs("1a", "2b"), keys)
    assert not is_grid(jobs("1a", "2b", "3c", "1b"), keys), "four of nine"
    assert not is_grid(jobs(*(f"{lr}a" for lr in "123456789ABCD"), "1b"), keys), "too wide"
    assert not is_grid(jobs("1a", "2b"), keys[:1])


def test_page_has_settings_environment_and_commands(lab: Lab, page_of_run: Path) -> None:
    text, info = page_of_run.read_text(), lab.run.info
    assert '<th scope="row">optimizer.lr</th><td>0.1</td><td>0.01</td>' in text
    assert "<dt>optimizer</dt><dd>SGD lr=0.1 momentum=0.9" in text and "<dt>data.batch_size</dt><dd>" in text
    commands = f"resume={lab.run} trainer.max_epochs=3", f"draw {lab.run}", f"data {lab.run}", f"compare {lab.run}"
    assert all(value in text for value in (info["versions"]["torch"], info["git"]["commit"][:12], *commands))
    assert '<th scope="row">data.source.name</th>' in text and '<th scope="row">data.source.sha256' not in text
    assert not re.search(r"https?://(?!www\.w3\.org)", text), "nothing is fetched"


@pytest.mark.parametrize("status", ["failed", *thorough("killed", "interrupted", "paused")])
def test_run_that_has_not_finished_has_a_page_with_its_results_so_far(lab: Lab, status: str) -> None:
    error = {"interrupted": "Ctrl-C", "failed": f"RuntimeError: {HOSTILE}"}.get(status)
    recorded = "running" if status == "killed" else status
    ended = {"status": recorded, "error": error, "metrics": {}, "seconds": {}, "finished": None, "device": None}
    text = report(str(lab.copy(**ended).folder)).read_text()
    assert f'<span class="badge {status}">{status}</span>' in text
    sentence = {
        "killed": "was killed: its process ended",
        "interrupted": "was interrupted: Ctrl-C.",
        "failed": "failed: ",
        "paused": "is paused: its sweep",
    }
    assert f"This run {sentence[status]}" in text
    assert "Epochs done: 2 of 2" in text and f"{lab.predictions.accuracy:.2%}" in text
    assert html.escape(error or "") in text.replace("&#39;", "&#x27;")
    text = report(str(lab.copy(("checkpoints", "metrics.csv"), **ended).folder)).read_text()
    assert "The run has no checkpoint" in text and "there is no curve" in text and "resume=" not in text


def test_checkpoint_that_is_corrupt_is_reported_in_the_page(lab: Lab) -> None:
    run = lab.copy()
    chosen = run.chosen_checkpoint()
    chosen.write_bytes(chosen.read_bytes()[:1000])
    text = report(str(run.folder)).read_text()
    assert "The checkpoint cannot be evaluated: " in text and "corrupt, or not a checkpoint" in text
    assert "Reliability" not in text
    assert f"{lab.run.info['metrics']['test/acc']:.2%}" in text, "the run has recorded it"


def test_accuracy_stands_beside_that_of_the_preset_of_its_network_or_of_a_guess(lab: Lab, page_of_run: Path) -> None:
    compared = '<strong>([^<]*)</strong> <span class="note">(experiment=.*?seeds|always.*?)</span>'
    share = np.bincount(lab.predictions.labels).max() / len(lab.predictions.labels)
    assert re.findall(compared, page_of_run.read_text()) == [(f"{share:.2%}", "always the most frequent class")]
    run = lab.copy(("checkpoints",))
    change_settings(run, {"data.source.name": "MNIST"})
    (preset,) = (preset for preset in find_presets() if preset.name == "mlp")
    (found,) = re.findall(compared, report(str(run.folder)).read_text())
    accuracy, _, deviation = preset.measured["accuracy"].removesuffix(" %").partition(" ± ")
    assert found[0] == f"{accuracy}%" and f"± {deviation} over" in found[1]


def test_accuracy_of_limited_batches_is_not_shown_as_that_of_the_set(lab: Lab, tmp_path: Path) -> None:
    limits = {"overrides": ["+trainer.limit_test_batches=2"], "partial": ["val", "test"]}
    run, sweep = lab.copy(metrics={"test/acc": 0.1234}, **limits), made_sweep(tmp_path / "s", SWEPT["one"])
    for job in sweep.jobs():
        Run(job.folder).update(**limits)
    for folder in (run.folder, sweep.folder):
        text = report(str(folder)).read_text()
        assert "the recorded validation and test accuracy is not that of the whole set: trainer.limit_" in text
    text = report(str(run.folder)).read_text()
    accuracy = f"{lab.predictions.accuracy:.2%}"
    assert f"<strong>{accuracy}</strong>" in text
    assert f"recorded by the run for a part of the test images: 12.34%, evaluated now in float32: {accuracy}" in text


@pytest.mark.slow
def test_sweep_is_ranked_and_only_its_best_is_tested(visit: Visit, tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "s", SWEPT["two"], failed=1, waiting=1)
    page = visit(report(str(sweep.folder)))
    assert [row[:2] + sorted(row[2:4]) + [row[4], row[6]] for row in cells(page, "#ranked")] == [
        ["1", "97.00%", "0.001", "mlp", "", "1"],
        ["2", "96.00%", "0.001", "lenet", "1.00", "2"],
        ["3", "95.00%", "0.01", "mlp", "2.00", "3"],
        ["4", "94.00%", "0.01", "lenet", "3.00", "4"],
    ]
    assert tiles(page)["its test accuracy"] == "90.00%"
    assert not re.search("90.(11|22|33)%", page.content())
    texts = page.locator("#picture ~ .columns svg text").all_text_contents()
    assert [text for text in texts if text.endswith(".00")] == ["97.00", "96.00", "95.00", "94.00"]
    assert [row[1] for row in cells(page, "#states")] == ["finished"] * 4 + ["failed", "waiting"]
    assert page.locator(".errors dd").all_inner_texts() == [f"RuntimeError: {HOSTILE}"]
    assert "python -m mnist_lab optimizer.lr=0.001 model=mlp" in page.content()
    assert "4 of 6 jobs finished" in page.content()


@pytest.mark.slow
def test_every_job_is_linked_by_its_report_or_its_folder(visit: Visit, tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "s", {"model": ["'a#b'", "'100%?'"]})
    job_report = sweep.jobs()[0].folder / "report.html"
    job_report.write_text("its own")
    page = visit(report(str(sweep.folder), tmp_path / "elsewhere" / "page.html"))
    addresses = page.locator("#states a").evaluate_all("links => links.map(link => link.href)")
    assert [unquote(urlsplit(address).path) for address in addresses] == [str(job_report), str(sweep.jobs()[1].folder)]
    assert not any(urlsplit(address).fragment for address in addresses)
    assert page.locator("#states a").all_inner_texts() == ["report", "folder"]
    tables = page.locator("#states, #ranked").all_inner_texts()
    assert not any(job.id in table for job in sweep.jobs() for table in tables)


def test_sweeps_page_has_the_learning_curves_of_the_better_half(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "s", {"optimizer.lr": [str(i) for i in range(8)]})
    for number, job in enumerate(sweep.jobs()):
        rows = "".join(f"{11 + 12 * i},{i},1.5,{0.5 - i / 10},{0.9 - number / 100}\n" for i in range(3))
        (job.folder / "metrics.csv").write_text(f"step,epoch,train/loss,val/loss,val/acc\n{rows}")
    figure = plot_sweep_curves(Results.of(sweep), "loss")
    assert figure is not None
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == [f"lr={i}" for i in (3, 2, 1, 0)]
    assert [line.get_color() == COLOURS["val"] for line in lines] == [False, True, True, True]
    assert lines[3].get_xydata().tolist() == [[1, 0.5], [2, 0.4], [3, 0.3]]
    text = report(str(sweep.folder)).read_text()
    assert "Learning curves" in text
    assert all(f"<title>lr=0, epoch {i}: 90.00%</title>" in text for i in (1, 2, 3))


def test_seeds_of_the_same_settings_are_one_place_with_its_spread(tmp_path: Path) -> None:
    text = report(str(made_sweep(tmp_path / "s", SWEPT["seeds"]).folder)).read_text()
    assert "<strong>96.50%</strong>" in text and "± 0.71 over 2 seeds" in text
    places = ["lr=0.001: 96.50% ± 0.71", "lr=0.1: 94.50% ± 0.71"]
    assert re.findall("<title>(lr=.*?)</title>", text) == places
    assert f'aria-label="By lr: {"; ".join(places)}"' in text


def test_sweep_over_three_settings_has_coordinates_and_a_chart_for_each_setting(tmp_path: Path) -> None:
    text = report(str(made_sweep(tmp_path / "s", SWEPT["three"]).folder)).read_text()
    charts = ["From settings to accuracy", "By lr", "By model", "By batch_size"]
    assert re.findall('class="chart" role="img" aria-label="(.*?): ', text) == charts


@pytest.mark.parametrize("has_sklearn", [False, *slow(True)])
def test_importance_is_the_share_of_the_differences_that_a_setting_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_sklearn: bool
) -> None:
    """In this sweep, the learning rate moves the accuracy by 4 points, the batch size by 2, the network by 1."""
    if not has_sklearn:
        monkeypatch.setitem(sys.modules, "sklearn", None)
    swept = {"optimizer.lr": ["0.1", "0.01"], "data.batch_size": ["32", "64"], "model": ["mlp", "lenet"]}
    results = Results.of(made_sweep(tmp_path / "s", swept))
    found, method = importances(results, list(swept))
    assert list(found) == ["optimizer.lr", "data.batch_size", "model"]
    expected = {"optimizer.lr": 16 / 21, "data.batch_size": 4 / 21, "model": 1 / 21}
    assert found == pytest.approx(expected, abs=0.15 if has_sklearn else 1e-9)
    assert ("fANOVA" in method) == has_sklearn
    assert importances(Results.of(made_sweep(tmp_path / "one", SWEPT["one"])), ["optimizer.lr"]) == ({}, "")


@pytest.mark.parametrize(
    ("keys", "behind"), [(["optimizer.lr", "seed"], ["2.00", "4.00"]), (["seed", "optimizer.lr"], ["≈ 1.00", "≈ 2.00"])]
)
def test_differences_that_may_be_chance_are_marked(tmp_path: Path, keys: list[str], behind: list[str]) -> None:
    """The seeds differ by 1 point, which is little beside 2, or by 3, which is more than 1 and 2."""
    values = {"optimizer.lr": ["0.1", "0.01", "0.001"], "seed": ["0", "1"]}
    text = report(str(made_sweep(tmp_path / "s", {key: values[key] for key in keys}).folder)).read_text()
    assert re.findall(r"<td>(≈? ?\d\.00)</td>", text) == behind


def test_sweep_without_a_result_has_a_page(tmp_path: Path) -> None:
    for name, unfinished in (("two", {"failed": 6}), ("none", {"waiting": 1})):
        text = report(str(made_sweep(tmp_path / name, SWEPT[name], **unfinished).folder)).read_text()
        assert "there is nothing to rank" in text and "0 of" in text


@pytest.mark.slow
def test_report_of_a_real_sweep_whose_job_fails_and_of_its_best_run(command: Command) -> None:
    grid = ("model=mlp", "optimizer.lr=0.01,1e30", "trainer.max_epochs=1")
    assert command("-m", "sweep=s", *grid).status == 1
    assert command("report", "runs/sweeps/s", data=False).out == "written: runs/sweeps/s/report.html\n"
    text = Path("runs/sweeps/s/report.html").read_text()
    assert "1 of 2 jobs finished" in text and "there is no checkpoint yet" in text
    best = Results.of(Sweep(Path("runs/sweeps/s"))).winner[0].folder
    assert command("report", str(best), "--out", "new/best.html", data=False).status == 0
    assert f"{Run(best).info['metrics']['test/acc']:.2%}" in Path("new/best.html").read_text()
    failed = next(job for job in Sweep(Path("runs/sweeps/s")).jobs() if job.state == "failed")
    assert command("report", str(failed.folder), data=False).status == 0


def test_page_is_opened_in_a_browser_or_a_line_says_why_not(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    sweep = made_sweep(Path("s"), SWEPT["one"]).folder.absolute()
    for screen in (True, False):
        monkeypatch.setattr("mnist_lab.web.server.has_screen", lambda screen=screen: screen)
        outcome = command("report", str(sweep), "--open", data=False)
        assert outcome.out.splitlines()[1:] == ([] if screen else ["not opened: no browser can open a window here"])
    assert opened == [(sweep / "report.html").as_uri()]


def test_bad_input_is_reported_in_one_line_and_nothing_is_written(command: Command, lab: Lab) -> None:
    run = lab.copy()
    Path("file").write_text("")
    Path("bad").mkdir()
    before = set(run.folder.iterdir())
    for arguments, error in (
        ((str(run.folder), "--out", "file/page.html"), "--out=file/page.html: cannot be written"),
        ((str(run.folder), "--out", "bad"), "--out=bad: exists and is not a file"),
    ):
        assert_refused(command("report", *arguments, data=False), error)
    change_settings(run, {"data.root": "nowhere", "data.download": False})
    assert_refused(command("report", str(run.folder), data=False), "", "nowhere")
    assert set(run.folder.iterdir()) == before and not list(Path().rglob("*.html*"))
