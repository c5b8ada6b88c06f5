"""A stranger's folder or record is read within limits, and does not lead out of its folder."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lab import Command, assert_refused, disk_full, slow
from test_ls import fake

from mnist_lab.errors import UsageError
from mnist_lab.runs.record import parse_json
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, write_job


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.fixture
def trained(lab: Command, command: Command) -> Command:
    assert command("model=mlp", "trainer.max_epochs=1", "dashboard=none", "hydra.run.dir=runs/a").status == 0
    return lab


@pytest.mark.slow
def test_export_stays_in_the_run_folder(trained: Command) -> None:
    for model, file in (("../../../mine", "network"), ("/tmp/mine", "network"), ("x" * 300, "network"), ("a.b", "a.b")):
        change(Path("runs/a/run.json"), model=model)
        outcome = trained("export", "a", "--format", "state_dict")
        assert (outcome.status, Path(f"runs/a/exports/{file}.pt").exists()) == (0, True), outcome.err
        Path(f"runs/a/exports/{file}.pt").unlink()
    Path("runs/a/exports").rename("elsewhere")
    before = set(Path("elsewhere").iterdir())
    Path("runs/a/exports").symlink_to(Path("elsewhere").absolute())
    assert_refused(trained("export", "a", "--format", "safetensors"))
    assert set(Path("elsewhere").iterdir()) == before


@pytest.mark.parametrize("id", ["x/../../../../a", "a b", ""])
def test_planned_job_is_not_a_path(lab: Command, id: str) -> None:
    fake("a", 1)
    sweep = Sweep.open(Path("runs/sweeps/s"), "-m sweep=s", ["seed"], {"0123456789ab": ("seed=1",)})
    change(sweep.record_path, jobs={id: ["seed=1"]})
    for command in ("status", "report"):
        assert_refused(lab(command, "runs/sweeps/s"))


def test_folder_in_the_place_of_a_sweeps_record_is_refused_in_one_line(command: Command) -> None:
    Path("runs/sweeps/s/sweep.json").mkdir(parents=True)
    for arguments in (["-m", "sweep=s", "model=mlp", "seed=1,2"], ["status", "runs/sweeps/s"]):
        assert_refused(command(*arguments, data="-m" in arguments))


MANY = 300_000
HOSTILE = {
    "values": '{"status": "finished", "x": [' + "[]," * MANY + "[]]}",
    "large": '{"status": "finished", "metrics": {"val/acc": 1e308, "test/acc": -1e308}}',
    "year": '{"status": "finished", "started": "0001-01-01T00:00:00+23:59"}',
    "types": '{"status": "finished", "overrides": [' + "1," * 199_000 + "1]}",
}


@pytest.mark.parametrize("kind", [*list(HOSTILE)[:3], *slow("types")])
def test_hostile_record_takes_a_second_and_a_line(lab: Command, kind: str) -> None:
    sweep = Sweep.open(Path("runs/sweeps/s"), "-m sweep=s", ["seed"], {"a": ("seed=1",)})
    write_job(Job(("seed=1",), fake("sweeps/s/seed=1-a", 2)))
    records = [fake("a", 1) / "run.json", fake("b", 3) / "annotations.json", sweep.results_json]
    for path in (*records, sweep.folder / "seed=1-a/job.json"):
        path.write_text(HOSTILE[kind])
    before = time.process_time()
    outcome = lab("ls")
    assert (outcome.status, outcome.out.count("\n")) == (0, 4) and outcome.err.count("\n") <= 2
    assert lab("status", "runs/sweeps/s").status == 0
    assert time.process_time() - before < 5


def enlarge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1_000_000_000)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), enlarge])
def test_pipe_a_device_or_an_endless_file_in_a_run_folder_holds_nothing_up(lab: Command, make: Any) -> None:
    sweep = Sweep.open(Path("runs/sweeps/s"), "-m sweep=s", ["seed"], {"a": ("seed=1",)})
    job = fake("sweeps/s/seed=1-a", 9, status="running")
    make(sweep.results_json)
    for number, name in enumerate(("run.json", "annotations.json", "metrics.csv", ".holder.json", ".lock")):
        path = fake(f"bad{name}", number, status="running") / name
        path.with_name(".lock").touch()
        path.unlink(missing_ok=True)
        make(path)
    make(job / "job.json")
    outcome = lab("ls")
    assert (outcome.status, outcome.out.count("\n")) == (0, 7) and outcome.err.count("\n") <= 3, outcome.err
    assert lab("status", "runs/sweeps/s").err.count("\n") <= 1
    with suppress(UsageError):
        assert Run(Path("runs/badmetrics.csv")).metrics() == []


def test_metrics_are_parsed_once_and_have_an_end(lab: Command) -> None:
    run = Run(fake("a", 1))
    run.metrics_path.write_text("step,epoch,train/loss,val/acc\n" + "7,1,0.25,0.5\n" * 50_000)
    times = [time.process_time()]
    for _ in range(7):
        run.metrics()
        times.append(time.process_time())
    assert times[-1] - times[1] < (times[1] - times[0]) / 10
    run.metrics_path.write_text("step,epoch\n" + "\n" * 4_000_000)
    with pytest.raises(UsageError, match="more than 1,000,000 rows"):
        run.metrics()


def test_text_of_a_megabyte_is_shortened_in_a_list(lab: Command) -> None:
    fake("a", 1, model="m" * 2_000_000, overrides=["seed=" + "1" * 1_000_000])
    outcome = lab("ls")
    assert outcome.status == 0 and len(outcome.out) < 10_000


@pytest.mark.parametrize("text", ["[" * 900 + "]" * 900 + ",", '{"a": "\\u0000"}', "-" + "1" * 101, "1e999"])
def test_what_no_record_has_is_no_json_of_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra|nested|large|character"):
        parse_json(text)


def test_tag_and_note_in_a_read_only_folder_are_refused(lab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("a", 1)
    monkeypatch.setattr("mnist_lab.runs.trash.write_record", disk_full)
    for arguments in (["tag", "a", "x"], ["tag", "a", "x", "--remove"], ["note", "a", "x"], ["note", "a", ""]):
        assert_refused(lab(*arguments), "runs/a/annotations.json: cannot be written")


@pytest.mark.slow
def test_bytes_that_are_no_text_stop_no_page_and_no_list(trained: Command) -> None:
    odd, folder = os.fsdecode(b"caf\xe9"), "runs/a"
    assert trained("tag", folder, odd).status == 2
    change(Path(folder, "run.json"), command=odd, error=odd, device=odd)
    Path(folder, "annotations.json").write_text(json.dumps({"tags": [odd], "note": odd}))
    for arguments in (["report", folder], ["ls"], ["ls", "--csv"], ["export", folder, "--format", "state_dict"]):
        outcome = trained(*arguments)
        assert outcome.status == 0, (arguments, outcome.err)


def test_only_the_best_of_a_sweep_shows_test_results_where_runs_are_listed(lab: Command) -> None:
    sweep = Sweep.open(Path("runs/sweeps/s"), "-m sweep=s", ["seed"], {"a": ("seed=1",), "b": ("seed=2",)})
    for id, minute in (("a", 1), ("b", 2)):
        write_job(Job((), fake(f"sweeps/s/seed={minute}-{id}", minute)))
    fake("single", 3)
    sweep.results_json.write_text(json.dumps({"best": {"folders": ["seed=2-b"]}}))

    def shown(*arguments: str) -> list[tuple[str, float | None]]:
        rows = json.loads(lab(*arguments, "--json").out)
        return [(Path(row.get("run") or row["runs"][0]).name, row["test/acc"]) for row in rows]

    assert shown("ls") == [("seed=1-a", None), ("seed=2-b", 0.8125), ("single", 0.8125)]
    assert shown("ls", "--where", "test/acc > 0.5") == [("seed=2-b", 0.8125), ("single", 0.8125)]
    assert shown("compare", "runs/sweeps/s") == [("seed=1-a", 0.8125), ("seed=2-b", 0.8125)], "on purpose"
    assert "for judging" in lab("compare", "runs/sweeps/s").out
    sweep.results_json.unlink()
    assert shown("ls")[1] == ("seed=2-b", None)
