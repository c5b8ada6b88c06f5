"""`python -m mnist_lab data [RUN] [KEY=VALUE ...]`: look at a data set, and at the labels that a network doubts."""

from pathlib import Path

from omegaconf import OmegaConf

from mnist_lab.cli.parser import CommandParser, find_named_runs
from mnist_lab.config.compose import compose
from mnist_lab.console import working_on
from mnist_lab.errors import UsageError
from mnist_lab.files import require_writable_file
from mnist_lab.formatting import display_path, print_lines
from mnist_lab.runs.run import Run
from mnist_lab.sweeps.process import import_torch
from mnist_lab.tables import print_table

PRINTED = 10  # The page shows more of the doubted labels.


def main(arguments: list[str]) -> None:
    parser = CommandParser("data")
    parser.add_runs("KEY=VALUE ...", "settings, as for train, or changes to the run's")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: data.html, in RUN if given)")
    parser.add_argument("--config-dir", help="a folder with your own configuration")
    options = parser.parse_runs(arguments)
    overrides = [word for word in options.runs if "=" in word and not Path(word).exists()]
    names = [word for word in options.runs if word not in overrides]
    for name in names:
        if Path(name).exists() and not Run.below(name):
            kind = "image_folder" if Path(name).is_dir() else "arrays"
            raise UsageError(f"{name}: not a run; for your own images, write data={kind} data.source.path={name}")
    run, *others = find_named_runs(options, names) if names or options.where is not None else [None]
    if others:
        raise UsageError(f"{len(others) + 1} runs are named; name one")
    path = options.out or (run.data_page_path if run else Path("data.html"))
    require_writable_file(path, f"--out={path}")
    cfg = run.config if run else compose(*overrides, config_dir=options.config_dir)
    name = OmegaConf.select(cfg, "data.source.name") or OmegaConf.select(cfg, "data.source.path")
    import_torch(f"reading {name}")
    from mnist_lab.config.validate import validate, validate_parts
    from mnist_lab.data.summary import summarise
    from mnist_lab.evaluation.evaluate import override_config
    from mnist_lab.report.data import data_page, find_doubts
    from mnist_lab.report.render import write_page
    from mnist_lab.training.build import complete_data, load_trained_model, make_data, make_model

    if run:
        validate_parts(override_config(cfg, overrides))
    else:
        validate(cfg)
    cfg = complete_data(cfg)
    model = load_trained_model(run) if run else make_model(cfg)
    data = make_data(cfg, model)
    data.prepare_data()
    with working_on(f"comparing the images{', and their labels with the predictions' if run else ''}"):
        summary, doubts = summarise(data), find_doubts(model, data) if run else None
        header = {"title": OmegaConf.select(cfg, "data.source.name") or "your own data", "run": run and str(run)}
        write_page("data", data_page(data, summary, doubts) | header, path)
    summary.print()
    if doubts is not None:
        print_lines(f"labels that the network doubts: {len(doubts):,}")
    if doubts:
        heads = ("set", "image", "label", "p(label)", "predicted", "p(predicted)")
        print_table(heads, [texts for texts, _ in doubts[:PRINTED]], left=heads[:3], cut="image")
    print_lines(f"written: {display_path(path)}")
