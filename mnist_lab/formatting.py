"""Format numbers, times, paths and commands, and print, log and render text without control characters."""

import contextlib
import html
import logging
import re
import shlex
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

# A stranger's run may name variables with secrets. `config.trust` adds the value of each with the text to show instead,
# and everything that is printed later has to hide it.
HIDDEN: dict[str, str] = {}


def format_date(date: str | None) -> str:
    """Format a date of run.json in local time, to the minute."""
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(date or "").astimezone().strftime("%Y-%m-%d %H:%M")
    return date or "-"


def format_duration(seconds: float) -> str:
    """Format a time in seconds, or from 100 seconds on in minutes and seconds."""
    minutes, rest = divmod(seconds + 0.5, 60)  # round() would fail for the NaN of a damaged record.
    return f"{seconds:.1f} s" if seconds < 100 else f"{minutes:.0f} min {rest // 1:.0f} s"


def format_accuracy(mean: float, std: float | None) -> str:
    """Format a mean accuracy with its standard deviation, if there is one."""
    return f"{mean:.2%}" if std is None else f"{mean:.2%} ± {100 * std:.2f}"


def format_held_out(size: int | float | None) -> str:
    """Format the number, or the share, of the training images that are held out."""
    if not size:
        return "none"
    return f"{size:,}" if isinstance(size, int) else f"{100 * size:g}% of the training images"


def format_count(count: int, noun: str) -> str:
    """Format a number of things: 1 job, 2 jobs."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def format_value(value: Any) -> str:
    """Format a value as on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def csv_value(value: Any) -> Any:
    """Return a value for a CSV file, with a quote before a text that a spreadsheet would read as a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value


def format_command(arguments: list[str]) -> str:
    """Format a command of mnist_lab as a user types it."""
    return shlex.join(["python", "-m", "mnist_lab", *arguments])


def display_path(path: Path) -> str:
    """Return a path as a user types it: relative to the current folder, if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def shorten(text: str | None, most: int = 100) -> str:
    """Shorten a user's text to one line, for a message."""
    line = printable(" ".join((text or "").split()))
    return line if len(line) <= most else f"{line[: most - 3]}..."


def printable(text: str) -> str:
    """Escape the control characters of a line, newlines too, so that it cannot steer a terminal."""
    for secret, substitute in HIDDEN.items():
        text = text.replace(secret, substitute)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """Escape the control characters of a text of several lines, except its newlines."""
    return "\n".join(map(printable, text.split("\n")))


def print_lines(*lines: object, file: TextIO | None = None) -> None:
    """Print lines, escaped; the lab prints only with this function and with `console.PlainConsole`."""
    for line in lines:
        print(printable(str(line)), file=file)


def print_warning(text: str) -> None:
    """Print a warning on stderr."""
    print_lines(f"mnist_lab: warning: {text}", file=sys.stderr)


class LogFormatter(logging.Formatter):
    """Formats records for train.log and the terminal, escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts names as people do: 2 before 10."""
    parts = filter(None, re.split(r"([0-9]+)", name))
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts]


class Markdown(str):
    """A text in Markdown, which a template does not escape."""


def escape_markdown(value: Any) -> Any:
    """Escape a text for Markdown, as one line without markup; other values stay as they are."""
    if isinstance(value, Markdown) or not isinstance(value, str):
        return value
    special = r"([\\`*|$\[\]]|(?<!\w)[_~#]|[_~](?!\w))"
    return Markdown(re.sub(special, r"\\\1", html.escape(printable(value), quote=False)))


def code_span(text: str) -> Markdown:
    """Return a text as code in Markdown, or in HTML if some of its characters would end the code."""
    return Markdown(f"<code>{escape_markdown(text)}</code>" if re.search("[`<|]", text) else f"`{printable(text)}`")


def markdown_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Markdown:
    """Return a table in Markdown."""
    lines = [[*map(escape_markdown, cells)] for cells in (heads, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def render_template(path: Path, **values: Any) -> str:
    """Render a jinja2 template of HTML or Markdown, with all values and their control characters escaped."""
    import jinja2

    is_html = ".html" in path.suffixes

    def finalize(value: Any) -> Any:
        return type(value)(printable_lines(value)) if is_html and isinstance(value, str) else escape_markdown(value)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=is_html,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"code": code_span, "table": markdown_table}
    return environment.get_template(path.name).render(values)
