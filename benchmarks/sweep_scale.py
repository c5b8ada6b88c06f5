"""What a sweep of many jobs costs beside its training: milliseconds a job of each part, for 125 to 1,000 jobs.

    python -m benchmarks.sweep_scale [--jobs 1000] [--launchers local processes ray slurm]

The jobs are empty: each locks its folder and writes job.json, run.json and metrics.csv as a finished one has them,
without torch. SLURM is played by stand-ins for sbatch, squeue, scontrol and scancel, which answer at once.

- plan: Hydra composes the settings of each job (its own work), and the id of the job is computed (ours).
- name the folder: a job finds the name of its folder, beside those of all others.
- submit, run: the jobs are handed to a launcher, and run to their ends while the sweep is watched.
- poll: the launcher is asked how all jobs stand.
- look: the watch reads the sweep, writes results.csv and results.json, and draws the table; once a second at most.
- show: the results at the end, with their figure.

A part that grows linearly takes the same time a job in each column.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from mnist_lab.sweeps.identity import job_folder
from mnist_lab.sweeps.job_call import HydraSession
from mnist_lab.sweeps.launch import Launch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from mnist_lab.config import conf_dir
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import RunRecord, RunState, write_record
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, write_job
from mnist_lab.sweeps import hydra_app, job
from mnist_lab.sweeps.grid import compose_job_id
from mnist_lab.sweeps.launchers.launcher import Launcher, make_launcher
from mnist_lab.sweeps.progress import Watch, show_results

CHOICES = {"slurm": "submitit_slurm"}  # hydra/launcher has another name for it.
SWEPT = ("optimizer.lr", "optimizer.momentum", "seed")
LAUNCHERS = ("local", "processes", "ray", "slurm")
STAND_INS = {
    "sbatch": """
        number=$(( $(cat "$QUEUE/last" 2>/dev/null || echo 0) + 1 )); echo $number > "$QUEUE/last"
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
        seq -f "${number}_%g" 0 "$last" >> "$QUEUE/jobs"; echo "Submitted batch job $number" """,
    "squeue": """sed "s/$/|$(cat "$QUEUE/state")|None|node1/" "$QUEUE/jobs" """,
    "scontrol": "echo 'MaxArraySize = 1001'",
    "scancel": "true",
}


@dataclass(frozen=True)
class EmptySession(HydraSession):
    """A session whose jobs are neither composed by Hydra nor trained."""

    def run(self, overrides: Sequence[str], number: int) -> None:
        HydraConfig.instance().set_config(self.config)
        settings = {"overrides": list(overrides), "threads": 1, "retries": 0, "fail_fast": False}
        folder = self.sweep.folder / f"{','.join(overrides)}-{number:012x}"
        with mock.patch.object(job, "_attempted", lambda cfg, started: finish(started)):
            job.run_job(OmegaConf.create({"folder": str(folder)} | settings))


def finish(started: Job) -> Job:
    """Write the records of a job as training leaves them."""
    number = int(started.id, 16)
    write_job(started)
    run, accuracy = Run(started.folder), 0.9 + number % 97 / 1000
    info: RunRecord = {
        "status": RunState.FINISHED,
        "overrides": list(started.overrides),
        "seed": number % 5,
        "max_epochs": 1,
        "epochs": 1,
        "metrics": {"val/acc": accuracy, "val/loss": 1 - accuracy, "test/acc": accuracy},
        "seconds": {"fit": 1.0, "total": 1.5},
    }
    run.metrics_path.write_text(f"step,epoch,train/loss,val/acc\n937,0,0.1,{accuracy}\n")
    write_record(run.record_path, info)
    done = replace(started, state=RunState.FINISHED)
    write_job(done)
    return done


def jobs_of(count: int) -> dict[str, list[str]]:
    """Return the overrides of the given number of jobs, by their ids: five seeds of each setting."""
    values = [(0.001 * (1 + n // 50), 0.05 * (n // 5 % 10), n % 5) for n in range(count)]
    return {
        f"{n:012x}": [f"{key}={value:g}" for key, value in zip(SWEPT, of_job, strict=True)]
        for n, of_job in enumerate(values)
    }


@contextlib.contextmanager
def session_of(runs_dir: Path, launcher: str) -> Iterator[EmptySession]:
    """The session of an empty sweep, in a folder of its own."""
    overrides = [f"runs_dir={runs_dir}", "sweep=s", f"hydra/launcher={launcher}", "hydra.mode=MULTIRUN"]
    if launcher == "ray":
        overrides.append("hydra.launcher.ray.init.address=local")  # a Ray of its own, even where another one runs
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="train"):
        config = hydra.compose("train", overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        context: Any = SimpleNamespace(config_loader=GlobalHydra.instance().config_loader(), callbacks=None)
        yield EmptySession(context, config, hydra_app.task)


def seconds_of(function: Callable[[], object], times: int = 1) -> float:
    """Median of the seconds of a call."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def measure_planning(count: int) -> dict[str, float]:
    """Seconds that Hydra, and we, take to plan jobs."""
    with tempfile.TemporaryDirectory() as folder, session_of(Path(folder), "local") as session:
        jobs = list(jobs_of(count).values())
        hydras: list[float] = []
        loader = session.context.config_loader
        load = loader.load_sweep_config

        def timed(*arguments: Any) -> DictConfig:
            started = time.perf_counter()
            config = load(*arguments)
            hydras.append(time.perf_counter() - started)
            return config

        sweeper = SimpleNamespace(hydra_context=session.context, config=session.config)
        with mock.patch.object(loader, "load_sweep_config", timed):
            seconds = seconds_of(lambda: [compose_job_id(sweeper, overrides) for overrides in jobs])
        return {"plan: Hydra's composition": sum(hydras), "plan: our own": seconds - sum(hydras)}


def measure_folder(session: EmptySession, count: int) -> dict[str, float]:
    """Seconds to name the folders of all jobs, beside as many."""
    overrides = next(reversed(jobs_of(count).values()))
    config = session.context.config_loader.load_sweep_config(session.config, overrides)
    HydraConfig.instance().set_config(config)
    return {"name the folder": count * seconds_of(lambda: job_folder(config), 20)}


def measure_launcher(name: str, count: int) -> dict[str, float]:
    """Seconds of the parts of an empty sweep."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, session_of(Path(folder), CHOICES.get(name, name)) as session:
        jobs = jobs_of(count)
        sweep = session.sweep
        writing = seconds_of(lambda: Sweep.open(sweep.folder, "command", SWEPT, jobs))
        launcher = make_launcher(session.config.hydra)
        console = Console(file=io.StringIO(), width=120)
        queue = stand_ins(Path(folder)) if name == "slurm" else contextlib.nullcontext()
        with queue, closing(launcher), Watch(sweep, launcher, console):
            launcher.start(session, {})  # Ray needs seconds to start
            launch: list[Launch] = []
            seconds[f"submit: {name}"] = seconds_of(lambda: launch.append(Launch(launcher, session, jobs)))
            if name == "slurm":
                seconds["poll: slurm"] = seconds_of(launcher.poll, 5)
                for number, overrides in enumerate(jobs.values()):
                    session.run(overrides, number)
                (Path(folder) / "state").write_text("COMPLETED")
            seconds[f"run: {name}"] = seconds_of(launch[0].wait)
        finished = sum(job.state == RunState.FINISHED for job in sweep.jobs())
        assert finished == count, f"{finished} of {count} jobs are finished"
        if name == "local":
            seconds |= {"write sweep.json": writing} | measure_looks(sweep, launcher) | measure_folder(session, count)
    return seconds


def measure_looks(sweep: Sweep, launcher: Launcher) -> dict[str, float]:
    """Seconds of a look at a sweep, and of its results."""
    seconds: dict[str, float] = {}
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=50)
    with Watch(sweep, launcher, console) as watch:
        watch.look()
        seconds["look: nothing changed"] = seconds_of(watch.look, 5)

        def change_one() -> None:
            done = sweep.jobs()[0]
            write_job(replace(done, attempts=done.attempts + 1))

        changed = []
        for _ in range(3):
            change_one()
            changed.append(seconds_of(watch.look))
        seconds["look: one job changed"] = statistics.median(changed)
    with contextlib.redirect_stdout(io.StringIO()):
        show_results(Results.of(sweep), "command")  # imports matplotlib
        seconds["show the results"] = seconds_of(lambda: show_results(Results.of(sweep), "command"))
    return seconds


@contextlib.contextmanager
def stand_ins(folder: Path) -> Iterator[None]:
    """Put stand-ins for the commands of SLURM on the PATH, with a queue whose jobs all have the state in a file."""
    programs = folder / "bin"
    programs.mkdir()
    for name, script in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script.strip()}\n")
        (programs / name).chmod(0o755)
    (folder / "state").write_text("RUNNING")
    own = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "QUEUE": str(folder)}
    with mock.patch.dict(os.environ, own):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help="at most (default: %(default)s)")
    parser.add_argument("--launchers", nargs="*", choices=LAUNCHERS, default=LAUNCHERS)
    parser.add_argument("--no-planning", action="store_true")
    options = parser.parse_args()
    counts = [options.jobs // 8, options.jobs // 4, options.jobs // 2, options.jobs]
    measures: list[Callable[[int], dict[str, float]]] = [] if options.no_planning else [measure_planning]
    measures += [partial(measure_launcher, name) for name in options.launchers]
    print(f"| ms a job | {' | '.join(f'{count:,} jobs' for count in counts)} |\n|---|{'---|' * len(counts)}")
    for measure in measures:
        columns = [{part: 1000 * seconds / count for part, seconds in measure(count).items()} for count in counts]
        for part in columns[0]:
            print(f"| {part} | {' | '.join(f'{column[part]:.2f}' for column in columns)} |", flush=True)


if __name__ == "__main__":
    from benchmarks.sweep_scale import main as main_by_name  # processes of jobs find the classes by their module

    main_by_name()
