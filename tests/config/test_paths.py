"""Settings that are paths are taken as they are typed, on every command line and from Python."""

import random
import shlex
from pathlib import Path

import pytest
from lab import Command, Tiny, slow, thorough

from mnist_lab.config.compose import compose
from mnist_lab.config.overrides import parse_override, quote_paths
from mnist_lab.runs.run import Run

NAMES = [
    "größe",
    "Anna's",
    "two  spaces",
    "k=v",
    "x,y",
    "[new]",
    "f(1)",
    "{b}",
    "1e3",
    "true",
    'an "o"',
    "a\\b",
    "a: #1",
]
ODD = "aé1 .,:;=+-~'\"()[]{}<>|&#%@!?*^_/"


def test_path_of_any_characters_is_taken_as_it_is_typed() -> None:
    draw = random.Random(5)
    text = f"/tmp/{''.join(NAMES)}/epoch=2-step=9.ckpt"
    drawn = [f"x{''.join(draw.choices(ODD, k=length % 20))}x" for length in range(200)]
    for path in (text, *drawn, *NAMES, *(f"/tmp/{name}/epoch=2-step=9.ckpt" for name in NAMES)):
        assert parse_override(*quote_paths([f"data.source.path={path}"])).value() == path
    cfg = compose(*(f"{key}={text}" for key in ("data.root", "init_from", "runs_dir")))
    assert [cfg.data.root, cfg.init_from, cfg.runs_dir] == [text] * 3


@pytest.mark.parametrize("key", ["data.root", "data.source.path", "init_from", "hydra.run.dir", "callbacks.x.dirpath"])
def test_tilde_is_the_home_of_the_user(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/Ann O'Neil")
    values = [parse_override(typed).value() for typed in quote_paths([f"{key}=~/my=digits", f"{key}=~", f"{key}=~x"])]
    assert values == ["/home/Ann O'Neil/my=digits", "/home/Ann O'Neil", "~x"]


def test_tilde_of_an_option_is_the_home_too(command: Command, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny.folder))
    assert command("--config-dir=~/conf", "data=tiny", "model=mlp", "--check", data=False).status == 0


@pytest.mark.parametrize(
    "override",
    [
        "data.root=null",
        "runs_dir=",
        "data.root=${oc.env:HOME,/a}",
        "data.root='a b'",
        'init_from="it\'s"',
        "runs_dir=runs/a",
        "model=mlp",
        "~data.root",
        "optimizer.lr=[1",
    ],
)
def test_what_hydra_reads_as_it_is_meant_stays_as_it_is(override: str) -> None:
    assert quote_paths([override]) == [override]


@pytest.mark.parametrize(
    ("typed", "jobs"),
    [
        ("init_from=~/größe 1.ckpt,it's.ckpt", 2),
        ("init_from='a,b.ckpt',c.ckpt, d.ckpt", 3),
        ("init_from=choice(a,b)", 2),
        ("init_from=${oc.env:HOME,x}/a.ckpt,b=1.ckpt", 2),
    ],
)
def test_comma_separates_paths_in_a_sweep_only(typed: str, jobs: int) -> None:
    (override,) = quote_paths([typed], is_sweep=True)
    assert len(list(parse_override(override).sweep_string_iterator())) == jobs
    assert not parse_override(*quote_paths([typed])).is_sweep_override()


def test_run_with_odd_paths_can_be_repeated_resumed_and_tested(command: Command, tiny: Tiny) -> None:
    name = "Anna's [new] k=v, größe"
    root = tiny.root.rename(tiny.folder / name)
    folder = Path("runs") / name
    given = ("model=mlp", f"data.root={root}", "trainer.max_epochs=1")
    outcome = command(*given, f"hydra.run.dir={folder}")
    assert outcome.status == 0, outcome.err
    run = Run(folder)
    assert run.config.data.root == str(root) and outcome.out.endswith(f"run folder: {folder}\n")
    repeated = shlex.split(run.info["command"])[3:]
    assert command(*repeated, "--check", data=False).status == 0
    assert command(f"resume={folder}", "trainer.max_epochs=2", data=False).status == 0
    assert run.info["epochs"] == 2
    assert command("test", str(folder), f"data.root={root}", data=False).status == 0


@pytest.mark.parametrize("launcher", [*slow("local"), *thorough("processes")])
def test_sweep_over_odd_paths_trains_with_each(command: Command, tiny: Tiny, launcher: str) -> None:
    assert command("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/a").status == 0
    for name in ("it's 1.ckpt", "k=v.ckpt"):
        (tiny.folder / name).write_bytes(Path("runs/a/checkpoints/last.ckpt").read_bytes())
    typed = f"init_from={tiny.folder / 'k=v.ckpt'},{tiny.folder}/it's 1.ckpt"
    given = ("-m", "model=mlp", "trainer.max_epochs=1", "sweep=s", f"hydra/launcher={launcher}", typed)
    outcome = command(*given)
    assert outcome.status == 0, outcome.err
    runs = Run.below("runs/sweeps/s")
    assert sorted(Path(run.config.init_from).name for run in runs) == ["it's 1.ckpt", "k=v.ckpt"]
    assert "2 finished" in command(*given, "--check").out
