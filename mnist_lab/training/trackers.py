"""Send runs to experiment trackers, MLflow and Weights & Biases, by Lightning's loggers."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from mnist_lab.config.keys import DERIVED_KEYS
from mnist_lab.config.settings import flatten
from mnist_lab.errors import UsageError
from mnist_lab.formatting import print_warning
from mnist_lab.runs.record import COMPLETE, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.training.checkpointing import stop_signal

SQLITE = "sqlite:///"
# The other states have MLflow's names.
MLFLOW_STATUS = {RunState.PAUSED: "SCHEDULED", RunState.INTERRUPTED: "KILLED", RunState.PRUNED: "FINISHED"}
log = logging.getLogger(__name__)


class Tracker(Logger):
    """Lightning's logger of a tracker. If it fails during training, it warns once, and training continues."""

    service: ClassVar[str]  # the name under which run.json keeps the tracker's id of the run
    has_failed = False

    def begin(self, run: Run, cfg: DictConfig) -> None:
        """Start or continue the run at the tracker; settings are sent once, since MLflow refuses other values later."""
        _ = self.experiment  # type: ignore[attr-defined]
        known_ids = run.info["trackers"]
        if known_ids.get(self.service) != self.version:
            run.update(trackers=known_ids | {self.service: str(self.version)})
            left_out = (*DERIVED_KEYS, "resume", "logger")
            settings = {key: value for key, value in flatten(cfg).items() if key.split(".")[0] not in left_out}
            self.log_hyperparams({"model": cfg.name, **settings})

    def end(self, run: Run, state: RunState) -> None:
        """Send how the run ended and, if it has finished, the metrics and the checkpoint of the tested weights."""
        if state in COMPLETE:  # The curves end with the last epoch, which may not be the best.
            final = {f"final/{name}": value for name, value in run.info["metrics"].items()}
            super().log_metrics(final, run.info["steps"])  # type: ignore[safe-super]

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.attempt(super().log_metrics, metrics, step)  # type: ignore[safe-super]

    def finalize(self, status: str = "") -> None:
        """Do nothing: Lightning calls this after fit and again after test, and `track` calls `end` once."""

    @rank_zero_only
    def attempt(self, action: Callable[..., None], *args: Any) -> None:
        """Call a function, unless an earlier attempt failed; warn if it fails."""
        try:
            if not self.has_failed:
                with _quiet():
                    action(*args)
        except Exception as error:
            self.has_failed = True
            log.info("%s failed", self.service, exc_info=error)
            reason = _in_one_line(f"logger.{self.service}: {error}")
            print_warning(f"{reason}; nothing more is sent, and metrics.csv has all")


class MLflow(Tracker, MLFlowLogger):
    """Sends a run to MLflow; a store that cannot be used is refused before the run starts.

    Args:
        folder: the run folder.
        tracking_uri: the store: sqlite:///FILE, or the address of a server.
        experiment_name: the experiment in the store.
    """

    service = "mlflow"

    def __init__(self, folder: str, tracking_uri: str, experiment_name: str = "mnist_lab") -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        # By default MLflow tries for four minutes. The environment is restored after the run.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        path = Path(tracking_uri.removeprefix(SQLITE)).absolute() if tracking_uri.startswith(SQLITE) else None
        uri = f"{SQLITE}{path}" if path else tracking_uri  # An absolute path has MLflow open the database only once.
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            # Two processes cannot create a database at once. A server chooses its own place for files.
            with _quiet(), FileLock(f"{path}.lock") if path else nullcontext():
                client = MlflowClient(uri)
                if client.get_experiment_by_name(experiment_name) is None:
                    artifacts = (path.parent / "mlartifacts").as_uri() if path else None
                    client.create_experiment(experiment_name, artifact_location=artifacts)
        except (MlflowException, OSError) as error:
            where = f"logger.mlflow.tracking_uri={tracking_uri}"
            raise UsageError(_in_one_line(f"{where}: cannot be used ({error})")) from error
        sweep, known_id = _sweep_and_id(folder, self.service)
        tags = {"sweep": sweep} if sweep else None
        super().__init__(experiment_name, Path(folder).name, uri, tags, run_id=known_id)

    def begin(self, run: Run, cfg: DictConfig) -> None:
        import mlflow

        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else ""  # type: ignore[no-untyped-call]
        super().begin(run, cfg)
        mlflow.set_tracking_uri(before)  # Lightning has changed it for the whole process.
        self.experiment.update_run(self.run_id, status="RUNNING")

    def end(self, run: Run, state: RunState) -> None:
        super().end(run, state)
        if state in COMPLETE:
            self.experiment.log_artifact(self.run_id, str(run.chosen_checkpoint()), "checkpoints")
        self.experiment.set_terminated(self.run_id, MLFLOW_STATUS.get(state, state.upper()))


class WandB(Tracker, WandbLogger):
    """Sends a run to Weights & Biases, or keeps it in the run folder, below wandb, for `wandb sync`.

    Args:
        folder: the run folder.
        project: the project at the service.
        entity: the user or team at the service; None for the user who is logged in.
        mode: offline, online or disabled; online is refused if nobody is logged in.
    """

    service = "wandb"

    def __init__(
        self,
        folder: str,
        project: str = "mnist_lab",
        entity: str | None = None,
        mode: Literal["offline", "online", "disabled"] = "offline",
    ) -> None:
        import wandb

        if mode == "online":
            try:
                wandb.login()
            except wandb.errors.UsageError as error:
                raise UsageError(_in_one_line(f"logger.wandb.mode=online: {error}")) from error
        sweep, known_id = _sweep_and_id(folder, self.service)
        super().__init__(
            Path(folder).name,
            folder,
            None if mode == "offline" else known_id,  # `wandb sync` keeps only one offline run for each id.
            project=project,
            entity=entity,
            group=sweep or Path(folder).name,
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._wandb_init.pop("anonymous", None)  # Lightning passes it, and wandb warns that it has no effect.

    def end(self, run: Run, state: RunState) -> None:
        import wandb

        super().end(run, state)
        if state in COMPLETE:
            checkpoint = wandb.Artifact(f"{run.info['model']}-{self.version}", type="model")
            checkpoint.add_file(str(run.chosen_checkpoint()))
            self.experiment.log_artifact(checkpoint)
        self.experiment.finish(exit_code=int(state in (RunState.FAILED, RunState.INTERRUPTED)))


@contextmanager
def track(run: Run, cfg: DictConfig, loggers: Sequence[Logger]) -> Iterator[None]:
    """Start and end a run at the experiment trackers among its loggers."""
    trackers = [logger for logger in loggers if isinstance(logger, Tracker)]
    for tracker in trackers:
        tracker.attempt(tracker.begin, run, cfg)
    state = RunState.FAILED
    try:
        yield
        state = run.info["status"]
    except BaseException as error:
        state = RunState.INTERRUPTED if stop_signal(error) else RunState.FAILED
        raise
    finally:
        for tracker in trackers:
            tracker.attempt(tracker.end, run, state)


def _sweep_and_id(folder: str, service: str) -> tuple[str | None, str | None]:
    """Return the name of a run's sweep, and the run's recorded id at a tracker; None for what it does not have."""
    run, sweep = Run(Path(folder)), Sweep(Path(folder).absolute().parent)
    return sweep.folder.name if sweep.exists else None, run.info["trackers"].get(service) if run.exists else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what MLflow logs when it creates a database, and at each repeated request."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _in_one_line(message: str) -> str:
    """Return a message in one line, without user names and passwords in its addresses."""
    return re.sub(r"(\w://)[^/@\s]*@", r"\1", " ".join(message.split()))[:300]
