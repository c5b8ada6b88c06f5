"""The page with a network inside answers as the checkpoint does, from one file."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lab import INGREDIENTS, SMALL_RESIDUAL, Command, Tiny, thorough, wait_for
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
def lenet(module_tiny: Tiny) -> Run:
    """Train a run that keeps the checkpoints of two epochs, and write its page beside it."""
    kept = ("callbacks.checkpoint.every_n_epochs=2", "trainer.max_epochs=5", "logger=csv")
    run = train(module_tiny.compose("model=lenet", *kept))
    run.folder.with_name("page.html").write_text(page_of(run))
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


def layer_heads(page: "Page") -> list[str]:
    """Return the name and shape of each layer."""
    return [" ".join(re.findall(".+", head)[:2]) for head in page.locator(".layer > header").all_inner_texts()]


SHAPES = [
    "input 28 × 28, as 32 × 32",
    "conv1 6 × 14 × 14",
    "conv2 16 × 5 × 5",
    "fc1 120 units",
    "fc2 84 units",
    "fc3 10 units",
]


def choose_unit(page: "Page", layer: int) -> None:
    """Click at a unit: it stays where it is, and the panel whose first lines explain it does not cover it."""
    canvas = page.locator(".maps").nth(layer).locator("canvas").last
    canvas.scroll_into_view_if_needed()
    before = canvas.bounding_box()
    canvas.click(position={"x": 20, "y": 20})
    panel, lines = page.locator("#detail").bounding_box(), page.locator("#detail dl").bounding_box()
    assert before and panel and lines and canvas.bounding_box() == before
    x, y = before["x"] + 20 - panel["x"], before["y"] + 20 - panel["y"]
    assert not (0 <= x <= panel["width"] and 0 <= y <= panel["height"])
    assert panel["y"] >= 0 and lines["y"] + lines["height"] <= page.evaluate("innerHeight")


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1265, *thorough(700, 390)])
def test_page_opens_with_a_digit_read_and_its_layers_which_fit_the_window(
    visit: Callable[..., "Page"], width: int
) -> None:
    page = visit(viewport={"width": width, "height": 844})
    assert "An example: draw your own" in page.locator("#words").inner_text()
    assert max(bars(page)) == float(page.locator("#spoken").inner_text().split()[1])
    assert layer_heads(page) == SHAPES
    assert page.evaluate("LAYERS.every(({canvases}) => canvases.every((canvas) => canvas.width > 0))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sides = page.evaluate("LAYERS.map(({isMaps, canvases, width}) => canvases[0].offsetWidth / (isMaps ? 1 : width))")
    assert min(sides) >= 24, "a finger finds each map and each unit"
    tops = page.evaluate("[...document.querySelectorAll('.layer')].map((layer) => layer.getBoundingClientRect().top)")
    assert (len(set(tops)) == 1) == (width == 1265), "a row in a wide window, and a column in a narrow one"
    assert page.evaluate("byId('row').scrollWidth <= byId('row').clientWidth"), "no layer is hidden"
    for layer in range(5):
        choose_unit(page, layer)
        page.locator("#close").click()
    assert not page.locator("#detail").is_visible()
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)
    assert page.locator("#predicted").inner_text() == "" and layer_heads(page) == SHAPES
    draw(page, *THREE)
    assert "An example" not in page.locator("#words").inner_text()


@needs_browser
@pytest.mark.slow
def test_value_of_a_unit_is_its_colour_and_is_explained(visit: Callable[..., "Page"]) -> None:
    page = visit(viewport={"width": 390, "height": 844}, color_scheme="dark")
    choose_unit(page, 1)
    detail, spoken = page.locator("#detail"), page.locator("#spoken")
    assert detail.inner_text().startswith("conv2, map 16, row")
    for layer, number in ((2, 1), (1, 0), (0, 5)):
        page.evaluate("([layer, number]) => select(layer, number)", [layer, number])
        value, before, colours, swatch = page.evaluate(
            """([layer, number]) => {
                const {canvases, shown, height, width, isMaps} = LAYERS[layer], {values} = shownDigit();
                const canvas = canvases[0].getContext("2d"), [, y, x] = placeIn(LAYERS[layer], number);
                const steps = stepsOf(LAYERS[layer]), units = sources(steps, values, number);
                return [values[shown].data[number], values[steps[0].name].data[units[0]],
                    [...canvas.getImageData(isMaps ? x : number % width, y, 1, 1).data].slice(0, 3),
                    getComputedStyle(DETAIL.querySelector(".swatch")).backgroundColor];
            }""",
            [layer, number],
        )
        shown = detail.locator("dd").all_inner_texts()
        assert shown[-1] == f"{value:.3f}" and shown[2] == f"{before:.3f}".replace("-", "−")
        assert sum(float(text.replace("−", "-")) for text in shown[:2]) == pytest.approx(before, abs=2e-3)
        assert value == pytest.approx(max(before, 0), abs=1e-6), "lenet's units are largest values after ReLU"
        assert [int(part) for part in swatch[4:-1].split(",")] == pytest.approx(colours, abs=1)
    page.locator(".maps").nth(2).focus()
    page.keyboard.press("ArrowRight")
    assert detail.inner_text().startswith("fc1, unit 2\n") and spoken.inner_text().startswith("fc1, unit 2: ")
    detail.get_by_role("button", name="unit to the right").click()
    assert detail.inner_text().startswith("fc1, unit 3\n")


@needs_browser
@pytest.mark.slow
def test_test_image_is_read_while_the_answer_stays_in_view(visit: Callable[..., "Page"]) -> None:
    page = visit(viewport={"width": 390, "height": 844})
    button = page.locator(".wrong button").first
    button.click()
    page.wait_for_timeout(100)
    label, _, predicted = button.inner_text().strip().partition(", not ")
    answer = page.locator("#predicted")
    assert answer.inner_text() == predicted and f"it is labelled {label}" in page.locator("#words").inner_text()
    box = answer.bounding_box()
    assert page.evaluate("scrollY") > 500 and box and 0 <= box["y"] < 800
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)
    assert answer.inner_text() == ""


@needs_browser
@pytest.mark.slow
def test_slider_goes_through_the_epochs_in_order_and_plays_them(visit: Callable[..., "Page"], lenet: Run) -> None:
    page, trained = visit(), TrainedRun(lenet)
    model, data, tested = trained.model, trained.data, lenet.tested_epoch
    images, first = data.examples(1)[0], data.raw_test_set()[0][0]
    paths = lenet.epoch_checkpoints() | {tested: lenet.chosen_checkpoint()}
    assert {2, 4} <= paths.keys()
    for place, epoch in enumerate(sorted(filter(None, paths))):
        page.locator("#epoch").fill(str(place))
        model.load_state_dict(load_weights(model, paths[epoch]))
        probabilities = page.evaluate("(pixels) => [...classify(pixels).probabilities]", first.ravel().tolist())
        exact = 1e-5 if epoch == tested else 2e-3  # Earlier weights are in float16.
        assert probabilities == pytest.approx(model.probabilities(images)[0].tolist(), abs=exact)
        words = f"Weights after epoch {epoch}" + " (tested)" * (epoch == tested)
        assert page.locator("#time label span").inner_text() == words
    page.locator("#play").click()
    assert "after epoch 2" in page.locator("#time label span").inner_text()
    wait_for(lambda: page.locator("#play").inner_text() == "▶ Play", "the last epoch")
    assert page.locator("#epoch").input_value() == page.locator("#epoch").get_attribute("max")


def test_weights_of_16_bits_are_read_as_numpy_writes_them(browser: "Browser") -> None:
    numbers = np.array([0, -0.0, 1, -1.5, 65504, 6e-8, -6.1e-5, 6.104e-5, 0.1, 1 / 3], "<f2")
    page = browser.new_page()
    page.add_script_tag(content=(TEMPLATES / "engine.js").read_text())
    read = page.evaluate("(bits) => [...widenHalves(Uint16Array.from(bits))]", numbers.view("<u2").tolist())
    assert read == numbers.astype(float).tolist()


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
