"""Write the results of a run or a sweep into one HTML file."""

from base64 import b64encode
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from mnist_lab.files import require_writable_file, user_output
from mnist_lab.formatting import render_template
from mnist_lab.runs.record import package_versions
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep


def report(name: str, path: Path | None = None) -> Path:
    """Write the self-contained page of a run or a sweep, by default report.html in its folder; return its path."""
    folder = Path(name)
    subject = Sweep(folder) if Sweep(folder).exists and not Run(folder).exists else Run.find(name)
    path = path or subject.report_path
    require_writable_file(path, f"--out={path}")
    # These modules import matplotlib and torch, so that only a subject that was found loads them.
    if isinstance(subject, Sweep):
        from mnist_lab.report.sweep import sweep_page

        kind, values = "sweep", sweep_page(subject, path)
    else:
        from mnist_lab.report.run import run_page

        kind, values = "run", run_page(subject)
    return write_page(kind, values, path)


def write_page(kind: str, values: dict[str, Any], path: Path) -> Path:
    """Write the page of a template, KIND.html.j2, and return its path."""
    from mnist_lab.viz.style import COLOURS, DARK

    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    templates = Path(__file__).parent / "templates"
    script = (templates / "page.js").read_text(encoding="utf-8")
    # The page allows this script alone, so that none runs that a name or a note of a stranger's run contains.
    values |= {"script": script, "script_hash": b64encode(sha256(script.encode()).digest()).decode()}
    values |= {"made": made, "version": package_versions()["mnist-lab"], "colours": COLOURS, "dark": DARK}
    page = render_template(templates / f"{kind}.html.j2", **values)
    with user_output(path, f"--out={path}") as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")  # Odd file names become surrogates.
    return path
