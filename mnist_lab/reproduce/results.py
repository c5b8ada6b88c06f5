"""The results of presets over several seeds: tutorials beside their published figures, others on a leaderboard."""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mnist_lab.config.compose import compose
from mnist_lab.config.metric_names import EXAMPLES_SEEN, METRIC_NAMES, TEST_ACC, is_accuracy
from mnist_lab.config.settings import format_differences
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.files import write_text
from mnist_lab.formatting import format_command, render_template
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.dummy_batch import dummy_images
from mnist_lab.runs.record import RunRecord
from mnist_lab.runs.run import Run
from mnist_lab.training.distillation import set_up_teacher
from mnist_lab.viz.axes import finish_axes, plot_means, show_end
from mnist_lab.viz.curves import METRICS, SETS, plot_published
from mnist_lab.viz.save import write_figure
from mnist_lab.viz.style import COLOURS, set_title, styled

TOLERANCE = 0.3  # A mean test accuracy is "reached" if it is at most this many points below the published one.
TUTORIALS, SUMMARY = "RESULTS.md", "results.json"
LEADERBOARD, RECORDS, LOGS = "RECORDS.md", "records.json", "logs"
Log = dict[str, Any]  # the content of a file in logs/, of a run or of the ensemble of a preset's runs


def write_tutorials(presets: Mapping[str, Sequence[Run]], out: Path) -> str:
    """Write the summary, page and figures of the finished runs of presets into a folder, and return the page."""
    summary = {name: summarise(name, runs) for name, runs in presets.items()}
    for name, row in summary.items():
        write_figure(plot_reproduction(name, row), out / f"{name}.png")
    write_text(out / SUMMARY, json.dumps(summary, indent=1) + "\n")
    page = results_page(summary)
    write_text(out / TUTORIALS, page)
    return page


def summarise(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Summarise a preset's finished runs for results.json, with accuracies in per cent and curves by epoch and seed."""
    infos = [run.info for run in runs]
    preset = compose(f"experiment={name}", config_dir=infos[0]["config_dir"])
    tutorial: dict[str, Any] = OmegaConf.to_container(preset.tutorial)  # type: ignore[assignment]
    published = {metric: y for metric, y in (tutorial.get("published") or {}).items() if metric in METRIC_NAMES}
    epochs = max(info["epochs"] for info in infos)
    curves = {metric: _curves_by_epoch(metric, runs, epochs) for metric in METRIC_NAMES}
    seconds = [info["seconds"]["total"] for info in infos]
    changed = changed_settings(name, runs)
    accuracy = spread([round(100 * info["metrics"][TEST_ACC], 6) for info in infos])
    return {
        "command": f"python -m mnist_lab experiment={name}",
        "changed": changed,
        **{key: tutorial.get(key) for key in ("title", "source", "explained_by", "disagreements")},
        "published": published,
        "epochs": epochs,
        "seeds": [info["seed"] or 0 for info in infos],
        "test_acc": _compare_accuracy(accuracy, published.get(TEST_ACC, []), changed),
        "curves": curves,
        "seconds": {"mean": statistics.fmean(seconds), "min": min(seconds), "max": max(seconds)},
        "device": join_unique(info["device"] for info in infos),
        "processor": join_unique(info["processor"] for info in infos),
        "versions": {key: join_unique(info["versions"].get(key) for info in infos) for key in infos[0]["versions"]},
        "commits": join_unique(map(describe_commit, infos)),
    }


def _curves_by_epoch(metric: str, runs: Sequence[Run], epochs: int) -> list[list[float]]:
    """Return the values of a metric by epoch, each in the order of the runs that have one."""
    factor, curves = 100 if is_accuracy(metric) else 1, [run.curve(metric) for run in runs]
    return [[round(factor * curve[epoch], 6) for curve in curves if epoch in curve] for epoch in range(epochs + 1)]


def _compare_accuracy(
    accuracy: Mapping[str, Any], published: Sequence[float | None], changed: Sequence[str]
) -> dict[str, Any]:
    """Return the final test accuracy, compared with the last published one unless settings were changed."""
    target = published[-1] if published else None
    entry = {"published": target, **accuracy}
    if target is None or changed:
        verdict = f"not compared: {', '.join(changed) or 'nothing was published'}"
        return {**entry, "difference": None, "verdict": verdict}
    difference = round(accuracy["mean"] - target, 6)
    verdict = "reached" if difference >= -TOLERANCE else f"missed by {-TOLERANCE - difference:.2f}"
    return {**entry, "difference": difference, "verdict": verdict}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean, the standard deviation (None for one value), and the ends of the range."""
    std = round(statistics.stdev(values), 6) if len(values) > 1 else None
    return {"mean": round(statistics.fmean(values), 6), "std": std, "min": min(values), "max": max(values)}


def changed_settings(name: str, runs: Sequence[Run]) -> list[str]:
    """Return the settings in which runs differ from their preset."""
    preset = compose(f"experiment={name}", config_dir=runs[0].info["config_dir"])
    differences = [difference for run in runs for difference in format_differences(preset, run.config).items()]
    return list(dict.fromkeys(f"{key}={value}" for key, (_, value) in differences if key != "seed"))


def describe_commit(info: RunRecord) -> str:
    """Return the commit of the code that trained a run, and whether files were changed."""
    git = info["git"] or {"commit": "unknown", "changed": False}
    return str(git["commit"])[:12] + (" and changes" if git["changed"] else "")


def join_unique(values: Iterable[Any]) -> str:
    """Join the distinct values with commas."""
    return ", ".join(dict.fromkeys(map(str, values)))


def results_page(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Render RESULTS.md from the content of results.json."""
    return render_template(
        Path(__file__).with_name("results.md.j2"),
        tolerance=TOLERANCE,
        summary=summary,
        epochs={name: _epoch_table(row) for name, row in summary.items()},
        format_mean=_format_mean,
        join_unique=join_unique,
    )


def _format_mean(accuracy: Mapping[str, Any]) -> str:
    return f"{accuracy['mean']:.2f}" + ("" if accuracy["std"] is None else f" ± {accuracy['std']:.2f}")


def _epoch_table(row: Mapping[str, Any]) -> list[list[str]]:
    """Return heads and a row for each epoch with a published figure; for each metric: published, here, difference."""
    heads, rows = ["epoch"], []
    for metric in row["published"]:
        label = f"{metric.split('/')[0]} {'accuracy, %' if is_accuracy(metric) else 'loss'}"
        heads += [f"published {label}", label, f"difference of {label}"]
    for epoch in range(row["epochs"] + 1):
        cells: list[str] = []
        for metric, figures in row["published"].items():
            published = figures[epoch] if epoch < len(figures) else None
            cells += _compare_values(metric, published, row["curves"][metric][epoch])
        if any(cells):
            rows.append([str(epoch), *cells])
    return [heads, *rows] if rows else []


def _compare_values(metric: str, published: float | None, values: Sequence[float]) -> tuple[str, str, str]:
    """Format a published figure, the mean ± deviation of values, and the difference; empty if anything is missing."""
    if published is None or not values:
        return "", "", ""
    mean, digits = statistics.fmean(values), 2 if is_accuracy(metric) else 4
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{published:.{digits}f}", f"{mean:.{digits}f}{deviation}", f"{mean - published:+.{digits}f}"


@styled
def plot_reproduction(name: str, row: Mapping[str, Any]) -> Figure:
    """Plot a preset's mean and range over its seeds, and the published points."""
    seeds = len(row["seeds"])
    figure = Figure(figsize=(9, 4.2))
    set_title(figure, f"{name}: mean and range of {seeds} seed{'s' * (seeds > 1)}, published figures as crosses")
    for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
        for kind, words in SETS.items():
            by_epoch = enumerate(row["curves"].get(f"{kind}/{metric}", []))
            curve = {epoch: values for epoch, values in by_epoch if epoch > 0 and values}
            if curve:
                plot_means(axes, curve, "--" if kind == "train" else "-", COLOURS[kind], label=words)
            plot_published(axes, row, f"{kind}/{metric}")
        show_end(axes, metric)
        finish_axes(axes, "epoch", METRICS[metric][0])
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16))
    return figure


def write_leaderboard(presets: Mapping[str, Sequence[Run]], out: Path) -> str:
    """Write page, records and logs of presets into a folder, keeping other rows' logs, and return the page."""
    folder = out / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    for name, runs in presets.items():
        logs = _make_logs(name, runs)
        for path, log in _logs(folder).items():
            if _row(log) == _row(logs[0]):
                path.unlink()
        for log in logs:
            label = f"seed{log['seeds'][0]}" if len(log["seeds"]) == 1 else f"seeds{format_seeds(log['seeds'])}"
            text = yaml.safe_dump(log, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
            write_text(folder / f"{_file_prefix(log)}-{label}.yaml", text)
    records = read_logs(folder)
    write_text(out / RECORDS, json.dumps(records, indent=1) + "\n")
    page = records_page(records)
    write_text(out / LEADERBOARD, page)
    return page


def _make_logs(name: str, runs: Sequence[Run]) -> list[Log]:
    """Evaluate a preset's finished runs, and their ensemble if there are several, and return the log of each."""
    logs: list[Log] = []
    probabilities: list[Tensor] = []
    for run in runs:
        trained, info, epochs = TrainedRun(run), run.info, run.epochs()
        set_up_teacher(run.config, trained.model)
        predictions = trained.predictions
        probabilities.append(predictions.probabilities)
        examples = epochs[-1].get(EXAMPLES_SEEN, 0) if epochs else 0
        changed = changed_settings(name, [run])
        log: Log = {
            "preset": name,
            "seeds": [info["seed"] or 0],
            "changed": changed,
            "command": format_command([f"experiment={name}", f"seed={info['seed']}", *changed]),
            "parameters": info["parameters"] or 0,
            # The floating-point operations of training, in 10^15.
            "pflop": round(flop_per_image(trained.model) * examples / 1e15, 6),
            "seconds": round(info["seconds"]["fit"], 1),
            "date": (info["started"] or "")[:10],
            "commit": describe_commit(info),
            "versions": info["versions"],
            "processor": info["processor"] or "unknown",
            "device": info["device"] or "unknown",
            "epochs": epochs,
            "images": len(predictions.labels),
            "wrong": _wrong_classes(predictions),
        }
        logs.append(log)
    if len(runs) > 1:
        ensemble = replace(predictions, probabilities=torch.stack(probabilities).mean(0))
        logs.append({**logs[0], **_combine(logs), "epochs": [], "wrong": _wrong_classes(ensemble)})
    return logs


def _combine(logs: Sequence[Log]) -> Log:
    """Return the entries of an ensemble's log that follow from the logs of its networks."""
    first, seeds = logs[0], [log["seeds"][0] for log in logs]
    return {
        "seeds": seeds,
        "command": format_command(["reproduce", first["preset"], "--seeds", format_seeds(seeds), *first["changed"]]),
        "parameters": sum(log["parameters"] for log in logs),
        "pflop": round(sum(log["pflop"] for log in logs), 6),
        "seconds": round(sum(log["seconds"] for log in logs), 1),
        "date": max(log["date"] for log in logs),
        "commit": join_unique(log["commit"] for log in logs),
    }


def _wrong_classes(predictions: Predictions) -> dict[int, int]:
    """Return the predicted class of each wrongly classified image, by the image's number in the test set."""
    numbers = (predictions.predicted != predictions.labels).nonzero().squeeze(1).tolist()
    return {number: int(predictions.predicted[number]) for number in numbers}


def flop_per_image(network: Classifier) -> float:
    """Return the floating-point operations to train on an image, with those of the teacher; the gradients change."""
    images = dummy_images(network)
    network.eval()  # In training mode, the statistics of batch normalisation would change.
    with FlopCounterMode(display=False) as counter:
        loss = network.objective(images, network(images), torch.zeros(len(images), dtype=torch.long))
        loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / len(images)


def format_seeds(seeds: Sequence[int]) -> str:
    """Return the shortest value of --seeds that covers these seeds."""
    first, last = min(seeds), max(seeds)
    return str(last) if first == 1 else f"{first}-{last}"


def read_logs(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all rows whose logs are in a folder, best first."""
    rows: dict[Any, list[Log]] = {}
    for log in _logs(folder).values():
        rows.setdefault(_row(log), []).append(log)
    records = [summarise_logs(sorted(logs, key=lambda log: log["seeds"])) for logs in rows.values()]
    return sorted(records, key=lambda record: -record["mean"])


def _logs(folder: Path) -> dict[Path, Log]:
    return {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))}


def _row(log: Log) -> tuple[str, ...]:
    """Return what distinguishes a log's row of the leaderboard: the preset, and changed settings."""
    return log["preset"], *log["changed"]


def _file_prefix(log: Log) -> str:
    """Return how the names of a row's logs begin, so that rows with the same seeds have files of their own."""
    return re.sub(r"[^\w.=-]+", "-", "-".join(_row(log)))[:150]


def summarise_logs(logs: Sequence[Log]) -> dict[str, Any]:
    """Return a row's entry of records.json from the logs of its runs and of their ensemble."""
    single = [log for log in logs if len(log["seeds"]) == 1]
    ensembles = [log for log in logs if len(log["seeds"]) > 1]
    first, combined = single[0], _combine(single)
    return {
        "preset": first["preset"],
        "command": combined["command"],
        "changed": first["changed"],
        "parameters": first["parameters"],
        "seeds": combined["seeds"],
        **spread([compute_accuracy(log) for log in single]),
        "ensemble": compute_accuracy(ensembles[0]) if ensembles else None,
        "seconds": round(statistics.fmean(log["seconds"] for log in single), 1),
        "pflop": first["pflop"],
        "date": combined["date"],
        "commit": combined["commit"],
        "processor": join_unique(log["processor"] for log in single),
        "device": join_unique(log["device"] for log in single),
    }


def compute_accuracy(log: Log) -> float:
    """Return a log's test accuracy in per cent."""
    return float(round(100 * (1 - len(log["wrong"]) / log["images"]), 6))


def records_page(records: Sequence[Mapping[str, Any]]) -> str:
    """Render RECORDS.md."""
    return render_template(Path(__file__).with_name("records.md.j2"), records=records)
