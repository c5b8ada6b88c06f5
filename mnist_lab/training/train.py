"""The main job, from a configuration to a finished run folder; read it from top to bottom."""

import re
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from mnist_lab.config.metric_names import IMAGES_PER_SECOND
from mnist_lab.config.validate import validate
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.summary import print_summary
from mnist_lab.errors import UsageError
from mnist_lab.files import sync_tree
from mnist_lab.formatting import print_warning
from mnist_lab.models.classifier import Classifier, NotFinite
from mnist_lab.models.dummy_batch import check_output
from mnist_lab.runs.checkpoints import checkpoint_epoch, completed_epochs, load_weights, read_checkpoint
from mnist_lab.runs.locks import run_lock
from mnist_lab.runs.record import RunState, current_time
from mnist_lab.runs.run import Run
from mnist_lab.training.build import (
    check_batch_limits,
    complete_data,
    instantiate_node,
    keep_data_settings,
    make_data,
    make_model,
    make_trainer,
)
from mnist_lab.training.callbacks import ElapsedTime, PauseAfter
from mnist_lab.training.checkpointing import check_optimizer_state, refused_restore_is_user_error
from mnist_lab.training.loggers import MetricsCSV, restore_events
from mnist_lab.training.multistep import MultiStep, all_callbacks, group_size
from mnist_lab.training.progress import console, results_table, working_on
from mnist_lab.training.record import device_name, record_run
from mnist_lab.training.runtime import explain_out_of_memory, quiet_lightning, torch_settings
from mnist_lab.training.trackers import tracked


@quiet_lightning()
def train(cfg: DictConfig) -> Run:
    """Train and test the network that a configuration describes, in the run folder cfg.folder.

    The test uses the weights of the epoch that is best by callbacks.best.monitor, or the last epoch's without a
    validation set. The process is left as it was found: threads, environment, warnings filters, signal handlers.

    Args:
        cfg: a job's configuration, as `compose` returns it.

    Returns:
        The finished run.

    Raises:
        UsageError: a setting, a checkpoint, the data or a folder is invalid; no run was started.
        DataUnavailable: the data set cannot be loaded or downloaded; no run was started.
    """
    resumed = Run(Path(cfg.folder)).config if cfg.resume else None
    if (ignored := validate(cfg, resumed)) and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        without = f"continues without settings that this version does not know: {', '.join(ignored)}"
        print_warning(f"resume={cfg.resume}: {without}")
    if resumed:
        cfg = keep_data_settings(cfg, resumed)
    # A new run's folder is locked when it is made; that of an earlier one before anything in it is read or changed.
    with torch_settings(cfg.threads), lock_run(cfg) if cfg.resume else nullcontext():
        return _train(cfg)


def _train(cfg: DictConfig) -> Run:
    """Train and test for a valid configuration."""
    elapsed = ElapsedTime()
    cfg = complete_data(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    model = make_model(cfg)
    if model.optimizer is None:
        raise UsageError("optimizer: missing; choose one to train with, such as optimizer=sgd")
    batch_sizes = (cfg.data.batch_size, cfg.data.eval_batch_size)
    with explain_out_of_memory(*batch_sizes):
        warning = check_output(model)
    data = make_data(cfg, model)
    metrics_csv = MetricsCSV(Path(cfg.folder))
    trainer = make_trainer(cfg, metrics_csv, elapsed, MultiStep())
    checkpoint = None
    if cfg.resume:
        load_weights(model, cfg.resume, key="resume=")
        checkpoint = load_resumed_checkpoint(cfg, model)
        if is_already_done(cfg, checkpoint):
            return Run(Path(cfg.folder))
        restore_logs(trainer, metrics_csv, checkpoint)
        elapsed.load_state_dict(Run(Path(cfg.folder)).info["seconds"])  # for a checkpoint that does not have them
    elif cfg.init_from:
        model.load_state_dict(load_weights(model, cfg.init_from, key="init_from="))
    data.steps_per_execution, reason = group_size(trainer, model, cfg.steps_per_execution, checkpoint)
    data.prepare_data()
    check_batch_limits(cfg, data, trainer.world_size)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print_summary(data)
    if warning:
        print_status(f"warning: {warning}")
    if data.steps_per_execution != cfg.steps_per_execution:
        print_status(f"steps_per_execution={data.steps_per_execution}, {reason}")

    parameters = sum(parameter.numel() for parameter in model.parameters())
    with (
        lock_run(cfg),
        record_run(cfg, parameters, elapsed) as run,
        tracked(run, cfg, trainer.loggers),
        failure_in_dashboard(run, cfg, trainer),
        last_checkpoint_is_named(run),
        explain_out_of_memory(*batch_sizes),
    ):
        with refused_restore_is_user_error(cfg.resume):
            trainer.fit(model, data, ckpt_path=cfg.resume or None)
        ensure_last_checkpoint(run, trainer)
        chosen = run.chosen_checkpoint()
        if any(isinstance(callback, PauseAfter) and callback.has_paused for callback in all_callbacks(trainer)):
            write_summary(run, trainer, None, chosen.stem, elapsed.seconds())
            mark_ended(run, RunState.PAUSED)
            return run
        model.load_state_dict(load_weights(model, chosen))
        (tested,) = trainer.test(model, data, verbose=False)
        write_summary(run, trainer, tested, chosen.stem, elapsed.seconds())
        write_dashboard(run, cfg, trainer, model, data)
        mark_ended(run, RunState.PRUNED if run.pruned_path.exists() else RunState.FINISHED)
    print_results(run)
    return run


@contextmanager
def lock_run(cfg: DictConfig) -> Iterator[None]:
    """Hold the lock of the run folder; of a run's processes the first one holds it for all."""
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield
        return
    with run_lock(Path(cfg.folder)):
        Run(Path(cfg.folder)).remove_partial_files()
        yield


@rank_zero_only
def restore_logs(trainer: pl.Trainer, metrics_csv: MetricsCSV, checkpoint: Mapping[str, Any]) -> None:
    """Cut the curves in the run folder at a checkpoint's step; warn if they have changed since it was saved."""
    step = checkpoint["global_step"]
    within_epoch = completed_epochs(checkpoint) < completed_epochs(checkpoint, "started")
    metrics_csv.restore(step, within_epoch=within_epoch)
    if checkpoint.get("metrics_crc", metrics_csv.checksum()) != metrics_csv.checksum():
        print_warning(f"{metrics_csv.path}: changed since step {step} was saved; curves may have gaps")
    boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    restore_events(metrics_csv.path.parent, step - within_epoch, list(metrics_csv.rows.values()), boards)


def ensure_last_checkpoint(run: Run, trainer: pl.Trainer) -> None:
    """Save the last checkpoint if there is none, as with trainer.max_epochs=0 or callbacks.last=null."""
    path = run.checkpoint_path("last")
    # All processes save together or none does: a late one would find the file that another has just saved.
    if not trainer.strategy.broadcast(path.is_file()):
        trainer.save_checkpoint(path)


def load_resumed_checkpoint(cfg: DictConfig, model: Classifier) -> dict[str, Any]:
    """Return the checkpoint that cfg.resume names; refuse one from which training cannot continue."""
    checkpoint = read_checkpoint(cfg.resume)
    if "global_step" not in checkpoint:
        raise UsageError(f"resume={cfg.resume}: holds weights alone; init_from={cfg.resume} starts a new run from them")
    check_optimizer_state(checkpoint, model, cfg.resume)
    done = completed_epochs(checkpoint)
    if cfg.trainer.max_epochs < done:
        raise UsageError(f"trainer.max_epochs={cfg.trainer.max_epochs}: {cfg.resume} has done {done} epochs already")
    return checkpoint


def is_already_done(cfg: DictConfig, checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a resumed run is finished, and print how to continue it."""
    run = Run(Path(cfg.folder))
    steps, limit = checkpoint["global_step"], cfg.trainer.max_steps
    if run.info["status"] != RunState.FINISHED or (
        completed_epochs(checkpoint) < cfg.trainer.max_epochs and steps != limit
    ):
        return False
    key = "max_steps" if steps == limit else "max_epochs"
    done = f"{cfg.trainer[key]} {key.removeprefix('max_')}"
    print_status(f"already trained for {done}; raise trainer.{key} to continue", f"run folder: {run}")
    return True


@rank_zero_only
def write_summary(
    run: Run, trainer: pl.Trainer, tested: Mapping[str, float] | None, chosen: str, seconds: dict[str, float]
) -> None:
    """Write the run's summary, with the metrics of the epoch whose weights were chosen; tested is None if untested."""
    epochs = run.epochs()
    checkpoint = run.checkpoint(chosen)
    epoch = checkpoint_epoch(read_checkpoint(checkpoint), checkpoint) if checkpoint and epochs else -1
    (row,) = [row for row in epochs if row["epoch"] == epoch] or [{}]
    used = {"val": (trainer.num_val_batches, trainer.val_dataloaders)}
    used["test"] = (trainer.num_test_batches, trainer.test_dataloaders)
    speeds = [row[IMAGES_PER_SECOND] for row in epochs if IMAGES_PER_SECOND in row]
    run.update(
        epochs=len(epochs),
        steps=trainer.global_step,
        tested=None if tested is None else {"checkpoint": chosen, "epoch": epoch + 1},
        metrics={name: row[name] for name in row if re.fullmatch(r"(train|val)/(?!loss_step).*", name)}
        | dict(tested or {}),
        partial=[name for name, (counts, loader) in used.items() if loader and sum(counts) < len(loader)],
        seconds=seconds,
        images_per_second=statistics.fmean(speeds) if speeds else None,
        device=device_name(trainer),
        checkpoints=run.checkpoints(),
    )


@rank_zero_only
def write_dashboard(run: Run, cfg: DictConfig, trainer: pl.Trainer, *network: Classifier | MNISTDataModule) -> None:
    """Draw the run's figures and fill TensorBoard's tabs, as configured; without network and data, of a failed run."""
    boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    if "dashboard" in cfg:
        with working_on("figures and dashboard"):
            dashboard = instantiate_node(cfg.dashboard, "dashboard")
            (dashboard.fill if network else dashboard.show_failure)(run, cfg, *network, boards, trainer.global_step)


@contextmanager
def failure_in_dashboard(run: Run, cfg: DictConfig, trainer: pl.Trainer) -> Iterator[None]:
    """Give a run that fails its row of the HPARAMS tab."""
    try:
        yield
    except Exception:
        with suppress(Exception):  # such as a full disk, which is then the run's own error
            write_dashboard(run, cfg, trainer)
        raise


@contextmanager
def last_checkpoint_is_named(run: Run) -> Iterator[None]:
    """Name the last good checkpoint where a loss or weights that are not finite stop a run."""
    try:
        yield
    except NotFinite as error:
        last = run.checkpoint_path("last")
        good = f"the last good checkpoint is {last}" if last.is_file() else "there is no checkpoint yet"
        raise NotFinite(f"{error}; {good}; try a smaller optimizer.lr") from error


@rank_zero_only
def mark_ended(run: Run, status: RunState) -> None:
    """Record that the run is finished or paused, after flushing its files to the disk."""
    sync_tree(run.folder)
    run.update(status=status, finished=current_time())


@rank_zero_only
def print_status(*lines: str) -> None:
    console.print(*lines, sep="\n", soft_wrap=True)


@rank_zero_only
def print_results(run: Run) -> None:
    """Print the results; the last line names the run folder."""
    info = run.info
    tested = info["tested"]
    assert tested is not None
    words = f"{info['model']}, weights of epoch {tested['epoch']} ({run.chosen_by()})"
    console.print(results_table(words, info["metrics"]))
    epochs = f"{info['epochs']} epoch{'s' * (info['epochs'] != 1)}"
    print_status(f"{epochs} in {info['seconds']['total']:.1f} s", f"run folder: {run}")
