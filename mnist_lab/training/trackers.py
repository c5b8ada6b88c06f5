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
from mnist_lab.runs.record import COMPLETE, RunState, without_credentials
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.training.checkpointing import stop_signal

SQLITE = "sqlite:///"
MLFLOW_STATUS = {
    RunState.FINISHED: "FINISHED",
    RunState.PRUNED: "FINISHED",
    RunState.PAUSED: "SCHEDULED",
    RunState.FAILED: "FAILED",
    RunState.INTERRUPTED: "KILLED",
}
log = logging.getLogger(__name__)


class Tracker(Logger):
    """Lightning's logger of a tracker. If it fails during training, it warns once, and training continues."""

    service: ClassVar[str]  # under which run.json keeps the run's id there
    known_id: str | None  # of the run there, if it is continued
    has_failed = False

    def begin(self) -> None:
        """Start or continue the run there."""
        _ = self.experiment  # type: ignore[attr-defined]

    def end(self, run: Run, state: RunState) -> None:
        """Send how the run ended, and the tested checkpoint of a finished one."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.attempt(super().log_metrics, metrics, step)  # type: ignore[safe-super]

    def finalize(self, status: str = "") -> None:
        """Lightning calls this after fit and after test. `tracked` calls `end` instead."""

    def attempt(self, action: Callable[..., None], *args: Any) -> None:
        """Do something, unless an earlier attempt failed; warn if it fails."""
        if self.has_failed:
            return
        try:
            with _quiet():
                action(*args)
        except Exception as error:
            self.has_failed = True
            log.info("%s failed", self.service, exc_info=error)
            reason = f"logger.{self.service}: {_in_one_line(error)}"
            print_warning(f"{reason}; nothing more is sent, and metrics.csv has all")


class MLflow(Tracker, MLFlowLogger):
    """Sends a run to MLflow.

    Args:
        folder: the run folder.
        tracking_uri: the store: sqlite:///FILE, or the address of a server.
        experiment_name: the experiment there.

    Raises:
        UsageError: the store cannot be used.
    """

    service = "mlflow"

    def __init__(self, folder: str, tracking_uri: str, experiment_name: str = "mnist_lab") -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        # MLflow's own patience is four minutes. The environment is restored after the run.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        path = Path(tracking_uri.removeprefix(SQLITE)).absolute() if tracking_uri.startswith(SQLITE) else None
        uri = f"{SQLITE}{path}" if path else tracking_uri  # MLflow keeps one database open for each name.
        sweep, self.known_id = _place(folder, self.service)
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            # Two processes cannot make a database at once. A server chooses its own place for files.
            with _quiet(), FileLock(f"{path}.lock") if path else nullcontext():
                client = MlflowClient(uri)
                if (found := client.get_experiment_by_name(experiment_name)) is None:
                    artifacts = (path.parent / "mlartifacts").as_uri() if path else None
                    client.create_experiment(experiment_name, artifact_location=artifacts)
            if found is None or not client.search_runs([found.experiment_id], f"run_id = '{self.known_id}'"):
                self.known_id = None  # It was deleted, or is in another store.
        except (MlflowException, OSError) as error:
            where = f"logger.mlflow.tracking_uri={without_credentials(tracking_uri)}"
            raise UsageError(f"{where}: cannot be used ({_in_one_line(error)})") from error
        tags = {"folder": str(Path(folder).absolute())} | ({"sweep": sweep} if sweep else {})
        super().__init__(experiment_name, Path(folder).name, uri, tags, run_id=self.known_id)

    def begin(self) -> None:
        import mlflow

        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else ""  # type: ignore[no-untyped-call]
        self.experiment.update_run(self.run_id, status="RUNNING")
        mlflow.set_tracking_uri(before)  # Lightning has changed it for the whole process.

    def end(self, run: Run, state: RunState) -> None:
        if state in COMPLETE:
            self.experiment.log_artifact(self.run_id, str(run.chosen_checkpoint()), "checkpoints")
        self.experiment.set_terminated(self.run_id, MLFLOW_STATUS[state])


class WandB(Tracker, WandbLogger):
    """Sends a run to Weights & Biases, or keeps it in the run folder, below wandb, for `wandb sync`.

    Args:
        folder: the run folder.
        project: the project there.
        entity: the user or team there; None for the user's own.
        mode: offline, online or disabled.

    Raises:
        UsageError: nobody is logged in.
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
                raise UsageError(f"logger.wandb.mode=online: {_in_one_line(error)}") from error
        # W&B stages and caches files in the home directory otherwise. The environment is restored after the run.
        os.environ.setdefault("WANDB_DATA_DIR", str(Run(Path(folder)).wandb_folder))
        os.environ.setdefault("WANDB_CACHE_DIR", str(Run(Path(folder)).wandb_folder / "cache"))
        sweep, known_id = _place(folder, self.service)
        self.known_id = None if mode == "offline" else known_id  # `wandb sync` keeps one offline run of an id.
        super().__init__(
            Path(folder).name,
            folder,
            self.known_id,
            project=project,
            entity=entity,
            group=sweep or Path(folder).name,
            mode=mode,
            resume=self.known_id and "allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._wandb_init.pop("anonymous", None)  # Lightning passes it, and wandb warns that it has no effect.

    def end(self, run: Run, state: RunState) -> None:
        if state in COMPLETE:
            import wandb

            checkpoint = wandb.Artifact(f"{run.info['model']}-{self.version}", type="model")
            checkpoint.add_file(str(run.chosen_checkpoint()))
            self.experiment.log_artifact(checkpoint)
        self.experiment.finish(exit_code=int(state in (RunState.FAILED, RunState.INTERRUPTED)))


@contextmanager
def tracked(run: Run, cfg: DictConfig, loggers: Sequence[Logger]) -> Iterator[None]:
    """Start and end a run at the experiment trackers among its loggers."""
    is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    trackers = [logger for logger in loggers if is_first and isinstance(logger, Tracker)]
    for tracker in trackers:
        tracker.attempt(_begin, tracker, run, cfg)
    try:
        yield
    except BaseException as error:
        for tracker in trackers:
            tracker.attempt(tracker.end, run, RunState.INTERRUPTED if stop_signal(error) else RunState.FAILED)
        raise
    info = run.info
    for tracker in trackers:
        if info["status"] in COMPLETE:
            # The last points of the curves are not those of the best epoch.
            tracker.log_metrics({f"final/{name}": value for name, value in info["metrics"].items()}, info["steps"])
        tracker.attempt(tracker.end, run, info["status"])


def _begin(tracker: Tracker, run: Run, cfg: DictConfig) -> None:
    tracker.begin()
    run.update(trackers=run.info["trackers"] | {tracker.service: str(tracker.version)})
    if not tracker.known_id:  # MLflow refuses another value of a setting.
        left_out = (*DERIVED_KEYS, "resume", "logger")
        settings = {key: value for key, value in flatten(cfg).items() if key.split(".")[0] not in left_out}
        tracker.log_hyperparams({"model": cfg.name, **settings})


def _place(folder: str, service: str) -> tuple[str | None, str | None]:
    """Return the name of a run's sweep, and its recorded id at a tracker."""
    run, sweep = Run(Path(folder)), Sweep(Path(folder).absolute().parent)
    known_id = run.info["trackers"].get(service) if run.exists else None
    return sweep.folder.name if sweep.exists else None, known_id


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what MLflow logs of the making of a database and of each repeated request."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _in_one_line(error: BaseException) -> str:
    """Return what an error says, without the user name and password of an address in it."""
    return re.sub(r"(\w://)[^/@\s]*@", r"\1", " ".join(str(error).split()))[:300]
