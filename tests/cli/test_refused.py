"""Invalid arguments are refused in one line, which begins with the argument, and nothing is changed."""

import shlex
from pathlib import Path

import pytest
from lab import Command, Tiny, assert_refused
from test_ls import fake_runs

REFUSED = {
    "archive a": "a: name the file to write last; it ends in .zip",
    "archive a runs/a/run.json/x.zip": "runs/a/run.json/x.zip: cannot be written",
    "unarchive none.zip": "none.zip: cannot be unpacked into runs (none.zip: No such file or directory)",
    "unarchive runs/a/run.json": "runs/a/run.json: damaged, or not an archive of runs",
    "tag a 'two words'": "two words: a tag consists of letters, digits and . + - _",
    "tag a --remove": "--remove: name the tags to remove",
    "note --where 'model =' x": "--where='model =': not a condition",
    "ls --columns run,colour": "--columns=colour: no run has it; choose from run, date, model",
    "ls --sort test/accuracy": "--sort=test/accuracy: no run has it; choose from run, date, model",
    "ls --runs-dir none": "--runs-dir=none: folder not found",
    "ls --json --csv": "argument --csv: not allowed with argument --json",
    "ls --limit 0": "--limit=0: ",
    "export runs/a runs/b --format state_dict --to x.pt": "--to=x.pt: only valid for one run; 2 ",
    "report a b --out x.html": "--out=x.html: only valid for one page; 2 ",
    "data runs": "3 runs are named; name one",
    "data runs/a/figures": "runs/a/figures: not a run; for your own images, write data=image_folder data.source.pa",
    "data runs/a/run.json": "runs/a/run.json: not a run; for your own images, write data=arrays data.source.path=run",
    "data a --out runs": "--out=runs: exists and is not a file",
    "data data.nothing=1": "data.nothing=1: unknown setting",
    "draw runs": "3 runs ",
    "predict runs a.png --show x": "--show and --out: only valid for one run",
    "predict runs a.csv": "arrays and a CSV cannot be combined",
    "predict a": "name an image",
    "compare --where 'model == lenet'": "--where='model == lenet': finds 1 run; 2 or more are needed",
    "compare a runs/a/checkpoints": "runs/a/checkpoints: not a run folder (it has no run.json)",
    "compare a runs/a/checkpoints/last.ckpt": "runs/a/checkpoints/last.ckpt: a checkpoint, which only test and predict",
    "note runs/a/checkpoints/best.ckpt": "runs/a/checkpoints/best.ckpt: checkpoint not found",
    "draw s.zip": "s.zip: run folder not found",
    "compare runs --out curves.doc": "--out=curves.doc: must end in one of .png, .pdf, .svg",
    "compare runs --out runs/a/run.json/x.png": "--out=runs/a/run.json/x.png: cannot be written",
    "presets cp champions mine": "champions: unknown preset; choose from champion, ",
    "presets cp mlp": "presets cp mlp: write presets, or presets cp NAME DIR",
    "status zzz": "zzz: neither a sweep folder (with sweep.json) nor a sweep in runs/sweeps, which has s",
    "status --runs-dir other": "latest: no sweep in other/sweeps",
    "status --watch --json": "--watch: shows a table again and again",
    "rm": "name a run, or give --where",
    "model=mlp =3": "=3: has no key; write KEY=VALUE",
    "rm a --empty-trash": "--empty-trash: deletes everything in the trash",
    "rm --where 'epochs == 9' a": "--where='epochs == 9': finds no run; 1 or more are needed",
    "rm runs/sweeps/s --where ''": "--where='': not a condition",
    "rm --where 'epochs == 1 or not test/acc > half'": "--where='epochs == 1 or not test/acc > half': test/acc > half",
    "rm 0123456789ab": "runs/sweeps/s/lr=0.1-0123456789ab: is a job of the sweep s, which would run it again; --force",
    "test nowhere": "nowhere: run folder not found",
    "test latset": "latset: run folder not found; did you mean latest?",
    "resume=nowhere": "resume=nowhere: run folder not found",
    "resume=nowhere.ckpt": "resume=nowhere.ckpt: checkpoint not found",
    "resume=runs": "resume=runs: not a run folder (it has no run.json); `ls FOLDER` lists",
    "resume=runs/sweeps/s": "resume=runs/sweeps/s: a sweep, which continues with -m sweep=s",
    "init_from=runs/a": "init_from=runs/a: checkpoint not found; name a file",
    "init_from=nowhere.ckpt": "init_from=nowhere.ckpt: checkpoint not found",
}


@pytest.mark.parametrize("line", REFUSED)
def test_arguments_are_refused_in_one_line_and_nothing_is_changed(tiny: Tiny, lab: Command, line: str) -> None:
    fake_runs()
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    outcome = lab(*shlex.split(line))
    assert_refused(outcome, REFUSED[line])
    assert outcome.out == ""
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
