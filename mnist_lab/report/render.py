"""`python -m mnist_lab report RUN|SWEEP`: the results of a run or a sweep in one HTML file."""

from datetime import datetime
from pathlib import Path

from mnist_lab.errors import UsageError
from mnist_lab.files import exists, require_writable_file, user_output
from mnist_lab.formatting import render_template
from mnist_lab.runs.record import package_versions
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep


def report(name: str, path: Path | None = None, runs_dir: str = "runs") -> Path:
    """Write the self-contained page of a run, `latest` or a sweep, and return its path.

    Args:
        name: the run's or the sweep's folder, or latest.
        path: the file; None for report.html in that folder.
        runs_dir: where names are looked up.

    Raises:
        UsageError: neither a run nor a sweep, or the file cannot be written.
        LabError: the run's data cannot be loaded.
    """
    subject = _find_subject(name, runs_dir)
    default = subject.report_path
    option, remedy = (f"--out={path}", "choose another") if path else (str(default), "choose another file with --out")
    path = path or default
    require_writable_file(path, option)
    # Both import matplotlib, and the page of a run torch, which a misspelt folder does not need.
    if isinstance(subject, Sweep):
        from mnist_lab.report.sweep import sweep_page

        kind, values = "sweep", sweep_page(subject, path)
    else:
        from mnist_lab.report.run import run_page

        kind, values = "run", run_page(subject)
    from mnist_lab.viz.style import COLOURS

    values["made"] = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    values["version"] = package_versions()["mnist-lab"]
    template = Path(__file__).parent / "templates" / f"{kind}.html.j2"
    page = render_template(template, **values, colours=COLOURS)
    with user_output(path, option, remedy) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _find_subject(name: str, runs_dir: str) -> Run | Sweep:
    """Return the run or sweep in a folder; `latest` is the newest run below runs_dir."""
    folder = Path(name)
    if name == "latest" or Run(folder).exists or not exists(folder):
        return Run.find(name, runs_dir)
    if Sweep(folder).exists:
        return Sweep(folder)
    raise UsageError(f"{name}: neither a run folder (no run.json) nor a sweep folder (no sweep.json)")
