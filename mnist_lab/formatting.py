"""Values as text for people: numbers, times, paths, commands."""

import contextlib
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

HIDDEN: dict[str, str] = {}  # values of variables that a run's record names, and what is shown instead


def format_date(date: str | None) -> str:
    """Return a date of run.json in local time, to the minute."""
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(date or "").astimezone().strftime("%Y-%m-%d %H:%M")
    return date or "-"


def format_duration(seconds: float) -> str:
    """Return seconds, or from a hundred on minutes and seconds."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def format_accuracy(mean: float, std: float | None) -> str:
    """Return a mean accuracy with its standard deviation, if there is one."""
    return f"{mean:.2%}" + (f" ± {100 * std:.2f}" if std is not None else "")


def format_held_out(size: int | float | None) -> str:
    """Return how many training images are held out, from their number or share."""
    if not size:
        return "none"
    return f"{size:,}" if isinstance(size, int) else f"{size:.0%} of the training images"


def format_value(value: Any) -> str:
    """Format a value as on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def format_command(arguments: list[str]) -> str:
    """Return a command of ours, as it would be typed."""
    return shlex.join(["python", "-m", "mnist_lab", *arguments])


def display_path(path: Path) -> str:
    """Return a path as a user would type it: from the current folder, if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def shorten(text: str | None, most: int = 100) -> str:
    """Return a user's text for a message: one line, shortened."""
    line = printable(" ".join((text or "").split()))
    return line if len(line) <= most else f"{line[: most - 3]}..."


def printable(text: str) -> str:
    """Return a text with its control characters escaped, so that printing it cannot steer a terminal."""
    for value, shown in HIDDEN.items():
        text = text.replace(value, shown)
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts names as people do, 2 before 10."""
    parts = filter(None, re.split(r"([0-9]+)", name))
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts]


def render_template(path: Path, **values: Any) -> str:
    """Render a jinja2 template, escaping values if it is HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=".html" in path.suffixes,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(path.name).render(values)
