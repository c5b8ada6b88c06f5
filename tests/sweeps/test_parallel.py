"""Sweeps whose jobs run in parallel processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disturbances import waiting
from lab import Command, Tiny, assert_refused, run, thorough, wait_for
from lightning.pytorch import Callback, LightningModule, Trainer
from loky.process_executor import BrokenProcessPool

from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.launchers.launcher import count_processors
from mnist_lab.sweeps.launchers.this_machine import ProcessesLauncher, start_worker

FOLDER = Path("runs/sweeps/s")
PROCESSORS = count_processors()
PROCESSES = ("hydra/launcher=processes", "hydra.launcher.n_jobs=2")


class Dies(Callback):
    """Kills the process of the job with seed 1 in each start, as a kernel without memory does."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.datamodule.seed == 1 and trainer.current_epoch == 1:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)


class NoteGPUs(Callback):
    """Writes the GPUs that a job's process sees into its run folder."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(trainer.default_root_dir, "gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpus", "visible", "settings", "seen"),
    [
        (3, "5,7,GPU-8a", [], ["5", "7"]),
        *thorough((2, None, [], ["0", "1"])),
        *thorough((1, None, [], ["all", "all"]), (1, "3", [], ["3", "3"]), (0, "", [], ["", ""])),
        *thorough((3, "5,7,GPU-8a", ["trainer.devices=2", "trainer.strategy=ddp"], ["5,7,GPU-8a"] * 2)),
    ],
)
def test_jobs_side_by_side_share_the_threads_and_take_turns_over_the_gpus(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    visible: str | None,
    settings: list[str],
    seen: list[str],
) -> None:
    """Python imports sitecustomize in each process, which pretends the GPUs."""
    (tmp_path / "sitecustomize.py").write_text(f"import torch\ntorch.cuda.device_count = lambda: {gpus}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    notes = "+callbacks.notes._target_=test_parallel.NoteGPUs"
    grid = ("-m", "model=mlp", "seed=0,1,2", "trainer.max_epochs=1", "sweep=s")
    status, out = run(tiny, *grid, notes, *settings, *PROCESSES)
    assert status == 0, out
    jobs, share = Sweep(FOLDER).jobs(), max(1, PROCESSORS // 2)
    first, second, third = [(job.folder / "gpus").read_text() for job in jobs]
    assert [first, second] == seen
    assert third in seen
    assert all(job.info["device"].endswith(f"cpu, {share} thread{'s' * (share > 1)}") for job in jobs)


@pytest.mark.parametrize(("n_jobs", "parallel"), [(1, 1), (3, 3), (-1, PROCESSORS), (-2, max(1, PROCESSORS - 1))])
def test_number_of_parallel_jobs_may_be_counted_from_the_processors(n_jobs: int, parallel: int) -> None:
    assert ProcessesLauncher(n_jobs).parallel_jobs == parallel


@pytest.mark.thorough
def test_job_whose_process_is_killed_is_tried_once_more_and_takes_no_other_job_with_it(tiny: Tiny) -> None:
    dies = "+callbacks.dies._target_=test_parallel.Dies"
    status, out = run(tiny, "-m", "model=mlp", "seed=0,1,2", "sweep=s", dies, *PROCESSES)
    assert (status, "Traceback" in out) == (1, False), out
    assert [job.state for job in Sweep(FOLDER).jobs()] == ["finished", "failed", "finished"]
    assert [job.attempts for job in Sweep(FOLDER).jobs()] == [1, 2, 1]
    assert "1 of 3 jobs failed" in out and "its process died" in out


@pytest.mark.slow
def test_worker_that_dies_without_a_job_is_replaced(tmp_path: Path) -> None:
    launcher, worker = ProcessesLauncher(1), start_worker()
    os.kill(worker.submit(os.getpid).result(), signal.SIGKILL)

    def is_broken() -> bool:
        try:
            worker.submit(os.getpid)
        except BrokenProcessPool:
            return True
        return False

    wait_for(is_broken, "the end of the worker")
    launcher.idle, launcher.numbers = [worker], {worker: 0}
    launcher.start(Sweep(tmp_path), ["0123456789ab"], lambda id: None)
    launcher.poll()
    assert launcher.running["0123456789ab"][0] is not worker
    launcher.close()


@pytest.mark.thorough
def test_sweep_of_a_script_needs_no_main_guard(tiny: Tiny) -> None:
    overrides = ["model=mlp", "seed=0,1", "sweep=s", "hydra/launcher=processes", *tiny.overrides]
    script = Path("script.py")
    script.write_text(
        f"import mnist_lab\nprint('once')\nmnist_lab.sweep(*{overrides}, config_dir={str(tiny.conf)!r})\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.count("once")) == (0, 1), done.stderr
    assert {job.state for job in Sweep(FOLDER).jobs()} == {"finished"}


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), *thorough((signal.SIGTERM, 143))])
def test_signal_lets_every_job_save_and_the_next_start_continues(tiny: Tiny, sent: signal.Signals, status: int) -> None:
    waits = "+callbacks.waits={_target_: disturbances.Waits, seeds: [0, 1]}"
    arguments = ("-m", "model=mlp", "seed=0,1,2", "sweep=s", "trainer.max_epochs=4", "logger=csv", waits, *PROCESSES)

    def stop(process: subprocess.Popen[str]) -> None:
        wait_for(lambda: waiting(0, 1), "two jobs that wait")
        process.send_signal(sent)

    ended, out = run(tiny, *arguments, then=stop)
    assert ended == status, out
    assert "Traceback" not in out, out
    jobs = Sweep(FOLDER).jobs()
    assert [job.state for job in jobs] == ["interrupted", "interrupted", "waiting"]
    assert {job.info["status"] for job in jobs[:2]} == {"interrupted"}, "the jobs themselves have recorded it"
    assert run(tiny, *arguments)[0] == 0
    assert {job.info["steps"] for job in Sweep(FOLDER).jobs()} == {48}
    assert [len(run.epochs()) for run in Run.below(FOLDER)] == [4] * 3


def test_more_jobs_than_memory_are_refused_with_a_remedy(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_lab.sweeps.launchers.launcher.read_free_gigabytes", lambda: 10.0)
    outcome = command("-m", "seed=range(20)", "hydra/launcher=processes", "hydra.launcher.n_jobs=20")
    assert_refused(outcome, "hydra.launcher.n_jobs: 20 jobs at once need 26 GB", "hydra.launcher.n_jobs=7")
    assert not Path("runs").exists()
