"""The model card beside an exported file: contents, accuracy, input and output, and how to load it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_lab.config.metric_names import TEST_ACC
from mnist_lab.config.overrides import override_key
from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.formatting import Markdown, code_span, escape_markdown, format_command, format_held_out, render_template
from mnist_lab.models.deployed import InferenceModule
from mnist_lab.runs.run import Run
from mnist_lab.training.build import num_classes_argument

LICENCES = {
    "MNIST": "MNIST (Yann LeCun, Corinna Cortes, Christopher Burges) is commonly given as under CC BY-SA 3.0, "
    "copyright of Yann LeCun and Corinna Cortes; its images come from NIST's Special Databases 1 and 3.",
    "FashionMNIST": "Fashion-MNIST (Zalando SE; Xiao, Rasul, Vollgraf, 2017) is under the MIT licence.",
    "KMNIST": "KMNIST (CODH, adapted from NIJL's Kuzushiji Dataset, doi:10.20676/00000341) is under CC BY-SA 4.0.",
    "QMNIST": "QMNIST (Facebook, Inc.; Yadav, Bottou, 2019) is under a BSD-style licence; its images come from NIST.",
}
NOT_CHECKED = "not made: there is no Chromium or Chrome on this machine to run the page"


@dataclass(frozen=True)
class ProgramResult:
    """The results of an exported program on the test set."""

    images: int
    accuracy: float  # from 0 to 1
    max_difference: float  # between its probabilities and the checkpoint's


def describe_constructor(cfg: DictConfig) -> dict[str, str]:
    """Return Python that makes a network as configured: imports, the constructor's call, and a line for its views."""
    settings: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    class_names: dict[str, set[str]] = {}  # The keys are modules.

    def expression(value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(expression, value))}]"
        if not isinstance(value, dict) or "_target_" not in value:
            return repr(value)
        module, _, name = value["_target_"].rpartition(".")
        class_names.setdefault(module, set()).add(name)
        arguments = [f"{key}={expression(argument)}" for key, argument in value.items() if not key.startswith("_")]
        return f"{name}({', '.join(arguments)})"

    call = expression(settings | num_classes_argument(cfg))
    views = OmegaConf.to_container(cfg.test_augmentation, resolve=True)
    set_views = f"network.views = {expression(views)}\n" if views else ""
    imports = [f"from {module} import {', '.join(sorted(names))}" for module, names in class_names.items()]
    return {"imports": "\n".join(imports), "call": call, "set_views": set_views}


def model_card(
    trained: TrainedRun, file: str, loading: str, measured: ProgramResult | None, *, is_program: bool
) -> str:
    """Render the card of a file in Markdown: a program, with its results if it was run, or weights."""
    run, network, data = trained.run, trained.model, trained.data
    info = run.info
    model, source = info["model"], str(data.source.name)
    held_out = getattr(data.source, "validation", None) or data.val_size
    parameters = sum(parameter.numel() for parameter in network.parameters())
    checked = NOT_CHECKED if is_program else ""
    if measured:
        checked = (
            f"the checkpoint's class for each of the {measured.images:,} test images; probabilities differ by at most "
            f"{measured.max_difference:.1e}, in batches of 1, 2, 7, 64 and 1,000"
        )
    facts = {
        "data": f"{source}; held out for validation: {format_held_out(held_out)}",
        "preset": describe_preset(run),
        "network": Markdown(f"{code_span(type(network).__name__)}, {parameters:,} parameters"),
        "weights": describe_weights(run),
        "accuracy": describe_accuracy(run, measured),
        "check": checked,
        "command": code_span(info["command"] or format_command([f"model={model}"])),
        "versions": ", ".join(f"{name} {version}" for name, version in info["versions"].items()),
    }
    return render_template(
        Path(__file__).with_name("model_card.md.j2"),
        file=file,
        model=model,
        source=source,
        facts=[fact for fact in facts.items() if fact[1]],
        loading=Markdown(loading),
        is_program=is_program,
        network=network,
        data=data,
        members=[(name, part) for name, part in network.named_modules() if isinstance(part, InferenceModule)],
        layers=[
            Markdown(f"{name}: {layer}")
            for name, layer in network.named_modules()
            if name and not list(layer.children())
        ],
        licence=LICENCES.get(source, f"The licence of {source} is decided by its owner."),
    )


def describe_preset(run: Run) -> str:
    """Return what is known of the run's preset: its title, source and name."""
    if not run.tutorial:
        return "none"
    title, source = run.tutorial.get("title"), run.tutorial.get("source")
    experiments = [override for override in run.info["overrides"] if override_key(override) == "experiment"]
    parts = [f"“{title}”" if title else "", str(source or ""), *experiments[-1:]]
    return ", ".join(part for part in parts if part) or "a preset without a title"


def describe_weights(run: Run) -> str:
    """Return the epoch, the kind of checkpoint, the seed and the folder of a run's tested weights."""
    info, checkpoint, folder = run.info, run.chosen_checkpoint().stem, code_span(run.folder.absolute().name)
    if members := info["members"]:
        return Markdown(f"of {len(members)} networks, whose probabilities are averaged, run {folder}")
    tested, epochs = info["tested"], info["epochs"]
    is_tested = tested is not None and tested["checkpoint"] == checkpoint
    epoch = f"of epoch {run.tested_epoch} of {epochs}" if is_tested else f"of an unfinished run, after {epochs} epochs"
    return Markdown(f"{epoch}, {escape_markdown(run.chosen_by())}, seed {info['seed']}, run {folder}")


def describe_accuracy(run: Run, measured: ProgramResult | None) -> str:
    """Return the test accuracy and how it was measured."""
    if measured:
        return f"{measured.accuracy:.2%} on the {measured.images:,} test images, measured by running this file"
    recorded = run.info["metrics"].get(TEST_ACC)
    if recorded is None:
        return "not measured"
    images = "part of the test images" if "test" in run.info["partial"] else "the test images"
    return f"{recorded:.2%} on {images}, when the run ended"
