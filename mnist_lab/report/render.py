"""`python -m mnist_lab report RUN|SWEEP`: what a run or a sweep came to, in one HTML file to look at and hand on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from mnist_lab.errors import UsageError
from mnist_lab.files import exists, require_writable_file, user_output
from mnist_lab.formatting import render_template
from mnist_lab.runs.environment import package_versions
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep


def report(name: str, path: Path | None = None, runs_dir: str = "runs") -> Path:
    """Write the page of a run, `latest` or a sweep, which stands alone: styles and pictures are in it. Where it is.

    Args:
        name: the run's or the sweep's folder, or latest.
        path: the file; None for report.html in that folder.
        runs_dir: where a name is looked for.

    Raises:
        UsageError: neither a run nor a sweep, or the file cannot be written.
        LabError: what the run was trained on cannot be had.
    """
    subject = find_subject(name, runs_dir)
    usual = subject.report_path
    told, remedy = (f"--out={path}", "choose another") if path else (str(usual), "choose another file with --out")
    path = path or usual
    require_writable_file(path, told)
    kind, values = page_values(subject, path)
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    template = Path(__file__).parent / "templates" / f"{kind}.html.j2"
    page = render_template(template, **values, made=made, version=package_versions()["mnist-lab"])
    with user_output(path, told, remedy) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def find_subject(name: str, runs_dir: str) -> Run | Sweep:
    """The run or sweep that a folder's path, or `latest` for the newest run below runs_dir, names."""
    folder = Path(name)
    if name == "latest" or Run(folder).exists or not exists(folder):
        return Run.find(name, runs_dir)
    if Sweep(folder).exists:
        return Sweep(folder)
    raise UsageError(f"{name}: neither a run folder (it has no run.json) nor a sweep's (it has no sweep.json)")


def page_values(subject: Run | Sweep, path: Path) -> tuple[str, dict[str, Any]]:
    """The template of a run's or a sweep's page, and its values."""
    if isinstance(subject, Sweep):
        from mnist_lab.report.sweep import sweep_page

        return "sweep", sweep_page(subject, path)
    from mnist_lab.report.run import run_page  # torch and Lightning: not to tell of a misspelt folder

    return "run", run_page(subject)
