"""The page with a network inside answers as the checkpoint does, from one file."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lab import INGREDIENTS, SMALL_RESIDUAL, Command, thorough, tiny_data, wait_for
from PIL import Image

from benchmarks.page import THREE, draw
from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.inference.recognise import ImageClassifier
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.checkpoints import load_weights
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train
from mnist_lab.web import page as pages
from mnist_lab.web.graph import Arrays, to_graph
from mnist_lab.web.page import TEMPLATES, find_browser, page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUICK = ("trainer.max_epochs=1", "logger=csv")
EXPORT = ("export", "runs/a", "--format", "html", "--to", "page.html")
needs_browser = pytest.mark.skipif(find_browser() is None, reason="there is no Chromium or Chrome on this machine")


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train a run that keeps the checkpoints of two epochs, and write its page beside it."""
    folder = tmp_path_factory.mktemp("lenet")
    kept = ("callbacks.checkpoint.every_n_epochs=2", "trainer.max_epochs=5", "logger=csv", "figures=false")
    given = ("model=lenet", "data=tiny", "trainer.accelerator=cpu", f"hydra.run.dir={folder / 'run'}")
    run = train(tiny_data(folder).compose(*given, *kept))
    (folder / "page.html").write_text(page_of(run))
    return run


@contextmanager
def shown(browser: "Browser", address: str, **settings: Any) -> Iterator["Page"]:
    """Open a page; it fails if the page requests anything else or reports an error."""
    reported: list[str] = []
    page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}} | settings)
    page.on("console", lambda message: reported.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: reported.append(str(error)))
    page.on("request", lambda request: reported.append(request.url) if request.url != address else None)
    page.goto(address)
    yield page
    page.close()
    assert [line for line in reported if not line.startswith("data:") and "favicon" not in line] == []


@pytest.fixture
def visit(browser: "Browser", lenet: Run) -> Iterator[Callable[..., "Page"]]:
    """Return a function that opens the page of lenet from its file."""
    address = lenet.folder.with_name("page.html").as_uri()
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(shown(browser, address, **settings))


def bars(page: "Page") -> list[float]:
    """Return the probabilities that are shown, in per cent."""
    texts = page.locator("#bars li > span:last-child").all_inner_texts()
    return [float(text.removesuffix(" %")) for text in texts if text]


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["model=lenet"],
        *thorough(([*SMALL_RESIDUAL, *INGREDIENTS["views"], *INGREDIENTS["own mean"]],)),
        *thorough(*([f"model={name}"] for name in ("mlp", "simple_cnn", "compact_cnn", "dropout_cnn", "residual_cnn"))),
    ],
)
def test_browser_finds_the_checkpoints_class_for_each_test_image(command: Command, settings: list[str]) -> None:
    assert command(*QUICK, "hydra.run.dir=runs/a", *settings).status == 0
    outcome = command(*EXPORT, data=False)
    assert (outcome.status, outcome.err) == (0, "")
    assert "the checkpoint's class for each of the 57 test images" in Path("page.html.md").read_text()


@needs_browser
@pytest.mark.thorough
def test_page_of_an_ensemble_averages_its_members(command: Command) -> None:
    for number, model in enumerate(("mlp", "lenet")):
        assert command(f"model={model}", *QUICK, f"hydra.run.dir=runs/{number}").status == 0
    assert command("ensemble", "runs/0", "runs/1", "--to", "runs/a", data=False).status == 0
    outcome = command(*EXPORT, data=False)
    assert (outcome.status, outcome.err) == (0, "")


def seen_by_python(page: "Page", run: Run) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the network's inputs that `predict` finds in the page's drawing, and their probabilities."""
    drawing = np.array(page.evaluate("[...greyDrawing()]"), np.uint8).reshape(256, 384)
    classifier = ImageClassifier(run)
    row = [digit.pixels for digit in classifier.network_inputs(Image.fromarray(drawing))]
    return list(zip(row, classifier.probabilities(np.stack(row)), strict=True))


@needs_browser
@pytest.mark.slow
def test_row_of_digits_is_read_and_each_can_be_looked_into(visit: Callable[..., "Page"], lenet: Run) -> None:
    page = visit()
    for left in (-0.28, 0, 0.28):
        draw(page, *((0.5 + 0.6 * (x - 0.5) + left, y) for x, y in THREE))
    row = seen_by_python(page, lenet)
    assert len(row) == 3
    for i, (pixels, _) in enumerate(row):
        assert np.abs(np.subtract(page.evaluate(f"[...digits[{i}].pixels]"), pixels.ravel().astype(int))).mean() < 4
    expected = np.array(page.evaluate("digits.map(({probabilities}) => [...probabilities])"))
    names = [str(row.argmax()) for row in expected]
    buttons = page.locator("#predicted button")
    assert buttons.all_inner_texts() == names
    assert page.locator("#spoken").inner_text().startswith("".join(names))
    sure = np.prod([row.max() for row in expected])
    assert float(page.locator("#words").inner_text().split(" %")[0]) == pytest.approx(100 * sure, abs=0.5)
    for place in (2, 0, 1):
        buttons.nth(place).click()
        assert buttons.nth(place).get_attribute("aria-pressed") == "true"
        assert bars(page) == pytest.approx(100 * expected[place], abs=0.06)
    page.keyboard.press("Control+z")
    page.wait_for_timeout(100)
    assert buttons.count() == 2
    page.keyboard.press("Control+z")
    page.wait_for_timeout(100)
    assert buttons.count() == 0 and page.locator("#predicted").inner_text() == names[0]


@needs_browser
@pytest.mark.slow
def test_what_counts_is_what_changes_the_answer_when_covered(visit: Callable[..., "Page"], lenet: Run) -> None:
    page = visit()
    assert page.locator("#counts").is_hidden()
    draw(page, *THREE)
    wait_for(lambda: page.evaluate("occlusion.drops.length === PLACES ** 2"), "what counts")
    pixels = np.array(page.evaluate("[...digits[0].pixels]"), np.uint8).reshape(28, 28)
    images = np.stack([pixels] * 4)
    places = (0, 100, 195)
    for image, number in zip(images[1:], places, strict=True):
        top, left = 2 * (number // 14) - 3, 2 * (number % 14) - 3
        image[max(top, 0) : top + 7, max(left, 0) : left + 7] = 0
    probabilities = ImageClassifier(lenet).probabilities(images)
    whole, *covered = np.log(probabilities / (1 - probabilities))
    for odds, number in zip(covered, places, strict=True):
        drops = page.evaluate("(number) => occlusion.drops[number]", number)
        assert drops == pytest.approx(whole - odds, abs=0.02)
    before = page.evaluate("byId('map').toDataURL()")
    page.locator("#class").select_option(str((probabilities[0].argmax() + 1) % 10))
    assert page.evaluate("byId('map').toDataURL()") != before


@needs_browser
@pytest.mark.slow
def test_layers_units_and_wrong_images_can_be_looked_at_by_mouse_and_keyboard(visit: Callable[..., "Page"]) -> None:
    page = visit(viewport={"width": 390, "height": 844}, color_scheme="dark")
    assert page.locator("#layers").is_hidden()
    draw(page, *THREE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    heads = [head.replace("\n", " ") for head in page.locator("#layers h3").all_inner_texts()]
    assert heads == ["conv1 6 maps of 28 × 28", "conv2 16 maps of 10 × 10", "fc1 120 units", "fc2 84 units"]
    page.locator(".maps").nth(1).locator("canvas").nth(2).click()
    text = page.locator(".detail:visible").inner_text()
    assert text.startswith("conv2, map 3, row")
    page.locator(".maps").nth(2).focus()
    page.keyboard.press("ArrowRight")
    text = page.locator(".detail:visible").inner_text()
    assert text.startswith("fc1, unit 2:")
    value = page.evaluate("shownDigit().values[LAYERS[2].weights].data[1]")
    assert f"fc1, unit 2: {value:.3f}" in text
    page.locator(".wrong button").first.click()
    page.wait_for_timeout(100)
    first = page.locator(".wrong button").first
    label, _, predicted = first.inner_text().strip().partition(", not ")
    assert page.locator("#predicted").inner_text() == predicted
    assert f"it is labelled {label}" in page.locator("#words").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)
    assert page.locator("#predicted").inner_text() == "" and page.locator("#layers").is_hidden()


@needs_browser
@pytest.mark.slow
def test_slider_goes_through_the_epochs_whose_checkpoints_were_kept(visit: Callable[..., "Page"], lenet: Run) -> None:
    assert list(lenet.epoch_checkpoints()) == [2, 4]
    page, trained = visit(), TrainedRun(lenet)
    model, data = trained.model, trained.data
    images, first = data.examples(1)[0], data.test_set()[0][0]
    paths = [*lenet.epoch_checkpoints().values(), lenet.chosen_checkpoint()]
    words = ["The network after epoch 2", "The network after epoch 4", f"of epoch {lenet.tested_epoch}"]
    for place, (path, text) in enumerate(zip(paths, words, strict=True)):
        page.locator("#epoch").fill(str(place))
        model.load_state_dict(load_weights(model, path))
        probabilities = page.evaluate("(pixels) => [...classify(pixels).probabilities]", first.ravel().tolist())
        assert probabilities == pytest.approx(model.probabilities(images)[0].tolist(), abs=1e-5)
        assert text in page.locator("#time span").inner_text()


def test_page_that_no_browser_can_check_says_so(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "BROWSERS", ())
    assert command(*QUICK, "model=mlp", "hydra.run.dir=runs/a").status == 0
    outcome = command(*EXPORT, data=False)
    assert outcome.status == 0 and "check not made: there is no Chromium" in outcome.err
    assert "check | not made" in Path("page.html.md").read_text()


class Own(Classifier):
    """A user's network with an operator between its layers."""

    def __init__(self, operator: Callable[[torch.Tensor], torch.Tensor], maps: int = 4) -> None:
        super().__init__()
        self.operator = operator
        self.conv = torch.nn.Conv2d(1, 4, 3, stride=2, padding=1, dilation=2)
        self.fc = torch.nn.Linear(maps, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.operator(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


OPERATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": lambda x: torch.nn.functional.leaky_relu(x, 0.2),
    "elu": torch.nn.functional.elu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "mean pooling": lambda x: torch.nn.functional.avg_pool2d(x, 3, 2, 1),
    "mean pooling without padding": lambda x: torch.nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "pooling to the edge, of 13 pixels": lambda x: torch.nn.functional.max_pool2d(x, 2, ceil_mode=True),
    "and with a last window in the padding": lambda x: torch.nn.functional.max_pool2d(x, 2, 2, 1, ceil_mode=True),
    "sums": lambda x: 1.5 * x + x - x / 3 - 0.1,
    "concatenation": lambda x: torch.cat([x.relu(), x.tanh()], 1),
}


@needs_browser
@pytest.mark.slow
def test_each_operator_of_the_page_gives_what_torch_gives(browser: "Browser") -> None:
    torch.manual_seed(0)
    page = browser.new_page()
    page.add_script_tag(content=(TEMPLATES / "engine.js").read_text())
    for name, operator in OPERATORS.items():
        network = Own(operator, 8 if name == "concatenation" else 4).eval()
        arrays = Arrays()
        graph, image = to_graph(network, arrays), torch.randn(1, 1, 28, 28)
        values = page.evaluate(
            """([graph, bytes, image]) => {
              const steps = unpack(graph, Uint8Array.from(bytes));
              const x = {data: Float32Array.from(image), shape: [1, 28, 28]};
              return [...evaluate(steps, x)[steps[steps.length - 1].name].data];
            }""",
            [graph, list(arrays.to_bytes()), image.flatten().tolist()],
        )
        with torch.no_grad():
            assert values == pytest.approx(network(image)[0].tolist(), abs=1e-5), name
