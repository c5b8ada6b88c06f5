"""Part of benchmarks/fuzz.py: hostile texts in runs, sweeps, files and command lines.

None of their control characters may reach the terminal or a page, and none of their tags, links or table cells may
become part of HTML or Markdown.
"""

import json
import random
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from PIL import Image

from benchmarks.fuzz_files import places_in
from mnist_lab.config.overrides import parse_override
from mnist_lab.errors import UsageError
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, write_job

HOSTILE = (
    "\x1b[2J\x1b[31mx",
    "\x1b]0;owned\x07",
    "\x1b]8;;http://evil.invalid\x1b\\link\x1b]8;;\x1b\\",
    "a\r\nmnist_lab: all is well\n",
    "\x9b31m\x85\x90\x7f",
    "\u202eabc\u2066\u200f\ufeff\u2028",
    "a\tb\bc\x0cd\x1f",
    "\ud800\udfff",
    "[bold red]x[/] [link=http://evil.invalid]y[/link] :bomb:",
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\"'><svg onload=alert(1)>",
    "[a](javascript:alert(1)) ![b](x) <javascript:alert(1)>",
    "a | b `c` **d** ``` \n\n# e\n\n| f | g |\n|---|---|\n",
    "&lt;img src=x onerror=alert(1)&gt; \\<img src=x onerror=alert(1)> \\",
    "$\\frac{$ {{ 7 * 7 }} {% x %} ${oc.env:HOME}",
)
READING = (
    ["ls"],
    ["ls", "--csv"],
    ["ls", "--json"],
    ["ls", "--group", "seed"],
    ["compare", "runs"],
    ["compare", "runs", "--out", "x.svg"],
    ["restore"],
    ["archive", "RUN", "x.zip"],
    ["tag", "RUN"],
    ["note", "RUN"],
    ["test", "RUN"],
    ["report", "RUN"],
    ["report", "SWEEP"],
    ["status", "SWEEP"],
    ["status", "SWEEP", "--csv"],
    ["export", "RUN", "--format", "state_dict", "--to", "x.pt"],
    ["export", "RUN", "--format", "safetensors"],
    ["ensemble", "RUN", "runs/b"],
    ["predict", "RUN", "NAME.png"],
    ["predict", "RUN", ".", "--csv"],
    ["predict", "RUN", "NAME.csv"],
    ["resume=RUN", "--check"],
    ["rm", "RUN", "--force"],
)


def hostile_texts(chance: random.Random, run: Path) -> list[list[str]]:
    """Write hostile texts into a run, a sweep and files of images; return commands that read them or contain them."""
    text = "".join(chance.sample(HOSTILE, chance.choice([1, 1, 2])))
    name = text.replace("/", "_").encode(errors="ignore").decode()[:80] or "x"
    folder = run.with_name(name) if chance.random() < 0.5 else run
    shutil.copytree(run, "runs/b")
    run.rename(folder)
    _change_records(chance, folder, text)
    sweep = Path("runs/sweeps/s")
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    overrides: tuple[str, ...] = ("model=mlp", f"optimizer.lr='{quoted}'")
    try:
        parse_override(overrides[1])
    except UsageError:
        overrides = ("model=mlp", "optimizer.lr=0.1")
    Sweep.open(sweep, chance.choice([text, "x"]), ["optimizer.lr"], {"0" * 12: overrides, "1" * 12: ("model=lenet",)})
    job = Job(overrides, sweep / f"{name[:40]}-{'0' * 12}", RunState.FAILED, 1, error=text, process={"host": text})
    job.folder.mkdir()
    write_job(job)
    Image.new("L", (28, 28), 255).save("x.png")
    Path("x.png").rename(f"{name}.png")
    Path(f"{name}.csv").write_bytes(f"{text},1\n".encode(errors="replace"))
    (Path(name) / name).mkdir(parents=True)
    words = {"RUN": str(folder), "SWEEP": str(sweep), "NAME": name, "resume=RUN": f"resume={folder}"}
    reading = []
    for arguments in sorted(chance.sample(READING, 5), key=READING.index):
        reading.append([words.get(word, word.replace("NAME", name)) for word in arguments])
    odd = [["test", text], ["ls", "--where", text], [f"data.source.path={text}"], [text], [f"+{text}={text}"]]
    odd += [["predict", str(folder), f"{name}.nope"], ["ls", "--columns", text]]
    return [*reading, [word.encode(errors="ignore").decode() for word in chance.choice(odd)]]


def _change_records(chance: random.Random, folder: Path, text: str) -> None:
    """Replace texts, and add keys, in run.json, config.yaml, metrics.csv and annotations.json."""
    run = Run(folder)
    record = json.loads(run.record_path.read_text())
    kept = ("status", "started", "finished")
    for place, key in chance.sample([(place, key) for place, key in _texts(record) if key not in kept], 4):
        place[key] = text
    record |= chance.choice([{}, {"model": text, "command": text}, {"error": text, "status": "failed"}])
    record["versions" if chance.random() < 0.5 else "metrics"][text] = "1"
    if "metrics" in record:
        record["metrics"] = dict.fromkeys(record["metrics"], 0.5)
    run.record_path.write_text(json.dumps(record))
    config = yaml.safe_load(run.config_path.read_text())
    config["data"]["download"] = False
    if chance.random() < 0.5:
        config |= {"name": text, "tutorial": {"title": text, "source": text, "published": {"test/acc": [0.5]}}}
    place, key = chance.sample([(place, key) for place, key in _texts(config) if isinstance(key, str)], 1)[0]
    if key != "_target_" and not key.endswith("-ubyte"):
        place[key] = text
    run.config_path.write_bytes(yaml.safe_dump(config).encode(errors="replace"))
    lines = run.metrics_path.read_text().splitlines()
    head = text.replace("\n", " ").replace('"', "'")
    lines = [f'{lines[0]},"{head}"', *(f"{line},1" for line in lines[1:])]
    run.metrics_path.write_bytes("\n".join([*lines, ""]).encode(errors="replace"))
    run.annotations_path.write_text(json.dumps({"tags": [text], "note": text}))


def _texts(record: Any) -> list[tuple[Any, Any]]:
    """Return every list and dict in a record that has a text, with the text's key."""
    return [(place, key) for place, key in places_in(record) if isinstance(place[key], str)]


class Elements(HTMLParser):
    """Collects the elements of a page, and those that run a script or link to another page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.running: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attributes:
            if name.startswith("on") or (name in ("href", "src") and (value or "").startswith(("javascript:", "x"))):
                self.running.append(f"<{tag} {name}={value}>")


def problem_of_pages(folder: Path) -> str | None:
    """Return what is wrong with the pages below a folder: control characters, scripts, links, broken tables."""
    for path in [*folder.rglob("*.html"), *folder.rglob("*.md"), *folder.rglob("*.svg"), *folder.rglob("*.log")]:
        page = path.read_text(encoding="utf-8")
        control = {c for c in page if not c.isprintable()} - {"\n"}
        if path.suffix == ".md":
            page = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
        tags = Elements(page).running + ["<script>alert"] * ("<script>alert" in page)
        if control or (tags and path.suffix != ".log"):
            return f"{path.name!r}: {sorted(control)} {tags}"
    return None


PARTS = {"escapes": hostile_texts}
