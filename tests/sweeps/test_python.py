"""A sweep from Python does what the command line does, and returns the results."""

from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from lab import Tiny

from mnist_lab import UsageError, sweep
from mnist_lab.runs.ranking import Results

SWEPT = ("model=mlp", "optimizer.lr=0.01,0.1", "trainer.max_epochs=1", "sweep=s")


@pytest.fixture
def tiny_sweep(tiny: Tiny) -> Callable[..., Results]:
    """Return sweep() for the tiny data set."""
    return lambda *overrides: sweep(*tiny.overrides, *overrides, config_dir=tiny.conf)


@pytest.mark.slow
def test_sweep_returns_the_ranked_jobs(tiny_sweep: Callable[..., Results]) -> None:
    results = tiny_sweep(*SWEPT)
    assert HydraConfig.instance().cfg is None
    assert [job.state for job in results.jobs] == ["finished"] * 2
    assert len(results.ranked) == 2
    best = results.best_job
    assert best is not None
    accuracies = [job.info["metrics"]["val/acc"] for job in results.jobs]
    assert best.info["metrics"]["val/acc"] == max(accuracies)
    assert results.sweep.folder == Path("runs/sweeps/s").absolute()
    again = tiny_sweep(*SWEPT)
    assert [job.info["started"] for job in again.jobs] == [job.info["started"] for job in results.jobs]


def test_failed_job_is_among_the_results_with_its_error(tiny_sweep: Callable[..., Results]) -> None:
    results = tiny_sweep(*SWEPT, "+callbacks.fails={_target_: test_failures.Fault, kind: crash, epoch: 0}")
    assert [job.state for job in results.jobs] == ["failed"] * 2
    assert all("out of order" in (job.error or "") for job in results.jobs)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("optimizer.lr=0.01,0.1", "optimizer.momentun=0.9"), "optimizer.momentun=0.9: unknown setting; did you mean"),
        (("optimizer.lr=interval(0.01,0.1)",), "only a search can draw from it; add hydra/sweeper=optuna"),
    ],
)
def test_user_error_is_raised_and_not_printed(
    tiny_sweep: Callable[..., Results], capfd: pytest.CaptureFixture[str], overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        tiny_sweep(*overrides)
    assert capfd.readouterr().err == ""


def test_sweep_runs_after_hydra_was_initialized(tiny_sweep: Callable[..., Results], tmp_path: Path) -> None:
    with (
        hydra.initialize_config_dir(str(tmp_path), version_base="1.3"),
        pytest.raises(UsageError, match="nope=1,2: unknown setting"),
    ):
        tiny_sweep("nope=1,2")
