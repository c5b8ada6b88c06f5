"""The main job, from a configuration to a finished run folder. Read from top to bottom, it is the design."""

from __future__ import annotations

import logging
import re
import statistics
import time
import warnings
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]
from omegaconf import DictConfig
from rich.table import Table

from mnist_lab import figures
from mnist_lab.callbacks import console
from mnist_lab.check import callbacks_of, check
from mnist_lab.checkpoints import SafeCheckpointIO, read_checkpoint, weights_for
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import BadInput
from mnist_lab.metrics_csv import MetricsCSV
from mnist_lab.models.classifier import Classifier
from mnist_lab.record import device_name, now, recorded
from mnist_lab.runs import Run


def quiet_lightning() -> None:
    """Lightning's messages go where ours go, and what it warns of that no user could change is not said."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Lightning 2.6 asks torch 2.15 in a way that torch is giving up.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
    # No validation set: data.val_size=0 asks for that.
    warnings.filterwarnings("ignore", r"Total length of `list` across ranks is zero")
    # It is meant to, when a run is resumed; a folder that holds another run is refused before.
    warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")


def train(cfg: DictConfig) -> Run:
    """Train the network that a configuration describes, test it, and leave it all in the run folder cfg.folder.

    What is tested is the best epoch's weights by validation accuracy, or the last where there is no validation set.

    Raises:
        BadInput: a setting, a checkpoint, the data or a folder cannot be used; no run was started.
        DataUnavailable: the data set could not be had; no run was started.
    """
    started = time.perf_counter()
    quiet_lightning()
    check(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    model = make_model(cfg)
    if cfg.init_from and not cfg.resume:
        model.load_state_dict(weights_for(model, cfg.init_from, key="init_from="))
    resumed = resumable(cfg, model)
    data = make_data(cfg, model)
    data.prepare_data()

    with recorded(cfg, parameters=sum(parameter.numel() for parameter in model.parameters())) as run:
        metrics_csv = MetricsCSV(run.folder)
        if resumed is not None:
            metrics_csv.go_on_from(resumed["global_step"])
        trainer = make_trainer(cfg, metrics_csv)
        fit_started = time.perf_counter()
        trainer.fit(model, data, ckpt_path=cfg.resume)
        fit_seconds = time.perf_counter() - fit_started
        if run.checkpoint("last") is None:  # trainer.max_epochs=0, say: what it started from
            trainer.save_checkpoint(run.folder / "checkpoints" / "last.ckpt")
        chosen = "last" if run.checkpoint("best") is None else "best"
        model.load_state_dict(weights_for(model, run.folder / "checkpoints" / f"{chosen}.ckpt"))
        (tested,) = trainer.test(model, data, verbose=False)
        seconds = {"total": time.perf_counter() - started, "fit": fit_seconds}
        conclude(run, trainer, tested, chosen=chosen, seconds=seconds)
        draw(run, model, data)
    show(run)
    return run


def make_model(cfg: DictConfig) -> Classifier:
    """The network, with its optimizer and scheduler to be made when training starts."""
    model: Classifier = instantiate(cfg.model)
    model.optimizer = instantiate(cfg.optimizer, _convert_="all")
    model.scheduler = instantiate(cfg.scheduler, _convert_="all") or None
    return model


def make_data(cfg: DictConfig, model: Classifier) -> MNISTDataModule:
    """The data module, at the image size that the network takes."""
    data: MNISTDataModule = instantiate(cfg.data, image_size=model.image_size, seed=cfg.seed, _convert_="all")
    return data


def make_trainer(cfg: DictConfig, metrics_csv: MetricsCSV) -> pl.Trainer:
    """Lightning's Trainer with the configured callbacks and loggers, metrics.csv and safe checkpoints."""
    try:
        trainer: pl.Trainer = instantiate(
            cfg.trainer,
            callbacks=[instantiate(callback) for callback in callbacks_of(cfg).values()],
            logger=[metrics_csv, *(instantiate(logger) for logger in cfg.logger.values() if logger)],
            plugins=[SafeCheckpointIO()],
            default_root_dir=cfg.folder,
            enable_progress_bar=False,  # callbacks.progress and callbacks.summary take their place
            enable_model_summary=False,
            _convert_="all",
        )
    except MisconfigurationException as error:
        raise BadInput(f"trainer: {error}") from error
    return trainer


def resumable(cfg: DictConfig, model: Classifier) -> dict[str, Any] | None:
    """The checkpoint that cfg.resume names, if it fits the network and leaves something to do."""
    if not cfg.resume:
        return None
    weights_for(model, cfg.resume, key="resume=")
    checkpoint = read_checkpoint(cfg.resume)
    if "global_step" not in checkpoint:
        raise BadInput(f"resume={cfg.resume}: holds weights alone; init_from={cfg.resume} starts a new run from them")
    done = checkpoint["epoch"] + 1
    if cfg.trainer.max_epochs < done:
        raise BadInput(f"trainer.max_epochs={cfg.trainer.max_epochs}: {cfg.resume} has done {done} epochs already")
    return checkpoint


@rank_zero_only
def conclude(
    run: Run, trainer: pl.Trainer, tested: Mapping[str, float], *, chosen: str, seconds: dict[str, float]
) -> None:
    """Write the finished run's record: its metrics are those of the epoch whose weights were tested."""
    epochs = run.epochs()
    checkpoint = run.checkpoint(chosen)
    epoch = read_checkpoint(checkpoint)["epoch"] if checkpoint and epochs else -1
    (row,) = [row for row in epochs if row["epoch"] == epoch] or [{}]
    speeds = [row["images_per_second"] for row in epochs if "images_per_second" in row]
    run.update(
        status="finished",
        finished=now(),
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        tested={"checkpoint": chosen, "epoch": epoch + 1},
        metrics={name: row[name] for name in row if re.fullmatch(r"(train|val)/(?!loss_step).*", name)} | dict(tested),
        seconds=seconds,
        images_per_second=statistics.fmean(speeds) if speeds else None,
        device=device_name(trainer),
        checkpoints={name: f"checkpoints/{name}.ckpt" if run.checkpoint(name) else None for name in ("best", "last")},
    )


@rank_zero_only
def draw(run: Run, model: Classifier, data: MNISTDataModule) -> None:
    """Save the run's figures as PNG."""
    folder = run.folder / "figures"
    folder.mkdir(exist_ok=True)
    images, labels = data.examples(16)
    truths, predictions = labels.tolist(), model.predict(images).tolist()
    figures.curves(run).savefig(folder / "curves.png", dpi=150)
    figures.digits(images[:9], truths[:9]).savefig(folder / "truths.png", dpi=150)
    figures.digits(images, truths, predictions, columns=4).savefig(folder / "predictions.png", dpi=150)


@rank_zero_only
def show(run: Run) -> None:
    """Print the results; the last line names the run folder."""
    info = run.info
    table = Table(
        "set",
        title=f"{info['model']}, weights of epoch {info['tested']['epoch']} ({info['tested']['checkpoint']})",
    )
    table.add_column("loss", justify="right")
    table.add_column("accuracy", justify="right")
    for name, words in (("train", "training, while learning"), ("val", "validation"), ("test", "test")):
        if f"{name}/loss" in info["metrics"]:
            loss, accuracy = info["metrics"][f"{name}/loss"], info["metrics"][f"{name}/acc"]
            table.add_row(words, f"{loss:.4f}", f"{accuracy:.2%}")
    console.print(table)
    console.print(f"{info['epochs']} epochs in {info['seconds']['total']:.1f} s")
    console.print(f"run folder: {run}", soft_wrap=True)
