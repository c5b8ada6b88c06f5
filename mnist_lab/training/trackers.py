"""Experiment trackers, MLflow and Weights & Biases: a run here is one run there, also after it was resumed."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal, ParamSpec

from filelock import FileLock
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from mnist_lab.config.keys import DERIVED_KEYS
from mnist_lab.config.settings import flatten
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_value
from mnist_lab.runs.record import RunState, without_credentials
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.training.checkpointing import stop_signal

SQLITE = "sqlite:///"
MAX_PARAMS = 100  # that MLflow takes at once
MAX_PARAM_LENGTH = 500  # that every store of MLflow takes
MLFLOW_STATUS = {
    RunState.FINISHED: "FINISHED",
    RunState.PAUSED: "SCHEDULED",
    RunState.FAILED: "FAILED",
    RunState.INTERRUPTED: "KILLED",
}
Metrics = Mapping[str, float]
P = ParamSpec("P")
log = logging.getLogger(__name__)


class Tracker(Logger):
    """A logger of an experiment tracker.

    Metrics, settings, figures and the tested checkpoint are sent. metrics.csv is the record: a tracker that fails
    during training is left alone, with a warning, and what it lacks is sent when the run is resumed.

    Attributes:
        service: its name, under which run.json keeps the id of the run there.
        sent: the steps of each metric that the run there has.
    """

    service: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.has_failed = False
        self.sent: defaultdict[str, set[int]] = defaultdict(set)

    @property
    def name(self) -> str:
        return self.service

    @property
    def version(self) -> str:
        return ""

    @abstractmethod
    def begin(self, run: Run, known_id: str | None, settings: Mapping[str, Any], sweep: str | None) -> str:
        """Start a run there, or continue it.

        Args:
            run: the run here.
            known_id: the id of the run there, if it was started before.
            settings: the run's settings, by dotted key.
            sweep: the name of its sweep.

        Returns:
            The id of the run there.
        """

    @abstractmethod
    def send(self, metrics: Metrics, step: int) -> None:
        """Send metrics of a step."""

    @abstractmethod
    def send_files(self, run: Run) -> None:
        """Send the figures, the configuration and the tested checkpoint of a finished run."""

    @abstractmethod
    def end(self, state: RunState) -> None:
        """End the run there, or leave it to be continued."""

    @rank_zero_only
    def log_metrics(self, metrics: Metrics, step: int | None = None) -> None:
        self.attempt(self.send_new, metrics, step or 0)

    def send_new(self, metrics: Metrics, step: int) -> None:
        """Send those metrics of a step that the run there does not have: Lightning logs some twice."""
        new = {name: float(value) for name, value in metrics.items() if step not in self.sent[name]}
        if new:
            self.send(new, step)
        for name in new:
            self.sent[name].add(step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log nothing: `tracked` sends the settings."""

    def attempt(self, action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do something, unless an earlier attempt failed; warn if it fails."""
        if self.has_failed:
            return
        try:
            with _quiet():
                action(*args, **kwargs)
        except Exception as error:  # whatever it is, training goes on
            self.has_failed = True
            log.info("%s failed", self.service, exc_info=error)
            reason = f"logger.{self.service}: {_in_one_line(error)}"
            print(f"mnist_lab: warning: {reason}; nothing more is sent, and metrics.csv has all", file=sys.stderr)


class MLflow(Tracker):
    """Sends a run to MLflow.

    Args:
        tracking_uri: the store: sqlite:///FILE, or the address of a server.
        experiment_name: the experiment there.

    Raises:
        UsageError: the store cannot be used.
    """

    service = "mlflow"

    def __init__(self, tracking_uri: str, experiment_name: str = "mnist_lab") -> None:
        super().__init__()
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        # MLflow's own patience is four minutes. The environment is put back after the run.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        path = Path(tracking_uri.removeprefix(SQLITE)).absolute() if tracking_uri.startswith(SQLITE) else None
        try:
            with _quiet(), _lock_beside(path) if path else nullcontext():
                # MLflow keeps a database open by its name, also where that is relative to another folder.
                self.client = MlflowClient(f"{SQLITE}{path}" if path else tracking_uri)
                experiment = self.client.get_experiment_by_name(experiment_name)
                # A server knows where it keeps its own.
                artifacts = (path.parent / "mlartifacts").as_uri() if path else None
                self.experiment_id: str = (
                    experiment.experiment_id
                    if experiment
                    else self.client.create_experiment(experiment_name, artifact_location=artifacts)
                )
        except (MlflowException, OSError) as error:
            where = f"logger.mlflow.tracking_uri={without_credentials(tracking_uri)}"
            raise UsageError(f"{where}: cannot be used ({_in_one_line(error)})") from error

    def begin(self, run: Run, known_id: str | None, settings: Mapping[str, Any], sweep: str | None) -> str:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        known = None
        if known_id:
            try:
                known = self.client.get_run(known_id)
            except MlflowException:  # in another store, or deleted there: a new one gets the whole history
                log.info("MLflow has no run %s", known_id)
        info = run.info
        tags = {
            "mlflow.source.git.commit": info["git"]["commit"] if info["git"] else None,
            "mlflow.note.content": info["command"],
            "folder": str(run.folder.absolute()),
            "model": info["model"],
            "sweep": sweep,
        }
        tags = {name: value for name, value in tags.items() if value}
        if known:
            self.client.update_run(known.info.run_id, status="RUNNING")
            for metric in known.data.metrics:
                history = self.client.get_metric_history(known.info.run_id, metric)
                self.sent[metric] = {point.step for point in history}
        else:
            known = self.client.create_run(self.experiment_id, tags=tags, run_name=run.folder.name)
        self.run_id = str(known.info.run_id)
        # MLflow refuses another value of a parameter: that of the first start stays.
        texts = {name: format_value(value)[:MAX_PARAM_LENGTH] for name, value in settings.items()}
        params = [Param(name, text) for name, text in texts.items() if name not in known.data.params]
        for i in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(self.run_id, params=params[i : i + MAX_PARAMS])
        return self.run_id

    def send(self, metrics: Metrics, step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.run_id, [Metric(name, value, now, step) for name, value in metrics.items()])

    def send_files(self, run: Run) -> None:
        self.client.log_artifact(self.run_id, str(run.config_path))
        self.client.log_artifact(self.run_id, str(run.chosen_checkpoint()), "checkpoints")
        if run.figures_folder.is_dir():
            self.client.log_artifacts(self.run_id, str(run.figures_folder), "figures")

    def end(self, state: RunState) -> None:
        self.client.set_terminated(self.run_id, MLFLOW_STATUS[state])


class WandB(Tracker):
    """Sends a run to Weights & Biases, or keeps it in the run folder, below wandb, for `wandb sync`.

    Args:
        project: the project there.
        entity: the user or team there; None for the user's own.
        mode: offline, online or disabled.

    Raises:
        UsageError: nobody is logged in.
    """

    service = "wandb"

    def __init__(
        self,
        project: str = "mnist_lab",
        entity: str | None = None,
        mode: Literal["offline", "online", "disabled"] = "offline",
    ) -> None:
        super().__init__()
        import wandb

        self.project, self.entity, self.mode = project, entity, mode
        self.last_step = -sys.maxsize  # of an earlier start
        if mode == "online":
            try:
                wandb.login()
            except wandb.errors.UsageError as error:
                raise UsageError(f"logger.wandb.mode=online: {_in_one_line(error)}") from error

    def begin(self, run: Run, known_id: str | None, settings: Mapping[str, Any], sweep: str | None) -> str:
        import wandb

        # W&B stages and caches files in the home directory otherwise. The environment is put back after the run.
        os.environ.setdefault("WANDB_DATA_DIR", str(run.wandb_folder))
        os.environ.setdefault("WANDB_CACHE_DIR", str(run.wandb_folder / "cache"))
        if self.mode == "offline":  # `wandb sync` keeps the last of several of one id: this start writes it all anew
            for earlier in run.wandb_folder.glob(f"offline-run-*-{known_id}"):
                shutil.rmtree(earlier)
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=run.folder.name,
            group=sweep,
            id=known_id,
            resume="allow" if self.mode == "online" else None,
            mode=self.mode,
            dir=str(run.folder),
            config=dict(settings),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run.define_metric("*", step_metric="step")
        if self.run.resumed:
            summary: Any = self.run.summary
            self.last_step = summary.get("step", self.last_step)
        return str(self.run.id)

    def send(self, metrics: Metrics, step: int) -> None:
        if step >= self.last_step:  # of which perhaps not all was sent
            self.run.log({**metrics, "step": step})

    def send_files(self, run: Run) -> None:
        import wandb

        figures = {f"figures/{path.stem}": wandb.Image(str(path)) for path in sorted(run.figures_folder.glob("*.png"))}
        self.run.log(figures)
        checkpoint = wandb.Artifact(f"{run.info['model']}-{self.run.id}", type="model")
        checkpoint.add_file(str(run.chosen_checkpoint()))
        self.run.log_artifact(checkpoint)

    def end(self, state: RunState) -> None:
        self.run.finish(exit_code=int(state in (RunState.FAILED, RunState.INTERRUPTED)))


@contextmanager
def tracked(run: Run, cfg: DictConfig, loggers: Sequence[Logger], rows: Sequence[Metrics]) -> Iterator[None]:
    """Send a run to the experiment trackers among its loggers, and tell them how it ended.

    Args:
        run: the run, whose record was started.
        cfg: its configuration.
        loggers: its loggers.
        rows: the rows of metrics.csv of its earlier starts.
    """
    trackers = [logger for logger in loggers if isinstance(logger, Tracker)] if rank_zero_only.rank == 0 else []  # type: ignore[attr-defined]
    for tracker in trackers:
        tracker.attempt(_begin, tracker, run, cfg, rows)
    try:
        yield
    except BaseException as error:
        state = RunState.INTERRUPTED if stop_signal(error) else RunState.FAILED
        for tracker in trackers:
            tracker.attempt(tracker.end, state)
        raise
    for tracker in trackers:
        tracker.attempt(_end, tracker, run)


def _begin(tracker: Tracker, run: Run, cfg: DictConfig, rows: Sequence[Metrics]) -> None:
    left_out = (*DERIVED_KEYS, "resume", "logger")
    settings = {key: value for key, value in flatten(cfg).items() if key.split(".")[0] not in left_out}
    sweep = Sweep(run.folder.absolute().parent)
    ids = run.info["trackers"]
    new_id = tracker.begin(
        run, ids.get(tracker.service), {"model": cfg.name, **settings}, sweep.folder.name if sweep.exists else None
    )
    run.update(trackers=ids | {tracker.service: new_id})
    for row in rows:
        tracker.send_new({name: value for name, value in row.items() if name != "step"}, int(row["step"]))


def _end(tracker: Tracker, run: Run) -> None:
    info = run.info
    if info["status"] == RunState.FINISHED:
        # As in TensorBoard: the last points of the curves are not those of the best epoch.
        tracker.send({f"final/{name}": value for name, value in info["metrics"].items()}, info["steps"])
        tracker.send_files(run)
    tracker.end(info["status"])


@contextmanager
def _lock_beside(path: Path) -> Iterator[None]:
    """Hold a lock while MLflow may make a database, which it cannot do twice at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal how MLflow makes a database, and how it tries again."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _in_one_line(error: BaseException) -> str:
    """Return what an error says, without the user name and password of an address in it."""
    return re.sub(r"(\w://)[^/@\s]*@", r"\1", " ".join(str(error).split()))[:300]
