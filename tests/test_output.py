"""What is printed cannot steer a terminal, and what goes into a page is text and not markup."""

import csv
import io
import json
import logging
import math
import re
from pathlib import Path

import pytest
from lab import Command, Tiny, slow, thorough
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from rich.table import Table
from test_ls import fake

from benchmarks.fuzz import fuzz
from benchmarks.fuzz_output import Elements
from mnist_lab.console import PlainConsole
from mnist_lab.errors import UsageError, exit_on_user_error
from mnist_lab.formatting import (
    LogFormatter,
    code_span,
    csv_value,
    escape_markdown,
    format_duration,
    format_held_out,
    markdown_table,
    print_lines,
    render_template,
)
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.tables import print_compared
from mnist_lab.viz.save import inline_svg, write_figure

STEERING = (
    "\x1b[2K\x1b[1A",
    "\x1b]0;title\x07",
    "\x9d0;title\x9c",
    "\u202etxt\u2069\x7f",
    "\ud83d",
    "a\nb",
    "[red]a[/] :bomb: [link=http://x]b [nope/]",
)
EVIL = "\x1b[3J\x9b5m\u2067\r\x08[blink]b[/blink] :skull: [link=file:///etc]c[/link] \x85\ude00"
TAG = "<iframe src=//evil onload=alert(2)> | `a` | [b](javascript:c) </script> **d** &lt;u&gt; \\<u>"


def control(text: str) -> set[str]:
    """Return the control characters of a text, except newlines."""
    return {c for c in text if not c.isprintable()} - {"\n"}


@pytest.mark.parametrize("text", STEERING)
def test_all_ways_to_print_escape_what_steers_and_keep_the_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_lines(text)
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UsageError(f"{text}: refused")
    file = io.StringIO()
    console = PlainConsole(file=file, width=100)
    table = Table(f"head {text}", title=text)
    table.add_row(text)
    console.print(text, soft_wrap=True)
    console.print(table)
    console.rule(text)
    printed = capsys.readouterr()
    for shown in (printed.out, printed.err, file.getvalue()):
        assert shown and not control(shown) and ("nope" not in text or text in shown)
    assert (printed.out.count("\n"), printed.err.count("\n")) == (1, 1)
    assert len(set(map(len, file.getvalue().splitlines()[2:-1]))) == 1, "the columns are as wide as what is shown"
    record = logging.LogRecord("lab", logging.WARNING, "", 0, "%s", (text,), None)
    assert control(LogFormatter("%(message)s").format(record)) == set()


def test_rounded_time_and_share_are_right() -> None:
    assert [*map(format_duration, (99.94, 119.7, math.nan))] == ["99.9 s", "2 min 0 s", "nan min nan s"]
    assert [format_held_out(size)[:5] for size in (0.005, 0.1, 5000)] == ["0.5% ", "10% o", "5,000"]


def test_narrow_table_keeps_what_differs_and_leaves_out_rows_of_dashes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mnist_lab.tables.terminal_width", lambda: 40)
    long = [f"{'same' * 20}{end}" for end in ("-a-same", "-b-same")]
    print_compared(["run", *(f"{key}{'more' * 20}" for key in long), "none"], [["1", *long, "-"]])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "1"]
    assert len({line.split()[0] for line in lines}) == len({line.split()[1] for line in lines}) == len(lines) == 2
    assert max(map(len, lines)) <= 40


def test_hostile_name_note_and_error_are_listed_harmlessly(tiny: Tiny, command: Command) -> None:
    text = EVIL + TAG
    folder = fake(EVIL[:9], 1, error=text, model=text, status="failed").rename(f"runs/{EVIL[:9]}")
    (folder / "annotations.json").write_text(json.dumps({"tags": [text], "note": f"{text}\nsecond"}))
    (fake("damaged", 2) / "run.json").write_text("{")
    listed = (["ls"], ["ls", "--csv"], ["ls", "--json"], ["tag", str(folder)], ["note", str(folder)], ["restore"])
    for arguments in (*listed, ["rm", str(folder)], ["restore"], ["ls", "--where", EVIL], [f"{EVIL}=1"]):
        outcome = command(*arguments, data=False)
        assert control(outcome.out + outcome.err) == set(), arguments
        assert outcome.status == (2 if EVIL in arguments[-1] else 0), outcome.err
        if "--json" in arguments:
            json.loads(outcome.out)
        elif "--csv" in arguments:
            assert len({len(row) for row in csv.reader(io.StringIO(outcome.out))}) == 1


def test_values_in_a_csv_hold_no_formula_of_a_spreadsheet(tiny: Tiny, command: Command) -> None:
    given = ("=cmd()", "@x", "+1 a", "-0.5", 0.5, None, "a=b")
    assert [csv_value(value) for value in given] == ["'=cmd()", "'@x", "'+1 a", *given[3:]]
    (fake("a", 1, metrics={"=cmd()": 0.5}) / "annotations.json").write_text('{"tags": [], "note": "=cmd()"}')
    (row,) = csv.DictReader(io.StringIO(command("ls", "--csv", data=False).out))
    assert (row["note"], row["'=cmd()"]) == ("'=cmd()", "0.5")
    sweep = Sweep.open(Path("s"), "", ["x"], {})
    Results(sweep, [Job((f"x={value}",), Path(value)) for value in ("-cmd", "-1")], []).write()
    assert [row["x"] for row in csv.DictReader(sweep.results_csv.read_text().splitlines())] == ["'-cmd", "-1"]


@pytest.mark.parametrize("text", [TAG, "a\n\n# b", "`` ` ``", "$x$", "_a_ b_c ~~d~~", "\\", "![a](b)"])
def test_text_in_markdown_is_shown_as_it_is_in_a_cell_a_line_and_code(text: str) -> None:
    page = f"{escape_markdown(text)}\n\n{code_span(text)}\n\n{markdown_table(['a', 'b'], [[text, code_span(text)]])}\n"
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(page)
    shown = re.sub(r"\s", "", text.replace("\n", "\\n"))
    found: list[str] = []
    parser = Elements("")
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(html)
    assert "".join("".join(found).split()) == f"{shown}{shown}ab{shown}{shown}"
    assert set(parser.names) <= {"p", "code", "table", "thead", "tbody", "tr", "th", "td"}


def test_template_of_a_page_escapes_values_and_their_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "x.html.j2"
    path.write_text("<p title='{{ text }}'>{{ text }}</p><script>a = {{ text | tojson }}</script>")
    text = f"{EVIL}{TAG}'"
    page = render_template(path, text=text)
    assert control(page) == set() and Elements(page).names == ["p", "script"] and not Elements(page).running
    assert page.encode()


def test_figure_shows_control_characters_escaped(tmp_path: Path) -> None:
    text = "\x1b[1mx\x07\ud800\x9b"
    figure = Figure()
    figure.suptitle(text)
    axes = figure.subplots()
    axes.plot([1, 2], label=f"{text}{TAG}")
    axes.set_xlabel(text)
    axes.legend()
    for name in ("x.svg", "x.png"):
        write_figure(figure, tmp_path / name)
    page = inline_svg(figure, "x")
    assert "iframe" not in Elements(page).names and control(page) | control((tmp_path / "x.svg").read_text()) == set()


@pytest.mark.parametrize("count", [*slow(5), *thorough(40)])
def test_hostile_texts_anywhere_reach_neither_terminal_nor_page(tiny: Tiny, command: Command, count: int) -> None:
    assert command("model=mlp", "trainer.max_epochs=1", "dashboard=none", "hydra.run.dir=runs/plain").status == 0
    assert list(fuzz("escapes", count, 0, Path("runs/plain").absolute(), Path("work"))) == []
