"""Random input is accepted, or refused in one line. benchmarks/fuzz.py tries more of it."""

from pathlib import Path

import pytest
from lab import Command, Tiny, thorough
from PIL import features

from benchmarks import fuzz_images, fuzz_records
from benchmarks.fuzz import SETTINGS, fuzz
from mnist_lab.errors import UsageError
from mnist_lab.runs.run import Run

BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, *thorough(20)])
def test_random_command_lines_are_accepted_or_refused_in_one_line(tiny: Tiny, count: int) -> None:
    assert list(fuzz("command_line", count, 0, Path(), Path("work"))) == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, *thorough(10)])
def test_damaged_files_of_a_run_and_pictures_are_used_or_refused_in_one_line(
    tiny: Tiny, command: Command, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setenv("SECRET", "")  # hostile_config sets it, and monkeypatch restores it.
    assert command(*SETTINGS, "hydra.run.dir=run").status == 0
    parts = ("config_yaml", "run_json", "metrics_csv", "sweep_json", "checkpoint", "events", "hostile_config")
    for part in (*parts, *fuzz_records.PARTS, *fuzz_images.PARTS):
        if part != "avif" or features.check("avif"):
            assert list(fuzz(part, count, 0, Path("run").absolute(), Path("work"))) == [], part


@pytest.mark.parametrize("part", ["idx", "gz", "arrays", "folders"])
def test_damaged_files_of_a_data_set_are_refused_in_one_line(tmp_path: Path, part: str) -> None:
    assert list(fuzz(part, 20, 0, Path(), tmp_path / "work")) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"seed: \xff\n", "can't decode byte 0xff"),
        (b"seed: ${nothing}\n", "is an interpolation"),
        (b"a: ${b}\nb: ${a}\n", ""),
        (b"1: 2\n", "the key 1 is not text"),
        (b"a: " + b"[" * 100_000, "nest"),  # The lab refuses it or the YAML library, each in its words.
        (BOMB.encode(), "it has an alias"),
        (b"a: !!python/object/apply:os.system [x]\n", "could not determine a constructor"),
        (b"", "it holds no settings"),
    ],
)
def test_damaged_configuration_is_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=rf"config\.yaml: not a run's configuration \(.*{reason}") as caught:
        _ = Run(tmp_path).config
    assert "\n" not in str(caught.value)


def test_damaged_curves_give_the_rows_that_are_whole(tmp_path: Path) -> None:
    whole = "step,epoch,train/loss\n1,0,0.5\n2,1,0.4\n"
    path = tmp_path / "metrics.csv"
    for text, steps in (
        (whole, [1, 2]),
        (whole.replace("1,0", '"1,0', 1), [2]),
        (whole.replace("0.5", "x" * 200_000), [2]),
        (whole.replace("1,0", "nan,0", 1), [2]),
        (whole.replace("1,0", "1\0,0", 1), [2]),
        (whole.replace("step", "\x1b"), []),
        ("\n\n", []),
    ):
        path.write_text(text)
        assert [row["step"] for row in Run(tmp_path).metrics()] == steps, text[:50]
        assert len(Run(tmp_path).epochs()) == len(steps)
