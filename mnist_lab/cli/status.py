"""`python -m mnist_lab status [SWEEP|RUN]`: the states of a sweep's jobs, or of a run, from any terminal."""

import sys
import time
from contextlib import suppress
from typing import Any

from mnist_lab.cli.parser import CommandParser
from mnist_lab.console import PlainConsole
from mnist_lab.errors import UsageError
from mnist_lab.files import exists
from mnist_lab.formatting import display_path, format_command, print_lines
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import DONE, STOPPED, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.sweeps.launchers.launcher import LaunchedJob
from mnist_lab.sweeps.launchers.slurm_queue import query_jobs
from mnist_lab.sweeps.progress import best_accuracy, describe_states, job_table
from mnist_lab.tables import print_rows

PAUSE = 2.0  # seconds between two tables of --watch


def main(arguments: list[str]) -> None:
    parser = CommandParser("status")
    name_help = "its folder or name, or latest: the sweep that was started last"
    parser.add_argument("name", metavar="SWEEP|RUN", nargs="?", default="latest", help=name_help)
    parser.add_argument("--runs-dir", default="runs", help="where a name is looked for (default: %(default)s)")
    parser.add_argument("--watch", action="store_true", help="show the table again until no job is left")
    parser.add_forms()
    options = parser.parse_args(arguments)
    if options.watch and options.form:
        raise UsageError(f"--watch: shows a table again and again; call --{options.form} as often as needed")
    found = find_sweep_or_run(options.name, options.runs_dir)
    while True:
        launched_jobs: dict[str, LaunchedJob] = {}
        if isinstance(found, Run):
            results = Results(Sweep(found.folder), [Job((), found.folder, RunState(found.info["status"]))], [])
        else:
            results, launched_jobs = Results.of(found), query_jobs(found.record.get("submitted", {}))
        if options.form:
            print_rows([status_row(results, job, launched_jobs.get(job.id)) for job in results.jobs], options.form)
        else:
            print_status(results, launched_jobs, clear=options.watch and sys.stdout.isatty())
        if not options.watch or all(job.state in DONE for job in results.jobs):
            return
        time.sleep(PAUSE)


def find_sweep_or_run(name: str, runs_dir: str) -> Sweep | Run:
    """Find a sweep, or else a run."""
    try:
        return Sweep.find(name, runs_dir)
    except UsageError:
        if name != "latest":
            with suppress(UsageError):
                return Run.find(name, runs_dir)
        raise


def status_row(results: Results, job: Job, launched: LaunchedJob | None) -> dict[str, Any]:
    """Return a job's row for programs."""
    logs = [Run(job.folder).log_path, launched.log if launched else None]
    # Before the run has a log, the output of the job on a cluster is one.
    log = next((path for path in logs if path is not None and exists(path)), None)
    return results.row(job) | {
        "epochs": len(job.epochs),
        results.metric: best_accuracy(job, results.metric),
        "where": str(launched) if launched else job.process.get("host"),
        "reason": launched.reason or None if launched else None,
        "log": log and str(log),
    }


def print_status(results: Results, launched_jobs: dict[str, LaunchedJob], *, clear: bool) -> None:
    """Print a table of the jobs, and the command that continues the sweep."""
    if clear:
        PlainConsole().clear()
    print_lines(*job_table(results, results.jobs, launched_jobs))
    if not results.sweep.exists:
        (job,) = results.jobs
        if job.state in STOPPED:
            print_lines(f"to continue: {format_command([f'resume={job.folder}'])}")
        print_lines(f"run folder: {job.folder}")
        return
    print_lines(f"logs: {display_path(results.sweep.folder / '*' / 'train.log')}")
    print_lines(describe_states(results.jobs, launched_jobs))
    if any(job.state not in DONE for job in results.jobs):
        print_lines(f"to wait for what is left, or to continue: {results.sweep.record['command']}")
