"""The leaderboard: presets without a tutorial over several seeds, each run with a log, and their ensemble."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from mnist_lab.config.metric_names import EXAMPLES_SEEN
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.files import write_text
from mnist_lab.formatting import format_command, render_template
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.trial import dummy_images
from mnist_lab.reproduce.tutorials import changed_settings, commit_of, join_unique
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data

PAGE, RECORDS, LOGS = "RECORDS.md", "records.json", "logs"
HEADS = (
    "rank", "preset", "parameters", "test accuracy, %", "seeds", "ensemble, %", "seconds", "PFLOP", "date", "commit",
)  # fmt: skip
Log = dict[str, Any]  # a run of the leaderboard, or the ensemble of a preset's runs, as its file in logs/ has it


def write_leaderboard(found: Mapping[str, Sequence[Run]], out: Path) -> list[list[str]]:
    """Write page, records and logs of finished runs by preset into a folder; return the rows of HEADS, best first.

    The records and logs of other presets that the folder has already stay.
    """
    folder = out / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    for name, runs in found.items():
        for path in folder.glob(f"{name}-*.yaml"):
            path.unlink()
        for log in _make_logs(name, runs):
            label = f"seed{log['seeds'][0]}" if len(log["seeds"]) == 1 else "ensemble"
            text = yaml.safe_dump(log, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
            write_text(folder / f"{name}-{label}.yaml", text)
    records = read_logs(folder)
    write_text(out / RECORDS, json.dumps(records, indent=1) + "\n")
    write_text(out / PAGE, records_page(records))
    return _record_rows(records)


def _make_logs(name: str, runs: Sequence[Run]) -> list[Log]:
    """Evaluate a preset's finished runs, and their ensemble if they are several; return the log of each."""
    logs: list[Log] = []
    predictions: list[Predictions] = []
    for run in runs:
        network, info, epochs = load_trained_model(run), run.info, run.epochs()
        predictions.append(Predictions.on_test_set(network, make_data(run.config, network)))
        log: Log = {
            "preset": name,
            "seeds": [info["seed"] or 0],
            "changed": changed_settings(name, [run]),
            "command": format_command([f"experiment={name}", f"seed={info['seed']}"]),
            "parameters": info["parameters"] or 0,
            # floating-point operations of training, in 10^15
            "pflop": round(flop_per_image(network) * epochs[-1].get(EXAMPLES_SEEN, 0) / 1e15, 6) if epochs else 0.0,
            "seconds": round(info["seconds"]["fit"], 1),
            "date": (info["started"] or "")[:10],
            "commit": commit_of(info),
            "versions": info["versions"],
            "processor": info["processor"] or "unknown",
            "device": info["device"] or "unknown",
            "epochs": epochs,
            "images": len(predictions[-1].labels),
            "wrong": _wrong_classes(predictions[-1]),
        }
        logs.append(log)
    if len(runs) > 1:
        probabilities = torch.stack([each.probabilities for each in predictions]).mean(0)
        seeds = [seed for log in logs for seed in log["seeds"]]
        ensemble = {
            **logs[0],
            "seeds": seeds,
            "command": format_command(["reproduce", name, "--seeds", format_seeds(seeds)]),
            "parameters": sum(log["parameters"] for log in logs),
            "pflop": round(sum(log["pflop"] for log in logs), 6),
            "seconds": round(sum(log["seconds"] for log in logs), 1),
            "date": max(log["date"] for log in logs),
            "commit": join_unique(log["commit"] for log in logs),
            "epochs": [],
            "wrong": _wrong_classes(Predictions(predictions[0].labels, probabilities)),
        }
        logs.append(ensemble)
    return logs


def _wrong_classes(predictions: Predictions) -> dict[int, int]:
    """Return the predicted class of each image that is predicted wrong, by its number in the test set."""
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


def format_seeds(seeds: Sequence[int]) -> str:
    """Return the shortest text for --seeds that names these seeds, and any others between the first and the last."""
    first, last = min(seeds), max(seeds)
    return str(last) if first == 1 else f"{first}-{last}"


def read_logs(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all presets whose logs are in a folder, best first."""
    by_preset: dict[str, list[Log]] = {}
    for path in sorted(folder.glob("*.yaml")):
        log: Log = yaml.safe_load(path.read_text(encoding="utf-8"))
        by_preset.setdefault(log["preset"], []).append(log)
    records = [summarise_logs(sorted(logs, key=lambda log: log["seeds"])) for logs in by_preset.values()]
    return sorted(records, key=lambda record: -record["mean"])


def summarise_logs(logs: Sequence[Log]) -> dict[str, Any]:
    """Return a preset's entry of records.json from the logs of its runs and of their ensemble."""
    single = [log for log in logs if len(log["seeds"]) == 1]
    together = [accuracy(log) for log in logs if len(log["seeds"]) > 1]
    accuracies, first, seeds = [accuracy(log) for log in single], single[0], [log["seeds"][0] for log in single]
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
        "ensemble": together[0] if together else None,
        "seconds": round(statistics.fmean(log["seconds"] for log in single), 1),
        "pflop": first["pflop"],
        "date": max(log["date"] for log in single),
        "commit": join_unique(log["commit"] for log in single),
        "processor": join_unique(log["processor"] for log in single),
        "device": join_unique(log["device"] for log in single),
    }


def accuracy(log: Log) -> float:
    """Return a log's test accuracy in per cent."""
    return float(round(100 * (1 - len(log["wrong"]) / log["images"]), 6))


def records_page(records: Sequence[Mapping[str, Any]]) -> str:
    """Render RECORDS.md."""
    path = Path(__file__).with_name("records.md.j2")
    return render_template(path, heads=HEADS, rows=_record_rows(records), records=records)


def _record_rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            str(rank),
            record["preset"],
            f"{record['parameters']:,}",
            f"{record['mean']:.3f}" + ("" if record["std"] is None else f" ± {record['std']:.3f}"),
            str(len(record["seeds"])),
            "-" if record["ensemble"] is None else f"{record['ensemble']:.2f}",
            f"{record['seconds']:.1f}",
            f"{record['pflop']:.4f}",
            record["date"],
            record["commit"],
        ]
        for rank, record in enumerate(records, start=1)
    ]
