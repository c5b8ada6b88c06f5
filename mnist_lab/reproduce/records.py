"""The leaderboard: presets without a tutorial over several seeds, each run with a log, and their ensemble."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from mnist_lab.config.metric_names import EXAMPLES_SEEN
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.files import write_text
from mnist_lab.formatting import format_command, render_template
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.trial import dummy_images
from mnist_lab.reproduce.seeds import format_seeds
from mnist_lab.reproduce.summary import changed_settings, commit_of, join_unique
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data

PAGE, RECORDS, LOGS = "RECORDS.md", "records.json", "logs"
HEADS = (
    "rank", "preset", "parameters", "test accuracy, %", "seeds", "ensemble, %", "seconds", "PFLOP", "date", "commit",
)  # fmt: skip


class Log(TypedDict):
    """A run of the leaderboard, or the ensemble of a preset's runs, as its file in logs/ has it.

    Attributes:
        preset: the preset's name.
        seeds: of the run, or of the ensemble's members.
        changed: the settings that are not the preset's.
        command: that trains it again.
        parameters: of all members.
        pflop: floating-point operations of training, in 10^15.
        seconds: of training and validation.
        date: of the start.
        commit, versions, processor, device: what it was made with.
        epochs: the rows of metrics.csv at the ends of epochs.
        images: the number of test images.
        wrong: the predicted class of each test image that is predicted wrong, by its number in the test set.
    """

    preset: str
    seeds: list[int]
    changed: list[str]
    command: str
    parameters: int
    pflop: float
    seconds: float
    date: str
    commit: str
    versions: dict[str, str]
    processor: str
    device: str
    epochs: list[dict[str, float]]
    images: int
    wrong: dict[int, int]


class Record(TypedDict):
    """A preset's line of the leaderboard; accuracies are in per cent."""

    preset: str
    command: str
    changed: list[str]
    parameters: int
    seeds: list[int]
    mean: float
    std: float | None
    min: float
    max: float
    ensemble: float | None
    seconds: float
    pflop: float
    date: str
    commit: str
    processor: str
    device: str


def accuracy(log: Log) -> float:
    """Return a log's test accuracy in per cent."""
    return round(100 * (1 - len(log["wrong"]) / log["images"]), 6)


def make_logs(name: str, runs: Sequence[Run]) -> list[Log]:
    """Evaluate a preset's finished runs, and their ensemble if they are several; return the log of each."""
    logs, predictions = [], []
    for run in runs:
        network = load_trained_model(run)
        predictions.append(Predictions.on_test_set(network, make_data(run.config, network)))
        logs.append(_log_run(name, run, network, predictions[-1]))
    if len(runs) > 1:
        probabilities = torch.stack([each.probabilities for each in predictions]).mean(0)
        logs.append(_log_ensemble(logs, Predictions(predictions[0].labels, probabilities)))
    return logs


def _log_run(name: str, run: Run, network: Classifier, predictions: Predictions) -> Log:
    info, epochs = run.info, run.epochs()
    return {
        "preset": name,
        "seeds": [info["seed"] or 0],
        "changed": changed_settings(name, [run]),
        "command": format_command([f"experiment={name}", f"seed={info['seed']}"]),
        "parameters": info["parameters"] or 0,
        "pflop": round(flop_per_image(network) * epochs[-1].get(EXAMPLES_SEEN, 0) / 1e15, 6) if epochs else 0.0,
        "seconds": round(info["seconds"]["fit"], 1),
        "date": (info["started"] or "")[:10],
        "commit": commit_of(info),
        "versions": info["versions"],
        "processor": info["processor"] or "unknown",
        "device": info["device"] or "unknown",
        "epochs": epochs,
        "images": len(predictions.labels),
        "wrong": wrong_classes(predictions),
    }


def _log_ensemble(members: Sequence[Log], predictions: Predictions) -> Log:
    first = members[0]
    seeds = [seed for log in members for seed in log["seeds"]]
    return {
        **first,
        "seeds": seeds,
        "command": format_command(["reproduce", first["preset"], "--seeds", format_seeds(seeds)]),
        "parameters": sum(log["parameters"] for log in members),
        "pflop": round(sum(log["pflop"] for log in members), 6),
        "seconds": round(sum(log["seconds"] for log in members), 1),
        "date": max(log["date"] for log in members),
        "commit": join_unique(log["commit"] for log in members),
        "epochs": [],
        "images": len(predictions.labels),
        "wrong": wrong_classes(predictions),
    }


def wrong_classes(predictions: Predictions) -> dict[int, int]:
    """Return the predicted class of each image that is predicted wrong, by its number."""
    places = (predictions.predicted != predictions.labels).nonzero().squeeze(1).tolist()
    return {place: int(predictions.predicted[place]) for place in places}


def flop_per_image(network: Classifier) -> float:
    """Return the floating-point operations of training for an image: forward and backward, as torch counts them.

    The network is left as it was, but for its gradients.
    """
    images = dummy_images(network)
    network.eval()  # batch normalisation's statistics do not change
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return float(counter.get_total_flops()) / len(images)


def summarise_logs(logs: Sequence[Log]) -> Record:
    """Return a preset's line of the leaderboard from the logs of its runs and of their ensemble."""
    single = [log for log in logs if len(log["seeds"]) == 1]
    together = [log for log in logs if len(log["seeds"]) > 1]
    accuracies, first = [accuracy(log) for log in single], single[0]
    seeds = [log["seeds"][0] for log in single]
    return {
        "preset": first["preset"],
        "command": format_command(["reproduce", first["preset"], "--seeds", format_seeds(seeds)]),
        "changed": sorted({setting for log in single for setting in log["changed"]}),
        "parameters": first["parameters"],
        "seeds": seeds,
        "mean": round(statistics.fmean(accuracies), 6),
        "std": round(statistics.stdev(accuracies), 6) if len(accuracies) > 1 else None,
        "min": min(accuracies),
        "max": max(accuracies),
        "ensemble": accuracy(together[0]) if together else None,
        "seconds": round(statistics.fmean(log["seconds"] for log in single), 1),
        "pflop": first["pflop"],
        "date": max(log["date"] for log in single),
        "commit": join_unique(log["commit"] for log in single),
        "processor": join_unique(log["processor"] for log in single),
        "device": join_unique(log["device"] for log in single),
    }


def write_records(found: Mapping[str, Sequence[Run]], out: Path) -> list[Record]:
    """Write the leaderboard's page, its records and a log of each run; return the records, best first.

    The records and logs of other presets that the folder has already stay.

    Args:
        found: the finished runs by preset.
        out: the folder.
    """
    folder = out / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    for name, runs in found.items():
        for path in folder.glob(f"{name}-*.yaml"):
            path.unlink()
        for log in make_logs(name, runs):
            write_text(
                folder / log_name(log),
                yaml.safe_dump(log, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None),
            )
    records = read_logs(folder)
    write_text(out / RECORDS, json.dumps(records, indent=1) + "\n")
    write_text(out / PAGE, records_page(records))
    return records


def log_name(log: Log) -> str:
    """Return the name of a log's file."""
    seeds = log["seeds"]
    return f"{log['preset']}-seed{seeds[0]}.yaml" if len(seeds) == 1 else f"{log['preset']}-ensemble.yaml"


def read_logs(folder: Path) -> list[Record]:
    """Return the records of all presets whose logs are in a folder, best first."""
    by_preset: dict[str, list[Log]] = {}
    for path in sorted(folder.glob("*.yaml")):
        log: Log = yaml.safe_load(path.read_text(encoding="utf-8"))
        by_preset.setdefault(log["preset"], []).append(log)
    records = [summarise_logs(sorted(logs, key=lambda log: log["seeds"])) for logs in by_preset.values()]
    return sorted(records, key=lambda record: -record["mean"])


def record_cells(rank: int, record: Record) -> list[str]:
    """Return a preset's cells of the table with HEADS."""
    spread = "" if record["std"] is None else f" ± {record['std']:.3f}"
    return [
        str(rank),
        record["preset"],
        f"{record['parameters']:,}",
        f"{record['mean']:.3f}{spread}",
        str(len(record["seeds"])),
        "-" if record["ensemble"] is None else f"{record['ensemble']:.2f}",
        f"{record['seconds']:.1f}",
        f"{record['pflop']:.4f}",
        record["date"],
        record["commit"],
    ]


def records_page(records: Sequence[Record]) -> str:
    """Render RECORDS.md."""
    rows = [record_cells(rank, record) for rank, record in enumerate(records, start=1)]
    return render_template(Path(__file__).with_name("records.md.j2"), heads=HEADS, rows=rows, records=records)
