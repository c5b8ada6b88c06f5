"""Sweeps whose jobs run in parallel processes."""

import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from unittest import mock

import pytest
import torch
from disturbances import waiting
from lab import Command, Tiny, assert_refused, run, thorough, wait_for
from loky.process_executor import BrokenProcessPool

from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.jobs import train_in_subprocess
from mnist_lab.sweeps.launchers.launcher import count_processors
from mnist_lab.sweeps.launchers.this_machine import ProcessesLauncher, start_worker
from mnist_lab.sweeps.process import take_gpu

FOLDER = Path("runs/sweeps/s")
PROCESSORS = count_processors()
PROCESSES = ("hydra/launcher=processes", "hydra.launcher.n_jobs=2")


@pytest.mark.parametrize(
    ("gpus", "visible", "seen"),
    [
        (3, "5,7,GPU-8a", ["5", "7", "GPU-8a", "5"]),
        (2, None, ["0", "1", "0", "1"]),
        (1, None, [None] * 4),
        (1, "3", ["3"] * 4),
        (0, "", [""] * 4),
    ],
)
def test_workers_take_turns_over_the_gpus_and_their_distributed_jobs_see_all(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, gpus: int, visible: str | None, seen: list[str | None]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("mnist_lab.sweeps.jobs.Popen", popen := mock.Mock(side_effect=ZeroDivisionError))
    cfg, all_of_them = tiny.compose("trainer=ddp"), "0,1" if gpus == 2 else visible
    for number, expected in enumerate(seen):
        with mock.patch.dict(os.environ):
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            os.environ.update({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
            take_gpu(number)
            take_gpu(number + 1)  # A worker keeps its GPU for its next job.
            assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected
            with pytest.raises(ZeroDivisionError):
                train_in_subprocess(cfg)
        assert popen.call_args.kwargs["env"].get("CUDA_VISIBLE_DEVICES") == all_of_them


def test_worker_in_the_place_of_a_dead_one_has_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [mock.Mock(**{"submit.side_effect": lambda *job: Future()}) for _ in range(3)]
    monkeypatch.setattr("mnist_lab.sweeps.launchers.this_machine.start_worker", mock.Mock(side_effect=workers))
    launcher = ProcessesLauncher(2)
    launcher.start(Sweep(tmp_path), ["a", "b", "c", "d"], lambda id: None)
    launcher.poll()
    launcher.running["a"][1].set_result(True)
    launcher.running["b"][1].set_exception(BrokenProcessPool())
    launcher.poll()
    numbers = [[call.args[-1] for call in worker.submit.call_args_list] for worker in workers]
    assert numbers == [[0, 0], [1], [1]]


@pytest.mark.parametrize(("n_jobs", "parallel"), [(1, 1), (3, 3), (-1, PROCESSORS), (-2, max(1, PROCESSORS - 1))])
def test_number_of_parallel_jobs_may_be_counted_from_the_processors(n_jobs: int, parallel: int) -> None:
    assert ProcessesLauncher(n_jobs).parallel_jobs == parallel


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
    jobs, share = Sweep(FOLDER).jobs(), max(1, PROCESSORS // 2)
    assert {job.info["steps"] for job in jobs} == {48}
    assert all(job.info["device"].endswith(f"cpu, {share} thread{'s' * (share > 1)}") for job in jobs)
    assert [len(run.epochs()) for run in Run.below(FOLDER)] == [4] * 3


def test_more_jobs_than_memory_are_refused_with_a_remedy(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_lab.sweeps.launchers.launcher.read_free_gigabytes", lambda: 10.0)
    outcome = command("-m", "seed=range(20)", "hydra/launcher=processes", "hydra.launcher.n_jobs=20")
    assert_refused(outcome, "hydra.launcher.n_jobs: 20 jobs at once need 26 GB", "hydra.launcher.n_jobs=7")
    assert not Path("runs").exists()
