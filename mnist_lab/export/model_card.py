"""The page beside an exported file: what is in it, how good it is, what it takes, and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchmetrics import Metric

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.formatting import format_command
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run

LICENCES = {
    "MNIST": "MNIST (Yann LeCun, Corinna Cortes, Christopher Burges) is commonly given as under CC BY-SA 3.0, "
    "copyright of Yann LeCun and Corinna Cortes; its images come from NIST's Special Databases 1 and 3.",
    "FashionMNIST": "Fashion-MNIST (Zalando SE; Xiao, Rasul, Vollgraf, 2017) is under the MIT licence.",
}


@dataclass(frozen=True)
class Measured:
    """What a written program came to on the test set: its images, accuracy (0 to 1), and the greatest difference of
    its probabilities from the checkpoint's."""

    images: int
    accuracy: float
    difference: float


def constructor(cfg: DictConfig) -> dict[str, str]:
    """A network's class as Python has it: its module, its name, and the call that makes it as it was configured."""
    settings: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    module, _, name = settings["_target_"].rpartition(".")
    own = {key: value for key, value in settings.items() if not key.startswith("_")}  # _target_ and such
    return {
        "module": module,
        "name": name,
        "made": f"{name}({', '.join(f'{key}={value!r}' for key, value in own.items())})",
    }


def model_card(
    run: Run, network: Classifier, data: MNISTDataModule, file: str, loading: str, measured: Measured | None
) -> str:
    """The card, in Markdown.

    Args:
        run: the run that the weights are of.
        network: the network with them.
        data: the run's data module.
        file: the exported file's name.
        loading: the lines of Python that load it.
        measured: what the file came to on the test set, if it is a program; None for weights alone.
    """
    info = run.info
    model, source = info["model"], data.source.name
    facts = {
        "data": f"{source}; {data.val_size:,} of its training images were kept for validation",
        "preset": preset(run),
        "network": f"`{type(network).__name__}`, {sum(p.numel() for p in network.parameters()):,} parameters",
        "weights": weights(run),
        "accuracy": accuracy(run, measured),
        **({"check": check(measured)} if measured else {}),
        "trained by": f"`{info.get('command') or format_command(['model=' + model])}`",
        "versions": ", ".join(f"{name} {version}" for name, version in (info.get("versions") or {}).items()),
    }
    table = "\n".join(f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in facts.items())
    return f"""\
# {file}: {model}, trained on {source}

| | |
|---|---|
{table}

## Load it

```python
{loading}
```

## In and out

{in_and_out(network, data, inside=measured is not None)}

## Layers

```
{layers(network)}
```

## Limits

It tells ten classes apart and has no other answer: whatever an image shows, the probabilities add up to 1. The accuracy
is that on images made as the training images were; on others it may be far lower. `python -m mnist_lab robustness RUN`
shows what shifts, turns, noise and other changes cost it.

## Licence

The code is under the MIT licence. {LICENCES.get(source, f"The licence of {source} is for its owner to say.")}
Whether weights are bound by the licence of the data they were trained on is not settled; that is for you to judge.
"""


def preset(run: Run) -> str:
    """Return title, source and name of the preset that the run was started with, as far as it has them."""
    if not run.tutorial:
        return "none"
    title, source = run.tutorial.get("title"), run.tutorial.get("source")
    chosen = [override for override in run.info.get("overrides") or [] if override.startswith("experiment=")]
    parts = [f"“{title}”" if title else "", str(source or ""), *chosen[-1:]]
    return ", ".join(part for part in parts if part) or "a preset without a title"


def weights(run: Run) -> str:
    """Which of the run's weights these are."""
    chosen, tested, epochs = run.chosen_checkpoint().stem, run.info.get("tested") or {}, run.info.get("epochs")
    ended = tested.get("checkpoint") == chosen
    epoch = f"of epoch {tested['epoch']} of {epochs}" if ended else f"of a run that had not ended after {epochs}"
    how = "best by validation accuracy" if chosen == "best" else "the last"
    return f"{epoch}, {how}, seed {run.info.get('seed')}, run `{run.folder.absolute().name}`"


def accuracy(run: Run, measured: Measured | None) -> str:
    """Test accuracy, and what it was measured on."""
    if measured:
        return f"{measured.accuracy:.2%} on the {measured.images:,} test images, measured by running this file"
    recorded = (run.info.get("metrics") or {}).get("test/acc")
    return f"{recorded:.2%} on the test images, when the run ended" if recorded is not None else "not measured"


def check(measured: Measured) -> str:
    """How far the file is from the checkpoint."""
    return (
        f"the checkpoint's class for each of the {measured.images:,} test images; probabilities differ by at most "
        f"{measured.difference:.1e}, in batches of 1, 2, 7, 64 and 1,000"
    )


def in_and_out(network: Classifier, data: MNISTDataModule, *, inside: bool) -> str:
    """What the network takes and gives, and what happens to an image before; inside: within the file."""
    side = network.image_size
    made = (
        "An image is 28 by 28 bytes, 0 for the background and 255 for the ink, so white on black, as in the data set's "
        "own files. (A digit of MNIST fills a box of 20 by 20, with its centre of mass in the middle of the image.)"
    )
    steps = [f"x / 255, then minus {data.mean}, then divided by {data.std}"]
    if side != 28:
        steps.insert(
            0,
            f"resized to {side} by {side}: bilinear with antialiasing, on bytes, as torch's "
            f'`interpolate(mode="bilinear", antialias=True)` does it',
        )
    listed = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))
    if inside:
        return (
            f"In: `images`, uint8, (B, 28, 28), B from 1 on. "
            "Out: `probabilities`, float32, (B, 10), of the classes 0 to 9."
            f"\n\n{made}\n\n"
            f"Inside the file, each image x is\n\n{listed}\n\nand the network's scores go through a softmax."
        )
    scores = "log-probabilities" if network.loss == "nll" else "logits"
    return (
        f"In: float32, (B, 1, {side}, {side}), B from 1 on. Out: {scores}, float32, (B, 10), of the classes 0 to 9; "
        f"`.softmax(1)` makes probabilities of them.\n\n{made}\n\n"
        f"The file has the weights alone. Before the network, each image x has to be\n\n{listed}"
    )


def layers(network: Classifier) -> str:
    """The layers by name, as torch writes them."""
    return "\n".join(
        f"{name}: {layer}"
        for name, layer in network.named_modules()
        if name and not isinstance(layer, Metric) and not list(layer.children())
    )
