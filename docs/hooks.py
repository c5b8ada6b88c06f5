"""MkDocs hooks, which make pages from the code, the notebooks and files at the top of the repository."""

import inspect
import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from html import escape
from io import StringIO
from itertools import groupby, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_type_hints
from unittest.mock import patch

import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from mnist_lab.cli.commands import COMMANDS, help_text
from mnist_lab.config import conf_dir
from mnist_lab.config.compose import compose
from mnist_lab.config.targets import find_class
from mnist_lab.config.validate import LIMITS, parameter_types
from mnist_lab.formatting import format_value
from mnist_lab.runs.record import RunRecord
from mnist_lab.runs.run import PathIn, Run
from mnist_lab.training.train import train
from mnist_lab.web.page import page_of

ROOT = Path(__file__).parents[1]
# What each path of Run is for. The build fails if one is missing here.
RUN_FOLDER = {
    "record_path": "the record of the run: status, command, metrics, times, versions, git commit, checkpoints",
    "config_path": "the whole configuration",
    "metrics_path": "every curve, a row a logged step",
    "log_path": "messages and the traceback of an error; only for runs from the command line",
    "source_path": "uncommitted changes of the code; `git.restore` in run.json applies them",
    "report_path": "the page that `report` writes",
    "data_page_path": "the page that `data` writes",
    "annotations_path": "tags and a note, as `tag` and `note` write them",
    "job_path": "the job's state in its sweep; only for jobs",
    "pruned_path": "the number of epochs after which a search stopped the job",
    "checkpoints_folder": "plain tensors and values, which load with `weights_only=True`",
    "figures_folder": "curves, test digits with labels and predictions, worst errors, confusion matrix, filters",
    "exports_folder": "what `export` writes, each file with its model card",
    "wandb_folder": "offline runs of `logger=wandb`, for `wandb sync`",
    "projector_folder": "test images in the space before the last layer, for TensorBoard",
    "projector_config_path": "shows TensorBoard where the projector's files are",
}
# The guides of the gallery, in its order.
GALLERY = (
    *("draw", "report", "sweeps", "search", "compare", "robustness", "look-at-data", "predict", "export", "recipes"),
    *("learning-rate", "tensorboard", "trackers", "reproduce", "own-data", "data", "train", "resume", "clusters"),
    *("ensemble", "housekeeping", "own-network", "extend"),
)
# Keys of configuration files that the configuration's page leaves out.
NOT_SHOWN = ("defaults", "hydra", "_target_", "_partial_", "sha256", "md5", "tutorial")
TOP = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "results/RESULTS.md": "results/tutorials.md",
    "results/RECORDS.md": "results/leaderboard.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and pictures."""
    pages = {
        "reference/cli.md": commands_page(),
        "reference/configuration.md": configuration_page(),
        "reference/run-folder.md": run_folder_page(),
        "gallery.md": gallery_page(),
    }
    for source, page in TOP.items():
        pages[page] = (ROOT / source).read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        body, pictures = notebook_page(path)
        pages[f"lessons/{path.stem}.md"] = body
        files.append(File.generated(config, f"lessons/{path.name}", content=path.read_bytes()))
        for name, content in pictures.items():
            files.append(File.generated(config, f"lessons/{name}", content=content))
    for path in sorted((ROOT / "results").glob("*.png")):
        files.append(File.generated(config, f"results/{path.name}", content=path.read_bytes()))
    files.append(File.generated(config, "demo.html", content=demo_page()))
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


@cache
def demo_page() -> str:
    """Return the page of LeNet, trained for three epochs."""
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        settings = ("trainer.max_epochs=3", "callbacks.checkpoint.every_n_epochs=1", "figures=false", "logger=none")
        return page_of(train(compose("model=lenet", *settings, f"hydra.run.dir={folder}")))


def commands_page() -> str:
    """Return the page of the command line: the help of the program and of each command."""
    parts = ["# Command line", "```text\n" + help_text([]).rstrip() + "\n```"]
    for name, command in COMMANDS.items():
        if name == "train":  # It prints the help of the program.
            continue
        printed = StringIO()
        with redirect_stdout(printed), patch.dict(os.environ, COLUMNS="90"), suppress(SystemExit):
            command(["--help"])
        parts.append(f"## {name}\n\n```text\n{printed.getvalue().rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def configuration_page() -> str:
    """Return the page of the configuration: each group's choices, and their keys with default, comment and type."""
    groups = {
        folder.name: {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        for folder in sorted(path for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra")
    }
    index = [
        f"| [`{group}`](#{group}) | {' '.join(f'[`{name}`](#{group}{name})' for name in choices)} |"
        for group, choices in groups.items()
    ]
    parts = [
        "# Configuration",
        "Generated from `conf/` and from the constructors' signatures. A group's choice is set by `GROUP=CHOICE`,\n"
        "a value by its dotted name. `python -m mnist_lab --cfg job` prints the configuration of a command line.\n"
        "The page leaves out checksums of data, published figures of tutorials, and settings that follow from others.",
        "| group | choices |\n|---|---|\n" + "\n".join(index),
        "## Root\n\n`conf/train.yaml`\n\n" + _table(_rows(conf_dir() / "train.yaml", "")),
    ]
    for group, choices in groups.items():
        parts.append(f"## {group}")
        for name, path in choices.items():
            header = _header(path)
            table = _table(_rows(path, "" if group == "experiment" else f"{group}."))
            parts += filter(None, (f"### {group}={name}", header, table))
    return "\n\n".join(parts) + "\n"


def _header(path: Path) -> str:
    """Return the comment that a file begins with; its indented lines, such as a table's, stay as they are."""
    text = path.read_text(encoding="utf-8").partition("# @")[0]
    lines = [line[1:].removeprefix(" ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
    blocks = ((indented, "\n".join(block)) for indented, block in groupby(lines, lambda line: line.startswith(" ")))
    return "\n\n".join(f"```text\n{textwrap.dedent(text)}\n```" if indented else text for indented, text in blocks)


def _rows(path: Path, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type, default and comment of each value in a configuration file."""
    text = path.read_text(encoding="utf-8").partition("# Derived from other settings")[0]
    comments = dict(re.findall(r"^\s*([\w]+):.*?\s# (.*)$", text, flags=re.MULTILINE))
    node = OmegaConf.to_container(OmegaConf.create(text))
    yield from _values(node if isinstance(node, dict) else {}, prefix, comments)


def _values(node: dict[Any, Any], prefix: str, comments: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    hints: dict[str, Any] = {}
    if "_target_" in node and "${" not in str(node["_target_"]):
        hints = parameter_types(find_class(node["_target_"], prefix))
    for name, value in node.items():
        key = f"{prefix}{name}"
        if name in NOT_SHOWN or str(name).startswith("override "):
            continue
        if isinstance(value, dict) and value:
            yield from _values(value, f"{key}.", comments)
        else:
            annotation = LIMITS.get(key, hints.get(str(name)))
            default = "required" if value == "???" else format_value(value)
            yield key, describe_type(annotation), default, comments.get(str(name), "")


def describe_type(annotation: Any) -> str:
    """Return a type and its range in words, from pydantic's JSON schema."""
    if annotation in (None, Any):
        return ""
    try:
        schema = TypeAdapter(annotation).json_schema()
    except Exception:  # Pydantic has no schema for classes of torch and Lightning.
        return getattr(annotation, "__name__", "")
    return _schema_text(schema)


def _schema_text(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(filter(None, map(_schema_text, schema["anyOf"]))))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = ", ".join(f"{sign} {schema[key]:,.10g}" for key, sign in signs.items() if key in schema)
    kind = schema.get("type", "")
    if kind == "array" and "items" in schema:
        kind = f"list of {_schema_text(schema['items'])}"
    return f"{kind} {limits}".strip()


def _table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    """Return a table whose long words may break after dots, commas, colons and braces only; empty without rows."""
    lines, place = [], re.compile(r"(?<=[,:{])(?=[^\s.,])|(?<=\.)(?=[^\s.,\d])")
    for cells in rows:
        key, kind, default, comment = (place.sub("<wbr>", escape(cell)) for cell in cells)
        kind = f"<em>{kind}</em>" if kind else ""
        texts = "; ".join(filter(None, (comment, kind)))
        lines.append(f"<tr><td><code>{key}</code></td><td><code>{default}</code></td><td>{texts}</td></tr>")
    head = "<thead><tr><th>key</th><th>default</th><th>meaning; <em>type</em></th></tr></thead>"
    return f'<table class="keys">{head}<tbody>{"".join(lines)}</tbody></table>' if lines else ""


def gallery_page() -> str:
    """Return the page with the pictures of the guides, each with the last command above it.

    A guide's first picture has the guide's title, each further one that of its section.
    """
    parts = ["---\nhide: [toc]\nsearch: {exclude: true}\n---", "# Gallery"]
    parts.append("What the lab shows, each with the command that makes it. A picture leads to its guide.")
    parts.append('<div class="gallery" markdown>')
    for name in GALLERY:
        page = f"guides/{name}.md"
        text = re.sub(r" \\\n +", " ", (ROOT / "docs" / page).read_text(encoding="utf-8"))  # a command, a line
        for i, picture in enumerate(re.finditer(r"!\[(.*?)\]\(\.\./(.*?)\)", text)):
            above = text[: picture.start()]
            commands = re.findall(r"^(?:\$ )?((?:python|tensorboard|mlflow) .*?)(?: +#.*)?$", above, re.M)
            title = re.findall(r"^#+ (.+)$", above, re.M)[-1 if i else 0]
            card = f"## {title}\n\n[![{picture[1]}]({picture[2]})]({page})\n\n```\n{commands[-1]}\n```"
            parts.append(f"<div markdown>\n\n{card}\n\n</div>")
    return "\n\n".join([*parts, "</div>"]) + "\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Give each public name of the Python page the line that imports it as its heading."""
    heading = r"::: \1.\2\n    options:\n      heading: from \1 import \2\n      toc_label: \2"
    return re.sub(r"^::: (mnist_lab[\w.]*)\.(\w+)(\n    options:)?$", heading, markdown, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Link each picture to itself, for a look at its full size."""
    picture = re.compile(r'(<a [^>]*>)?(<img [^>]*?src="([^"]+)"[^>]*>)')
    return picture.sub(
        lambda match: match[0] if match[1] else f'<a class="picture" href="{match[3]}">{match[2]}</a>', html
    )


def run_folder_page() -> str:
    """Return the page of the run folder: the paths of Run, and the entries of run.json."""
    names = [name for name, member in vars(Run).items() if isinstance(member, PathIn)]
    paths = {getattr(Run(Path()), name): RUN_FOLDER[name] for name in names}
    paths[Path("checkpoints/best.ckpt")] = "the best epoch by `callbacks.best.monitor`, by default validation accuracy"
    paths[Path("checkpoints/last.ckpt")] = "the last epoch, or step; training continues from it"
    paths[Path("checkpoints/epoch-N.ckpt")] = "the state after N epochs, of a single run of a small network"
    paths[Path("events.out.tfevents.*")] = "TensorBoard's event files"
    rows = [f"| `{path.as_posix()}` | {text} |" for path, text in sorted(paths.items())]
    entries = [
        f"| `{name}` | {_annotation_text(annotation)} |" for name, annotation in get_type_hints(RunRecord).items()
    ]
    return "\n\n".join(
        (
            "# Run folder",
            "Generated from `mnist_lab.Run` and from the type of `run.json`.",
            "| path | |\n|---|---|\n" + "\n".join(rows),
            "## run.json",
            textwrap.fill(inspect.getdoc(RunRecord) or "", 118),
            "| entry | type |\n|---|---|\n" + "\n".join(entries) + "\n",
        )
    )


def _annotation_text(annotation: Any) -> str:
    """Return an annotation as Python source, escaped for a table."""
    arguments = get_args(annotation)
    text = annotation.__name__ if inspect.isclass(annotation) and not arguments else str(annotation)
    return f"`{re.sub(r'[a-z_.]+[.](?=[A-Z])', '', text)}`".replace("|", "\\|")


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown with formulas as MathML, and its pictures by their names."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(?s)\$\$(.+?)\$\$", lambda match: convert(match[1], display="block"), cell.source)
            # A tag that begins a line would begin a paragraph, were it not in a span.
            cell.source = re.sub(r"\$(.+?)\$", lambda match: f"<span>{convert(match[1])}</span>", cell.source)
            cell.source = cell.source.replace("<details>", "<details markdown>")
            cell.source = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", cell.source)
            cell.source = cell.source.replace("](../results/RESULTS.md)", "](../results/tutorials.md)")
            cell.source = cell.source.replace("Lines with a small triangle unfold", "Boxes with an arrow unfold")
    cells_for_answers = TagRemovePreprocessor(remove_cell_tags={"answer"}, enabled=True)
    body, resources = MarkdownExporter(preprocessors=[cells_for_answers]).from_notebook_node(notebook)
    pictures = {f"{path.stem}_{name}": content for name, content in resources["outputs"].items()}
    for name in resources["outputs"]:
        body = body.replace(f"]({name})", f"]({path.stem}_{name})")
    body = re.sub(r'</pre>\s*<pre style="[^"]*">', "", body)  # Each line of a run's progress is an output.
    body = body.replace("line-height:normal;", "font-size:.68rem;line-height:1.4;")
    title, _, body = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", body).partition("\n")
    unfold = "A box with an arrow unfolds when you click on it."
    how = f"{unfold} To run and change the code, open [the notebook]({path.name}) in Jupyter."
    return f"{title}\n\n> {how}\n{body}", pictures
