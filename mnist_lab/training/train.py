"""The main job, from a configuration to a finished run folder; read it from top to bottom."""

import math
import shlex
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from mnist_lab.config.metric_names import IMAGES_PER_SECOND, TRAIN_ACC, TRAIN_LOSS_STEP, VAL_ACC
from mnist_lab.config.validate import validate
from mnist_lab.console import working_on
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.summary import print_summary
from mnist_lab.errors import UsageError
from mnist_lab.files import sync_tree
from mnist_lab.formatting import format_count, print_warning
from mnist_lab.models.classifier import Classifier, NotFinite
from mnist_lab.models.dummy_batch import check_output
from mnist_lab.runs.checkpoints import checkpoint_epoch, completed_epochs, load_weights, read_checkpoint
from mnist_lab.runs.locks import run_lock
from mnist_lab.runs.record import NOT_FINITE_REMEDY, RunRecord, RunState, current_time
from mnist_lab.runs.run import Run
from mnist_lab.training.build import (
    check_batch_limits,
    complete_data,
    instantiate_node,
    keep_data_settings,
    make_data,
    make_trainable_model,
    make_trainer,
    set_up_classes,
)
from mnist_lab.training.callbacks import ElapsedTime, PauseAfter
from mnist_lab.training.checkpointing import check_optimizer_state, explain_failed_restore
from mnist_lab.training.distillation import set_up_teacher
from mnist_lab.training.loggers import restore_logs, tensorboard_writers
from mnist_lab.training.multistep import MultiStep, choose_group_size, find_callbacks
from mnist_lab.training.progress import print_status, results_table
from mnist_lab.training.record import device_name, record_run
from mnist_lab.training.runtime import explain_batch_size_errors, guest, is_first_process
from mnist_lab.training.trackers import track

ENOUGH_STEPS = 300  # In fewer, even a small network may learn nothing.
CURVES = "http://localhost:6006/#custom_scalars&_smoothingWeight=0"  # the chosen charts, without smoothing
LIMITS = ("limit_train_batches", "overfit_batches", "max_time")


@guest()
def train(cfg: DictConfig) -> Run:
    """Train and test the network that a configuration describes, in the run folder cfg.folder.

    The test uses the weights of the epoch that is best by callbacks.best.monitor, or the last epoch's without a
    validation set. The process is left as it was found: random generators, threads, environment, warnings filters,
    signal handlers.

    Args:
        cfg: a job's configuration, as `compose` returns it.

    Returns:
        The finished run.

    Raises:
        UsageError: a setting, a checkpoint, the data or a folder is invalid; no run was started.
        DataUnavailable: the data set cannot be loaded or downloaded; no run was started.
        KeyboardInterrupt: Ctrl-C, or an interrupted cell of a notebook; the run has saved, and can be resumed.
    """
    run = Run(Path(cfg.folder))
    resumed = run.config if cfg.resume else None
    unknown = validate(cfg, resumed)
    if unknown and is_first_process():
        names = ", ".join(unknown)
        print_warning(f"resume={cfg.resume}: continues without settings that this version does not know: {names}")
    if resumed:
        cfg = keep_data_settings(cfg, resumed)
    # An earlier run's folder is locked before its checkpoint is read, a new run's when it is made.
    with lock_run(run) if cfg.resume else nullcontext():
        return _train(cfg)


def _train(cfg: DictConfig) -> Run:
    """Train and test for a valid configuration."""
    run, elapsed = Run(Path(cfg.folder)), ElapsedTime()
    cfg = complete_data(cfg)
    torch.set_num_threads(cfg.threads or torch.get_num_threads())
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    model = make_trainable_model(cfg)
    with explain_batch_size_errors(cfg.data):
        warning = check_output(model)
    set_up_teacher(cfg, model)
    data = make_data(cfg, model)
    trainer = make_trainer(cfg, elapsed, MultiStep())

    checkpoint = None
    if cfg.resume:
        checkpoint = load_resumed_checkpoint(cfg, model)
        if is_already_done(run, cfg, checkpoint):
            return run
        elapsed.load_state_dict(run.info["seconds"])  # The seconds in the checkpoint replace these, if it has them.
    elif cfg.init_from:
        model.load_state_dict(load_weights(model, cfg.init_from, key="init_from="))
    data.steps_per_execution, reason = choose_group_size(trainer, model, cfg.steps_per_execution, checkpoint)
    data.prepare_data()
    check_batch_limits(cfg, data, trainer.world_size)
    set_up_classes(cfg, model, data)

    # By now settings, data and checkpoint are known to be valid, and nothing has been written.
    if checkpoint is not None:
        restore_logs(trainer.loggers, checkpoint)
    if is_first_process():
        print_summary(data)
    if warning:
        print_status(f"warning: {warning}")
    if data.steps_per_execution != cfg.steps_per_execution:
        print_status(f"steps_per_execution={data.steps_per_execution}, {reason}")
    with (
        lock_run(run),
        record_run(run, cfg, model, elapsed),
        track(run, cfg, trainer.loggers),
        show_failure(run, cfg, trainer),
        name_last_checkpoint(run),
        explain_batch_size_errors(cfg.data),
    ):
        with explain_failed_restore(cfg.resume):
            trainer.fit(model, data, ckpt_path=cfg.resume or None)
        ensure_last_checkpoint(run, trainer)
        if any(callback.has_paused for callback in find_callbacks(trainer, PauseAfter)):
            write_summary(run, trainer, None, elapsed)
            show_state(run, cfg, trainer, RunState.PAUSED)
            mark_ended(run, RunState.PAUSED)
            return run
        model.load_state_dict(load_weights(model, run.chosen_checkpoint()))
        (tested,) = trainer.test(model, data, verbose=False)
        write_summary(run, trainer, tested, elapsed)
        write_dashboard(run, cfg, trainer, model, data)
        mark_ended(run, RunState.PRUNED if run.pruned_path.exists() else RunState.FINISHED)
    print_results(run, cfg, data)
    return run


@contextmanager
def lock_run(run: Run) -> Iterator[None]:
    """Hold the lock of a run folder; of several processes the first one holds it for all."""
    if not is_first_process():
        yield
        return
    with run_lock(run.folder):
        run.remove_partial_files()
        yield


def load_resumed_checkpoint(cfg: DictConfig, model: Classifier) -> dict[str, Any]:
    """Return the checkpoint that cfg.resume names; refuse one from which training cannot continue."""
    load_weights(model, cfg.resume, key="resume=")  # The weights must fit; Lightning loads them later.
    checkpoint = read_checkpoint(cfg.resume)
    if "global_step" not in checkpoint:
        raise UsageError(f"resume={cfg.resume}: holds weights alone; init_from={cfg.resume} starts a new run from them")
    check_optimizer_state(checkpoint, model, cfg.resume)
    done = completed_epochs(checkpoint)
    if cfg.trainer.max_epochs < done:
        raise UsageError(
            f"trainer.max_epochs={cfg.trainer.max_epochs}: {cfg.resume} has done {format_count(done, 'epoch')} already"
        )
    return checkpoint


def is_already_done(run: Run, cfg: DictConfig, checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a resumed run has nothing left to do; if so, print how to continue it."""
    if run.info["status"] != RunState.FINISHED:
        return False
    if checkpoint["global_step"] == cfg.trainer.max_steps:
        done, key = format_count(cfg.trainer.max_steps, "step"), "trainer.max_steps"
    elif completed_epochs(checkpoint) == cfg.trainer.max_epochs:
        done, key = format_count(cfg.trainer.max_epochs, "epoch"), "trainer.max_epochs"
    else:
        return False
    print_status(f"already trained for {done}; raise {key} to continue", f"run folder: {run}")
    return True


def ensure_last_checkpoint(run: Run, trainer: pl.Trainer) -> None:
    """Save the last checkpoint if there is none, as with trainer.max_epochs=0 or callbacks.last=null."""
    path = run.checkpoint_path("last")
    # All processes save together or none does: a late one would find the file that another has just saved.
    if not trainer.strategy.broadcast(path.is_file()):
        trainer.save_checkpoint(path)


@rank_zero_only
def write_summary(run: Run, trainer: pl.Trainer, tested: Mapping[str, float] | None, elapsed: ElapsedTime) -> None:
    """Write the run's summary: the metrics of the chosen epoch and of the test, which is None before it."""
    epochs, checkpoint = run.epochs(), run.chosen_checkpoint()
    epoch = checkpoint_epoch(read_checkpoint(checkpoint), checkpoint) if epochs else -1
    chosen = next((row for row in epochs if row["epoch"] == epoch), {})
    names = [name for name in chosen if name.startswith(("train/", "val/")) and name != TRAIN_LOSS_STEP]
    batches = {
        "val": (trainer.num_val_batches, trainer.val_dataloaders),
        "test": (trainer.num_test_batches, trainer.test_dataloaders),
    }
    speeds = [row[IMAGES_PER_SECOND] for row in epochs if IMAGES_PER_SECOND in row]
    run.update(
        epochs=len(epochs),
        steps=trainer.global_step,
        tested=None if tested is None else {"checkpoint": checkpoint.stem, "epoch": epoch + 1},
        metrics={name: chosen[name] for name in names} | dict(tested or {}),
        partial=[name for name, (counts, loader) in batches.items() if loader and sum(counts) < len(loader)],
        seconds=elapsed.seconds(),
        images_per_second=statistics.fmean(speeds) if speeds else None,
        device=device_name(trainer),
        checkpoints=run.checkpoints(),
    )


@rank_zero_only
def write_dashboard(run: Run, cfg: DictConfig, trainer: pl.Trainer, model: Classifier, data: MNISTDataModule) -> None:
    """Draw the run's figures and fill TensorBoard's tabs, as configured."""
    if "dashboard" in cfg:
        with working_on("figures and dashboard"):
            dashboard, writers = instantiate_node(cfg.dashboard, "dashboard"), tensorboard_writers(trainer.loggers)
            dashboard.fill(run, cfg, model, data, writers, trainer.global_step)


@contextmanager
def show_failure(run: Run, cfg: DictConfig, trainer: pl.Trainer) -> Iterator[None]:
    """Give a run that fails its row in TensorBoard's HPARAMS tab."""
    try:
        yield
    except Exception:
        with suppress(Exception):  # On a full disk this fails, too; the error of the run itself is the one to show.
            show_state(run, cfg, trainer, RunState.FAILED)
        raise


@rank_zero_only
def show_state(run: Run, cfg: DictConfig, trainer: pl.Trainer, state: RunState) -> None:
    """Write a run's row of TensorBoard's HPARAMS tab before its end."""
    if "dashboard" in cfg:
        dashboard, writers = instantiate_node(cfg.dashboard, "dashboard"), tensorboard_writers(trainer.loggers)
        dashboard.show_state(run, cfg, writers, trainer.global_step, state)


@contextmanager
def name_last_checkpoint(run: Run) -> Iterator[None]:
    """Name the last good checkpoint where a loss or weights that are not finite stop a run."""
    try:
        yield
    except NotFinite as error:
        last = run.checkpoint_path("last")
        good = f"the last good checkpoint is {last}" if last.is_file() else "there is no checkpoint yet"
        raise NotFinite(f"{error}; {good}; {NOT_FINITE_REMEDY}") from error


@rank_zero_only
def mark_ended(run: Run, status: RunState) -> None:
    """Record that the run is finished or paused, after flushing its files to the disk."""
    sync_tree(run.folder)
    run.update(status=status, finished=current_time())


@rank_zero_only
def print_results(run: Run, cfg: DictConfig, data: MNISTDataModule) -> None:
    """Print the results; the last line names the run folder."""
    info = run.info
    tested = info["tested"]
    assert tested is not None
    title = f"{info['model']}, weights of epoch {tested['epoch']} ({run.chosen_by()})"
    time = f"{format_count(info['epochs'], 'epoch')} in {info['seconds']['total']:.1f} s"
    is_limited = cfg.trainer.max_steps != -1 or any(map(cfg.trainer.get, LIMITS))
    warnings = []
    if 0 < info["steps"] < ENOUGH_STEPS and not is_limited:
        warnings = describe_few_steps(info, data)
    board = []
    if run.event_paths and "dashboard" in cfg and cfg.dashboard.get("layout"):
        board = [f"curves: tensorboard --logdir {shlex.quote(str(run))}", f"  {CURVES}"]
    print_status("", title, *results_table(info["metrics"]), *warnings, time, *board, f"run folder: {run}")


def describe_few_steps(info: RunRecord, data: MNISTDataModule) -> list[str]:
    """Describe in lines how few steps a run has taken, whether it does no better than a guess, and what to try."""
    steps, epochs, metrics = info["steps"], info["epochs"], info["metrics"]
    name, metric = ("validation", VAL_ACC) if VAL_ACC in metrics else ("training", TRAIN_ACC)
    labels = data.raw_sets()[name][1]
    is_guess = bool(metrics.get(metric, 1.0) <= np.bincount(labels).max() / len(labels))
    guess = f"the {name} accuracy is no better than guessing the most frequent class"
    more_epochs = math.ceil(ENOUGH_STEPS * epochs / steps)
    remedy = f"try trainer.max_epochs={more_epochs}, or fewer with a smaller data.batch_size"
    return [f"warning: only {steps} steps in {format_count(epochs, 'epoch')}", *[guess] * is_guess, remedy]
