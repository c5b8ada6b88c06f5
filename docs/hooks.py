"""MkDocs hooks, which make pages from the code, the notebooks and files at the top of the repository."""

import inspect
import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from html import escape
from io import StringIO
from itertools import chain, takewhile
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_args, get_type_hints
from unittest.mock import patch

import nbformat
from latex2mathml.converter import convert
from markdown.extensions.toc import slugify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from mnist_lab.cli.commands import COMMANDS, help_text
from mnist_lab.config import conf_dir
from mnist_lab.config.compose import compose
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
# The guides of the gallery, in its order: those whose pictures show more than a terminal.
GALLERY = (
    *("draw", "report", "sweeps", "compare", "robustness", "look-at-data", "predict", "export", "recipes"),
    *("learning-rate", "tensorboard"),
)
# Keys of configuration files that the configuration's page leaves out: the last line's describe data and are not set.
NOT_SHOWN = (
    *("defaults", "hydra", "_target_", "_partial_", "tutorial"),
    *("sha256", "md5", "files", "folders", "validation", "background", "data.source.name"),
)
# The top of the configuration's page; the box shows the keys whose rows have all its words.
CONFIGURATION = """# Configuration

Choose a file of a group by `GROUP=CHOICE`, and set any value by its key: `optimizer=adam optimizer.lr=0.001`.
`python -m mnist_lab --cfg job` prints the whole configuration of a command line.

<div>
<input class="filter" type="search" placeholder="Find a key: patience, batch, gpu ..." aria-label="Find a key">
</div>
<script>
document.querySelector(".filter").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().trim();
  document.querySelector("article").classList.toggle("filtered", words !== "");
  for (const row of document.querySelectorAll(".keys tbody tr"))
    row.hidden = !words.split(/\\s+/).every(word => row.textContent.toLowerCase().includes(word));
});
</script>"""
TOP = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "results/RESULTS.md": "results/tutorials.md",
    "results/RECORDS.md": "results/leaderboard.md",
}


class Setting(NamedTuple):
    """A value of the configuration, in words."""

    default: str
    kind: str
    meaning: str


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and pictures."""
    pages = {
        "reference/cli.md": commands_page(),
        "reference/configuration.md": configuration_page(),
        "reference/run-folder.md": run_folder_page(),
        "gallery.md": gallery_page(),
    }
    for source, page in TOP.items():
        pages[page] = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
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
    """Return the page of the configuration: each group's choices, and its keys with default, meaning and type."""
    root = conf_dir() / "train.yaml"
    chosen = {
        name.removeprefix("override "): choice
        for entry in _load(root)["defaults"]
        if isinstance(entry, dict)
        for name, choice in entry.items()
    }
    groups = {group: sorted((conf_dir() / group).glob("*.yaml")) for group in chosen}
    groups["data"].remove(conf_dir() / "data" / "default.yaml")  # What the choices have in common.
    general = _settings(root)
    index = [f"| [General](#general) | {' '.join(f'`{key}`' for key in general)} |"]
    parts = ["## General", _table("", {root.stem: general}, root.stem)]
    for group, paths in groups.items():
        names = [f"**`{path.stem}`**" if path.stem == chosen[group] else f"`{path.stem}`" for path in paths]
        index.append(f"| [{group}](#{group.replace('/', '')}) | {' '.join(names)} |")
        about = [f"{name}\n:   {_about(path)}" for name, path in zip(names, paths, strict=True)]
        parts += [f"## {group}", "\n\n".join(about)]
        if group != "experiment":
            settings = {path.stem: _settings(path) for path in paths}
            parts.append(_table(f"{group.replace('/', '.')}.", settings, chosen[group]))
    head = "| group | choices, the default in **bold** |\n|---|---|\n"
    return "\n\n".join((CONFIGURATION, head + "\n".join(index), *filter(None, parts))) + "\n"


def _load(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8").partition("# Derived from other settings")[0]
    node = OmegaConf.to_container(OmegaConf.create(text))
    return {str(name): value for name, value in node.items()} if isinstance(node, dict) else {}


def _about(path: Path) -> str:
    """Return the comment that a file begins with, without indented lines; for a preset also what it sets."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = " ".join(line[2:] for line in lines if not line.startswith(("# @", "#  ")))
    if path.parent.name != "experiment":
        return re.sub(r"(?<![\w'/.])[\w./+]+=[\w.,]*\w(?![\w(])", r"`\g<0>`", text)
    node, words = _load(path), []
    for entry in node["defaults"]:
        choices = entry if isinstance(entry, dict) else {"experiment": entry}
        words += [
            f"{name.removeprefix('override /')}={choice}" for name, choice in choices.items() if choice != "_self_"
        ]
    values = {key: format_value(value).replace(" ", "") for key, value, _ in _values(node, "")}
    words += [
        f"{key}={value}" for key, value in values.items() if not any(name.startswith(f"{key}.") for name in values)
    ]
    purpose = re.sub(r": python -m .*?(?= Published| Here| This)", ".", text)
    return f"{purpose}\n\n    Sets {' '.join(f'`{word}`' for word in words)}"


def _settings(path: Path) -> dict[str, Setting]:
    """Return the settings of a configuration file, by key, and of those that it builds on."""
    node, text = _load(path), path.read_text(encoding="utf-8")
    settings: dict[str, Setting] = {}
    for entry in node.get("defaults", ()):
        if isinstance(entry, str) and entry != "_self_":
            settings |= _settings(path.with_stem(entry))
    place, meanings = [], {}
    for indent, name, meaning in re.findall(r"^( *)([\w.]+):(?:[^\n]*?\s# ([^\n]*))?$", text, re.MULTILINE):
        place = [*place[: len(indent) // 2], name]
        meanings[".".join(place)] = meaning
    prefix = ".".join((*path.parent.relative_to(conf_dir()).parts, ""))
    for key, value, annotation in _values(node, prefix):
        key = key.removeprefix(prefix)
        known = settings.get(key, Setting("", "", ""))
        kind, meaning = describe_type(annotation) or known.kind, meanings.get(key) or known.meaning
        default = "required" if value == "???" else format_value(value)
        is_expression = default.startswith("${") and len(default) > 30
        settings[key] = Setting("computed" if is_expression else default, kind if len(kind) < 60 else "", meaning)
    return settings


def _values(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value and type of each setting that the page shows; of an object also the name of its class."""
    target = node.get("_target_", "${")
    types = {} if "${" in target else parameter_types(resolve_name(target))
    for name, value in node.items():
        key = f"{prefix}{name}"
        if name in NOT_SHOWN or key in NOT_SHOWN:
            continue
        if isinstance(value, dict) and value:
            if "_target_" in value:
                yield key, value["_target_"].rpartition(".")[2], None
            yield from _values(value, f"{key}.")
        else:
            yield key, value, LIMITS.get(key, types.get(name))


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


def _table(prefix: str, choices: dict[str, dict[str, Setting]], default: str | None) -> str:
    """Return the table of the keys of a group's choices; empty without keys.

    The names of the choices follow a key's default where it is not that of the whole group, or not all have the key.
    """
    rows = []
    for key in dict.fromkeys(chain.from_iterable(choices.values())):
        having = {name: settings[key] for name, settings in choices.items() if key in settings}
        names: dict[str, list[str]] = {}
        for choice, setting in having.items():
            names.setdefault(setting.default, []).append(choice)
        values = []
        for value in sorted(names, key=lambda value: default not in names[value]):
            is_usual = len(having) == len(choices) and default in names[value]
            of = "" if is_usual else f" <small>{' '.join(names[value])}</small>"
            values.append(f"<code>{_breakable(value)}</code>{of}")
        meaning = next((_breakable(setting.meaning) for setting in having.values() if setting.meaning), "")
        assert meaning, f"{prefix}{key}: write a comment in conf/ that says what it means"
        kind = next((f"<em>{_breakable(setting.kind)}</em>" for setting in having.values() if setting.kind), "")
        texts = "; ".join(filter(None, (meaning, kind)))
        cells = (f"<code>{_breakable(prefix + key)}</code>", "<br>".join(values), texts)
        rows.append(f'<tr id="{prefix}{key}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    head = "<thead><tr><th>key</th><th>default</th><th>meaning; <em>type</em></th></tr></thead>"
    return f'<table class="keys">{head}<tbody>{"".join(rows)}</tbody></table>' if rows else ""


def _breakable(text: str) -> str:
    """Escape a text, whose long words may break after dots, commas, colons and braces only."""
    return re.sub(r"(?<=[,:{])(?=[^\s.,])|(?<=\.)(?=[^\s.,\d])", "<wbr>", escape(text))


def gallery_page() -> str:
    """Return the page with the pictures of some guides, each with what one sees and the last command above it.

    A guide's first picture has the guide's title, each further one that of its section.
    """
    titles, cards = [], []
    for name in GALLERY:
        page = f"guides/{name}.md"
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for i, picture in enumerate(re.finditer(r"!\[(.*?)\]\(\.\./(.*?)\)", text)):
            above = text[: picture.start()]
            commands = re.findall(r"^(?:\$ )?((?:python|tensorboard) (?:.*\\\n)*.*?)(?: +#.*)?$", above, re.M)
            titles.append(re.findall(r"^#+ (.+)$", above, re.M)[-1 if i else 0])
            about = f"{picture[1]}. [The guide]({page})"
            cards.append(f"## {titles[-1]}\n\n{about}\n\n```\n{commands[-1]}\n```\n\n![{picture[1]}]({picture[2]})")
    index = " · ".join(f"[{title}](#{slugify(title, '-')})" for title in titles)
    head = "---\nhide: [toc]\nsearch: {exclude: true}\n---\n\n# Gallery\n\n"
    intro = "What the lab shows, each with its command. A click on a picture opens it alone."
    return "\n\n".join((f"{head}{intro}", index, *cards)) + "\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """List the public names of the Python page at its top, and head each with the line that imports it."""
    name = re.compile(r"^::: ((mnist_lab[\w.]*)\.(\w+))(\n    options:)?$", re.MULTILINE)
    rows = [f"| [`{found[3]}`](#{found[1]}) | {_summary(found[1])} |" for found in name.finditer(markdown)]
    markdown = markdown.replace("| NAMES |", "| name | |\n|---|---|\n" + "\n".join(rows))
    heading = r"::: \1\n    options:\n      heading: from \2 import \3\n      toc_label: \3"
    return name.sub(heading, markdown)


def _summary(name: str) -> str:
    """Return the first paragraph of a docstring."""
    return " ".join((inspect.getdoc(resolve_name(name)) or "").partition("\n\n")[0].split())


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
