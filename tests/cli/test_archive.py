"""An archive restores runs bit for bit, or nothing."""

import hashlib
import json
import os
import random
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from lab import Command, Tiny, assert_refused, thorough
from test_ls import fake, names

from mnist_lab.runs.archive import MANIFEST
from mnist_lab.runs.locks import run_lock
from mnist_lab.runs.sweep import Sweep


@pytest.fixture
def lab(tiny: Tiny, lab: Command) -> Command:
    """Make the runs a, b and sweeps/s/c, and return the command without the tiny data's settings."""
    for number, name in enumerate(("a", "b", "sweeps/s/c")):
        fake(name, number)
        (Path("runs") / name / "checkpoints" / "best.ckpt").write_bytes(random.Random(number).randbytes(300_000))
    (Path("runs/a/.lock")).touch()
    return lab


def content(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: value for name, value in found.items() if not name.endswith(".lock")}


def test_archive_restores_the_runs_in_their_places(lab: Command) -> None:
    outcome = lab("archive", "a", "runs/sweeps", "out/two.zip")
    assert (outcome.status, outcome.out) == (0, "written: out/two.zip (2 runs, 10 files, 0.6 MB)\n"), outcome.err
    unpacked = lab("unarchive", "out/two.zip", "--runs-dir", "elsewhere")
    assert unpacked.out == "unpacked: elsewhere/a\nunpacked: elsewhere/sweeps/s/c\n"
    assert content(Path("elsewhere")) == {
        name: value for name, value in content(Path("runs")).items() if not name.startswith("b/")
    }
    assert names(lab("ls", "--runs-dir", "elsewhere")) == ["a", "c"]
    assert not list(Path("elsewhere").glob(".*"))


def test_nothing_is_unpacked_if_a_run_exists(lab: Command) -> None:
    lab("archive", "a", "sweeps/s/c", "all.zip")
    lab("rm", "a")
    outcome = lab("unarchive", "all.zip")
    assert (outcome.status, "runs/sweeps/s/c: is there already" in outcome.err) == (2, True)
    assert not Path("runs/a").exists()
    Path("new/sweeps/s").mkdir(parents=True)
    Path("new/sweeps/s/c").symlink_to("nowhere/at/all")
    assert lab("unarchive", "all.zip", "--runs-dir", "new").status == 2
    assert [path.name for path in Path("new").iterdir()] == ["sweeps"]


@pytest.mark.parametrize("number", [*range(2), *thorough(*range(2, 12))])
def test_damaged_archive_is_refused_in_one_line_and_leaves_nothing(lab: Command, number: int) -> None:
    lab("archive", "a", "b", "x.zip")
    whole, chance = bytearray(Path("x.zip").read_bytes()), random.Random(number)
    if number % 4 == 0:
        del whole[chance.randrange(len(whole)) :]
    else:
        for _ in range(3):
            whole[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    Path("x.zip").write_bytes(whole)
    outcome = lab("unarchive", "x.zip", "--runs-dir", "new")
    if outcome.status == 0:  # The change was in something without a meaning, such as a date.
        assert content(Path("new/a")) == content(Path("runs/a"))
        return
    assert_refused(outcome, "x.zip: ")
    assert not Path("new").exists() or not list(Path("new").iterdir())


def test_run_in_use_is_not_archived(lab: Command) -> None:
    with run_lock(Path("runs/a")):
        outcome = lab("archive", "a", "x.zip")
    assert (outcome.status, Path("x.zip").exists()) == (2, False)
    assert "runs/a: is in use by process" in outcome.err


@pytest.mark.parametrize("names", [["runs"], ["runs/sweeps/s", "c"]])
def test_sweep_is_archived_whole(lab: Command, names: list[str]) -> None:
    sweep = Path("runs/sweeps/s")
    Sweep.open(sweep, "-m sweep=s", ["seed"], {"c": ("seed=1",)})
    for name in ("results.csv", "results.json", "response.png", "study.journal", ".session.pickle", ".stop"):
        (sweep / name).write_text(name)
    assert lab("archive", *names, "s.zip").status == 0
    assert lab("unarchive", "s.zip", "--runs-dir", "new").status == 0
    there = content(Path("new/sweeps/s"))
    assert there == {name: value for name, value in content(sweep).items() if not name.startswith(".")}
    assert {"sweep.json", "results.json", "study.journal", "c/run.json"} <= set(there)
    assert lab("archive", "c", "c.zip").out.startswith("written: c.zip (1 run, 5 files")


@pytest.mark.slow
def test_unpacked_sweep_continues(command: Command) -> None:
    swept = ("-m", "model=mlp", "trainer.max_epochs=1", "dashboard=none", "sweep=s")
    assert command(*swept, "seed=1,2").status == 0
    results = Path("runs/sweeps/s/results.json").read_bytes()
    assert command("archive", "runs/sweeps/s", "s.zip", data=False).status == 0
    assert command("unarchive", "s.zip", "--runs-dir", "new", data=False).status == 0
    (removed,) = Path("new/sweeps/s").glob("seed=2-*")
    shutil.rmtree(removed)
    before = {path: path.read_bytes() for path in Path("new/sweeps/s").glob("seed=1-*/run.json")}
    assert command(*swept, "seed=1,2", "runs_dir=new").status == 0
    assert before == {path: path.read_bytes() for path in before} and removed.is_dir()
    unpacked = Path("new/sweeps/s/results.json").read_bytes()
    assert json.loads(unpacked)["best"]["val/acc"] == json.loads(results)["best"]["val/acc"]


def test_nested_runs_are_packed_once(lab: Command) -> None:
    fake("a/tuned/deeper", 5)
    assert "(2 runs, " in lab("archive", "a", "runs/a/tuned/deeper", "runs/a", "n.zip").out
    assert lab("unarchive", "n.zip", "--runs-dir", "new").out == "unpacked: new/a\n"
    assert content(Path("new/a")) == content(Path("runs/a"))


def test_links_out_of_the_run_are_left_out_with_a_warning(lab: Command) -> None:
    Path("secret").mkdir()
    Path("secret/key").write_text("secret")
    inside, outside = Path("runs/a/checkpoints/copy.ckpt"), [Path("runs/a", name) for name in ("key", "folder", "none")]
    inside.symlink_to("best.ckpt")
    for path, target in zip(outside, ("secret/key", "secret", "nowhere"), strict=True):
        path.symlink_to(Path(target).absolute())
    os.mkfifo("runs/a/pipe")
    outcome = lab("archive", "a", "a.zip")
    assert (outcome.status, outcome.err.count(": left out; ")) == (0, 4), outcome.err
    assert lab("unarchive", "a.zip", "--runs-dir", "new").status == 0
    unpacked = content(Path("new/a"))
    assert unpacked["checkpoints/copy.ckpt"] == unpacked["checkpoints/best.ckpt"]
    assert not {"key", "folder/key", "none", "pipe"} & set(unpacked)


@pytest.mark.parametrize("name", ["a:b", "ü 7, [x]=${y}", "\u3000$\u202e"])
def test_run_of_an_odd_name_is_packed_and_unpacked(lab: Command, name: str) -> None:
    fake(name, 4)
    assert lab("archive", f"runs/{name}", "x.zip").status == 0
    assert lab("unarchive", "x.zip", "--runs-dir", "new").status == 0
    assert content(Path("new", name)) == content(Path("runs", name))


@pytest.mark.parametrize("name", ["b\\c", "b\x1b[2J", "b\nc", os.fsdecode(b"\xe9")])
def test_name_that_no_archive_can_have_is_refused_in_one_line(lab: Command, name: str) -> None:
    lab("archive", "a", "x.zip")
    before = Path("x.zip").read_bytes()
    Path("runs/a", name).write_text("x")
    assert_refused(lab("archive", "a", "b", "x.zip"), "x.zip: not written (")
    assert Path("x.zip").read_bytes() == before


def packed(files: dict[str, bytes], manifest: str | None = None, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile("evil.zip", "w", method) as archive:
        for name, value in files.items():
            archive.writestr(name, value)
        sums = {name: hashlib.sha256(value).hexdigest() for name, value in files.items()}
        archive.writestr(MANIFEST, json.dumps(sums) if manifest is None else manifest)


RUN = {"e/run.json": b'{"status": "finished"}'}
OUTSIDE = ["/no-such-folder/run.json", "//no-such-folder/x/run.json", "../x/run.json", "a/../../x/run.json"]
OUTSIDE += ["run.json", "a/./run.json", "a//run.json", "a/run.json/", "a/" * 60 + "run.json", "..\\x/run.json"]
EVIL: dict[str, tuple[Any, ...]] = {
    "brackets": (RUN, "[" * 100_000),
    "manifest of values": (RUN, "[]," * 300_000),
    "huge manifest": (RUN, "x" * 20_000_001),
    "bomb": (RUN | {"e/zeros": bytes(2_000_000)},),
    "lzma": (RUN, None, zipfile.ZIP_LZMA),
    "trash": (RUN | {".trash/e/place.json": b"{}"},),
    "stray": (RUN | {"f/x": b""},),
    "file and folder": (RUN | {"e/run.json/x": b""},),
    "long": (RUN | {f"e/{'x' * 300}": b""},),
    "none": ({}, "{}"),
    "wrong SHA-256": (RUN, json.dumps({"e/run.json": "0" * 64})),
    "file beside the manifest": (RUN | {"e/more.txt": b""}, json.dumps(dict.fromkeys(RUN, ""))),
    **{name: ({name: b"{}"},) for name in OUTSIDE},
}


@pytest.mark.parametrize("kind", EVIL)
def test_hostile_archive_is_refused_quickly(lab: Command, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("mnist_lab.runs.archive.MAX_RATIO", 1)
    packed(*EVIL[kind])
    before = time.process_time()
    assert_refused(lab("unarchive", "evil.zip", "--runs-dir", "new"))
    assert time.process_time() - before < 5
    assert not Path("../x").exists() and not Path("/no-such-folder").exists()
    assert not Path("new").exists() or not list(Path("new").iterdir())


def test_hidden_files_are_not_unpacked(lab: Command) -> None:
    packed(RUN | {"e/.session.pickle": b"x", "e/.git/hooks/x": b"x", "e/.lock": b""})
    assert lab("unarchive", "evil.zip", "--runs-dir", "new").status == 0
    assert content(Path("new")) == RUN


def test_free_space_is_that_of_the_disk_of_the_runs(lab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    lab("archive", "a", "x.zip")
    asked: list[Path] = []
    usage = shutil.disk_usage(".")._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(Path(path)) or usage)
    assert_refused(lab("unarchive", "x.zip", "--runs-dir", "elsewhere/new"))
    assert asked == [Path("elsewhere/new")]
    assert list(Path("elsewhere/new").iterdir()) == []


def test_folder_that_is_being_unpacked_is_not_listed(lab: Command) -> None:
    fake(".unarchive-x/d", 9)
    assert names(lab("ls")) == ["a", "b", "c"]
