"""`reproduce` compares presets over seeds with published figures, and makes a leaderboard from their logs."""

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab import Command, Outcome, Tiny, assert_refused, held_by_another_process, same, weights
from lightning.pytorch import LightningModule, Trainer
from omegaconf import OmegaConf

from mnist_lab import conf_dir
from mnist_lab.config.compose import compose
from mnist_lab.errors import UsageError
from mnist_lab.models.lenet import LeNet
from mnist_lab.models.residual_cnn import ResidualCNN
from mnist_lab.reproduce.reproduce import finished_runs, parse_seeds
from mnist_lab.reproduce.results import (
    Log,
    compute_accuracy,
    flop_per_image,
    format_seeds,
    read_logs,
    records_page,
    results_page,
    summarise,
    summarise_logs,
)
from mnist_lab.runs.run import Run
from mnist_lab.training.callbacks import StepLog

RUNS = Path("runs/reproduce")
PUBLISHED = {"simple_cnn": 99.12, "compact_cnn": 97.62, "lenet": 98.0, "dropout_cnn": 92.84, "mlp": 95.95}
COMMITTED = Path(__file__).parents[2] / "results"


@pytest.fixture
def reproduce(command: Command, tiny: Tiny) -> Command:
    """Return the command `reproduce` for the tiny data, with two epochs."""

    def run(*arguments: str) -> Outcome:
        fixed = ["data=tiny", "data.val_size=0", "figures=false", "--config-dir", str(tiny.conf)]
        if "trainer.max_epochs=3" not in arguments:
            fixed.append("trainer.max_epochs=2")
        return command("reproduce", *arguments, *([] if "--config-dir" in arguments else fixed), data=False)

    return run


OUT = RUNS  # the default of --out
TUTORIALS = [path.stem for path in sorted(conf_dir().glob("experiment/*.yaml")) if "\ntutorial:" in path.read_text()]


def summaries(runs_dir: Path) -> dict[str, dict[str, Any]]:
    return {name: summarise(name, runs) for name, runs in finished_runs(runs_dir).items()}


def times() -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in RUNS.glob("*/run.json")}


@pytest.mark.slow
def test_every_preset_runs_over_the_seeds_and_nothing_is_repeated(reproduce: Command) -> None:
    assert reproduce("mlp", "lenet", "--seeds", "1").status == 0
    before = times()
    assert reproduce("mlp", "lenet", "--seeds", "2").out.count("already finished") == 2
    assert set(times()) == {"mlp-seed1", "mlp-seed2", "lenet-seed1", "lenet-seed2"}
    assert {Run(RUNS / name).info["seed"] for name in ("mlp-seed1", "mlp-seed2")} == {1, 2}
    with pytest.raises(UsageError, match="latest: no run below"):
        Run.find("latest", RUNS.parent)
    assert {name: time for name, time in times().items() if name in before} == before
    assert set(json.loads((OUT / "results.json").read_text())) == {"mlp", "lenet"}


@contextmanager
def stopping_after(epochs: int) -> Iterator[None]:
    """Raise KeyboardInterrupt after this number of epochs."""

    def stop(self: StepLog, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == epochs:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepLog, "on_train_epoch_start", stop)
        yield


@pytest.mark.slow
def test_interrupted_command_shows_finished_runs_and_resumes_where_it_stopped(reproduce: Command) -> None:
    with stopping_after(1):
        stopped = reproduce("dropout_cnn", "--seeds", "1")
    assert stopped.status == 130
    assert "to resume all: python -m mnist_lab reproduce dropout_cnn --seeds 1" in stopped.out
    run = Run(RUNS / "dropout_cnn-seed1")
    before = run.info
    assert before["epochs"] == 1
    assert not (OUT / "RESULTS.md").exists()
    assert reproduce("dropout_cnn", "--seeds", "1").status == 0
    assert run.info["started"] == before["started"]
    parts = weights(run.checkpoint("last"))
    assert reproduce("dropout_cnn", "--seeds", "1", "--runs-dir", "whole").status == 0
    assert same(parts, weights(Run(Path("whole/dropout_cnn-seed1")).checkpoint("last")))
    assert len(run.epochs()) == 2


def test_unfinished_job_of_other_settings_is_not_resumed(reproduce: Command) -> None:
    with stopping_after(1):
        assert reproduce("mlp", "--seeds", "1", "trainer.limit_train_batches=3").status == 130
    message = "mlp-seed1: was started with trainer.limit_train_batches=3, not null; use another --runs-dir"
    assert_refused(reproduce("mlp", "--seeds", "1"), "", message)


@pytest.mark.slow
def test_job_killed_before_its_first_checkpoint_starts_again(reproduce: Command) -> None:
    reproduce("mlp", "--seeds", "1")
    run = Run(RUNS / "mlp-seed1")
    run.update(status="running")
    (run.folder / "checkpoints" / "last.ckpt").unlink()
    assert reproduce("mlp", "--seeds", "1").status == 0
    assert run.info["status"] == "finished"
    assert run.info["epochs"] == 2


@pytest.mark.slow
def test_job_of_another_process_is_skipped(reproduce: Command) -> None:
    RUNS.mkdir(parents=True)
    with held_by_another_process(RUNS / "mlp-seed1"):
        outcome = reproduce("mlp", "--seeds", "2")
    assert outcome.status == 0, outcome.err
    assert "mlp, seed 1 (1 of 2): " in outcome.out
    assert "or stop it, and repeat the command" in outcome.out
    assert set(times()) == {"mlp-seed2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fooo"], "fooo: unknown preset; choose from champion, compact_cnn, dropout_cnn, lenet,"),
        (["mlp", "--seeds", "0"], "--seeds=0: must be a number from 1 on"),
        (["mlp", "optimizer.lr=-1"], "optimizer.lr=-1: input should be greater than 0"),
        (["mlp", "seed=7"], "seed=7: set by reproduce; name presets only, and use --seeds"),
        (["mlp", "foo=1"], "foo=1: unknown setting"),
        (["mlp", "optimizer.lr=[1"], "'[1'"),
        (["mlp", "trainer=ddp"], "trainer=ddp: not supported by reproduce"),
        (["mlp", "--out", "file"], "--out=file: cannot be written (File exists); choose another"),
        (["mlp", "--runs-dir", "file/x"], "--runs-dir=file/x: cannot be written (Not a directory); choose another"),
        (["mlp", "--config-dir", "nowhere"], "--config-dir=nowhere: folder not found"),
        (
            ["lenet_continued", "trainer.max_epochs=3"],
            "callbacks.reload.after=5: must be less than trainer.max_epochs=3",
        ),
    ],
)
def test_invalid_input_is_refused_and_leaves_nothing(reproduce: Command, arguments: list[str], message: str) -> None:
    Path("file").write_text("")
    assert_refused(reproduce(*arguments), "", message)
    assert not list(Path().rglob("run.json")) and not list(Path().rglob("RESULTS.md"))


def finished(folder: Path, preset: str, seed: int, accuracies: list[float], *overrides: str) -> None:
    """Make a finished run's folder with what the results read; accuracies are by epoch, as fractions."""
    folder.mkdir(parents=True)
    OmegaConf.save(compose(f"experiment={preset}", f"seed={seed}", *overrides), folder / "config.yaml")
    rows = [f"{10 * i + 9},{i},0.5,{accuracy}" for i, accuracy in enumerate(accuracies)]
    (folder / "metrics.csv").write_text("\n".join(["step,epoch,train/loss,test/acc", *rows]) + "\n")
    info = {"status": "finished", "seed": seed, "epochs": len(accuracies), "metrics": {"test/acc": accuracies[-1]}}
    info |= {"config_dir": None, "seconds": {"total": 10.0 * seed}, "versions": {"torch": "2"}, "git": None}
    info |= {"device": "cpu", "processor": "2 × one"}
    (folder / "run.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [((0.9759, 0.9705), "reached"), ((0.9759, 0.9701), "missed by 0.02")],
)
def test_verdict_follows_from_the_mean_accuracy(tmp_path: Path, accuracies: tuple[float, float], verdict: str) -> None:
    """97.62 was published, so that 97.32 and more have reached it."""
    for seed, last in enumerate(accuracies, start=1):
        finished(tmp_path / f"compact_cnn-seed{seed}", "compact_cnn", seed, [0.9, 0.95, last])
    row = summaries(tmp_path)["compact_cnn"]["test_acc"]
    percent = [100 * share for share in accuracies]
    mean = statistics.fmean(percent)
    assert (row["verdict"], row["published"]) == (verdict, 97.62)
    found = [row[key] for key in ("mean", "std", "min", "max", "difference")]
    assert found == pytest.approx([mean, statistics.stdev(percent), min(percent), max(percent), mean - 97.62], abs=1e-6)


def test_results_have_curves_by_seed_and_times(tmp_path: Path) -> None:
    curve = [0.1, 0.5, 0.8338, 0.88, 0.8966, 0.9069, 0.9121, 0.9188, 0.9224, 0.9284]
    for seed in (10, 2):
        finished(tmp_path / f"dropout_cnn-seed{seed}", "dropout_cnn", seed, curve)
    row = summaries(tmp_path)["dropout_cnn"]
    assert row["seeds"] == [2, 10]
    assert row["curves"]["test/acc"][:3] == [[], [10, 10], [50, 50]]
    assert row["seconds"] == {"mean": 60.0, "min": 20.0, "max": 100.0}
    page = results_page({"dropout_cnn": row})
    assert "| 3 | 84.38 | 83.38 ± 0.00 | -1.00 |" in page
    assert (
        "| [dropout_cnn](#dropout_cnn) | 10 | 92.84 | 92.84 ± 0.00 | 92.84 to 92.84 | 2 | +0.00 | reached | 60 s |"
        in page
    )


def test_runs_of_changed_settings_are_not_compared_and_unfinished_ones_do_not_count(tmp_path: Path) -> None:
    finished(tmp_path / "mlp-seed1", "mlp", 1, [0.9] * 5, "data.batch_size=64")
    finished(tmp_path / "mlp-seed2", "mlp", 2, [0.1] * 5)
    Run(tmp_path / "mlp-seed2").update(status="interrupted")
    row = summaries(tmp_path)["mlp"]
    assert (row["seeds"], row["changed"]) == ([1], ["data.batch_size=64"])
    assert row["test_acc"]["verdict"] == "not compared: data.batch_size=64"
    assert "not compared: data.batch_size=64" in results_page({"mlp": row})


def test_committed_page_follows_from_its_results() -> None:
    summary = json.loads((COMMITTED / "results.json").read_text())
    assert (COMMITTED / "RESULTS.md").read_text(encoding="utf-8") == results_page(summary)


@pytest.mark.parametrize("name", TUTORIALS)
def test_header_and_committed_table_agree(name: str) -> None:
    """The preset's header has the figures of results/results.json, which are those of the preset's present settings."""
    row = json.loads((COMMITTED / "results.json").read_text())[name]
    header = (conf_dir() / "experiment" / f"{name}.yaml").read_text().split("defaults:")[0]
    accuracy, seeds, cfg = row["test_acc"], len(row["seeds"]), compose(f"experiment={name}")
    mean = f"{accuracy['mean']:.2f} ± {accuracy['std']:.2f}"
    words = " ".join(header.replace("#", " ").split())
    assert f"Here: {mean} % over {seeds} seeds, {row['seconds']['mean']:.0f} s" in words
    assert row["disagreements"] == cfg.tutorial.disagreements
    assert f"python -m mnist_lab experiment={name}" in header
    figure = PUBLISHED[name.removesuffix("_continued").removesuffix("_batch64")]
    assert accuracy["published"] == cfg.tutorial.published["test/acc"][-1] == figure
    assert f"Published: {figure:g} %" in header
    assert row["changed"] == [] and accuracy["verdict"] == "reached"
    assert seeds >= (3 if name == "simple_cnn" else 5)
    assert row["epochs"] == cfg.trainer.max_epochs == len(cfg.tutorial.published["test/acc"]) - 1
    assert cfg.data.val_size == 0 and cfg.callbacks.test_curve is not None


def log(seed: int, wrong: int, **entries: Any) -> Log:
    made: dict[str, Any] = {
        "preset": "mine", "seeds": [seed], "changed": [], "command": "reproduce mine", "parameters": 7,
        "pflop": 0.5, "seconds": 10.0 * seed, "date": f"2026-11-0{seed}", "commit": "abc", "versions": {},
        "processor": "2 × CPU", "device": "cpu, 2 threads", "epochs": [], "images": 1000,
        "wrong": dict.fromkeys(range(wrong), 3),
    }  # fmt: skip
    return {**made, **entries}


def test_record_has_mean_and_deviation_over_the_seeds_and_the_ensemble() -> None:
    record = summarise_logs([log(1, 10), log(2, 14), log(3, 9), log(1, 8, seeds=[1, 2, 3])])
    accuracies = [99.0, 98.6, 99.1]
    assert record["mean"] == pytest.approx(statistics.fmean(accuracies))
    assert record["std"] == pytest.approx(statistics.stdev(accuracies))
    assert (record["min"], record["max"], record["ensemble"]) == pytest.approx((98.6, 99.1, 99.2))
    assert (record["seeds"], record["seconds"], record["date"]) == ([1, 2, 3], 20.0, "2026-11-03")
    assert record["command"] == "python -m mnist_lab reproduce mine --seeds 3"
    one = summarise_logs([log(4, 10)])
    assert (one["std"], one["command"]) == (None, "python -m mnist_lab reproduce mine --seeds 4-4")


def test_page_has_the_best_preset_first(tmp_path: Path) -> None:
    for name, wrong in (("good", 3), ("best", 1), ("bad", 50)):
        (tmp_path / f"{name}-seed1.yaml").write_text(yaml.safe_dump(log(1, wrong, preset=name)))
    records = read_logs(tmp_path)
    assert [record["preset"] for record in records] == ["best", "good", "bad"]
    page = records_page(records)
    assert "| 1 | best | 7 | 99.900 | 1 | - | 10.0 | 0.5000 | 2026-11-01 | abc |" in page
    assert page.index("| best |") < page.index("| good |") < page.index("| bad |")


def test_changed_settings_have_a_row_and_a_command_of_their_own(tmp_path: Path) -> None:
    changed = ["model.widths=[8, 9]"]
    for seed, settings in ((1, []), (2, changed), (3, changed)):
        (tmp_path / f"mine-seed{seed}.yaml").write_text(yaml.safe_dump(log(seed, seed, changed=settings)))
    records = read_logs(tmp_path)
    assert [(record["seeds"], record["changed"]) for record in records] == [([1], []), ([2, 3], changed)]
    assert records[1]["command"] == "python -m mnist_lab reproduce mine --seeds 2-3 'model.widths=[8, 9]'"
    assert "| 2 | mine, `model.widths=[8, 9]` | 7 |" in records_page(records)


def test_operations_are_those_of_forward_and_backward_passes() -> None:
    """Those of LeNet are counted by hand: forward, and twice that backward, but no gradient of the images."""
    conv1, rest = 6 * 28 * 28 * 25, 16 * 10 * 10 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10
    assert flop_per_image(LeNet()) == 2 * (2 * conv1 + 3 * rest)
    network = ResidualCNN(widths=(4, 4, 4))
    before = deepcopy(network.state_dict())
    flop_per_image(network)
    assert same(network.state_dict(), before)


@pytest.mark.slow
def test_users_preset_is_on_the_leaderboard_with_a_log_of_each_run(command: Command, tiny: Tiny) -> None:
    """Records of other presets and of other settings stay, and its own of other seeds are replaced."""
    preset = tiny.conf / "experiment" / "mine.yaml"
    preset.parent.mkdir()
    preset.write_text(
        "# @package _global_\ndefaults: [override /model: mlp, override /data: tiny]\n"
        "data: {val_size: 0}\ntrainer: {max_epochs: 1}\nfigures: false\n"
    )
    logs = Path("results/logs")
    logs.mkdir(parents=True)
    for name, changed in (("other-seed1", []), ("mine-seed8", ["optimizer.lr=0.5"]), ("mine-seed9", [])):
        (logs / f"{name}.yaml").write_text(yaml.safe_dump(log(1, 1, preset=name.split("-")[0], changed=changed)))
    options = ("--seeds", "2", "--out", "results", "--config-dir", str(tiny.conf))
    assert command("reproduce", "mine", *options, data=False).status == 0
    names = sorted(path.stem for path in logs.iterdir())
    assert names == ["mine-seed1", "mine-seed2", "mine-seed8", "mine-seeds2", "other-seed1"]
    changed, other, record = json.loads(Path("results/records.json").read_text())
    assert (changed["changed"], other["preset"]) == (["optimizer.lr=0.5"], "other")
    assert (record["preset"], record["seeds"], record["changed"]) == ("mine", [1, 2], [])
    assert not Path("results/RESULTS.md").exists(), "there is nothing that was published"
    assert "| 3 | mine | 130,058 |" in Path("results/RECORDS.md").read_text(encoding="utf-8")
    for seed in (1, 2):
        made: Log = yaml.safe_load((logs / f"mine-seed{seed}.yaml").read_text(encoding="utf-8"))
        info = Run(Path(f"runs/reproduce/mine-seed{seed}")).info
        assert compute_accuracy(made) == pytest.approx(100 * info["metrics"]["test/acc"])
        assert made["epochs"][-1]["examples_seen"] == 230
    together: Log = yaml.safe_load((logs / "mine-seeds2.yaml").read_text(encoding="utf-8"))
    assert (together["seeds"], together["parameters"]) == ([1, 2], 260_116)
    assert record["ensemble"] == compute_accuracy(together)

    changed_options = ("optimizer.lr=0.25", "--runs-dir", "runs/changed", *options)
    assert command("reproduce", "mine", *changed_options, data=False).status == 0
    rows = [(row["changed"], row["seeds"]) for row in json.loads(Path("results/records.json").read_text())]
    assert ([], [1, 2]) in rows and (["optimizer.lr=0.25"], [1, 2]) in rows, "rows with the same seeds keep their logs"


def test_committed_leaderboard_follows_from_its_logs() -> None:
    records = read_logs(COMMITTED / "logs")
    assert json.loads((COMMITTED / "records.json").read_text(encoding="utf-8")) == records
    assert (COMMITTED / "RECORDS.md").read_text(encoding="utf-8") == records_page(records)


@pytest.mark.parametrize("name", ["champion", "sprint", "tiny"])
def test_header_of_a_preset_and_its_logs_agree(name: str) -> None:
    """The logs are those of the preset's present settings, trained from a commit without changes."""
    records = json.loads((COMMITTED / "records.json").read_text(encoding="utf-8"))
    (record,) = (record for record in records if record["preset"] == name and not record["changed"])
    header = (conf_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").split("defaults:")[0]
    here = f"{record['mean']:.2f} ± {record['std']:.2f} % over {len(record['seeds'])} seeds"
    assert here in " ".join(header.replace("#", " ").split())
    assert "changes" not in record["commit"]
    epochs = compose(f"experiment={name}").trainer.max_epochs
    for seed in record["seeds"]:
        log = yaml.safe_load((COMMITTED / "logs" / f"{name}-seed{seed}.yaml").read_text(encoding="utf-8"))
        assert log["epochs"][-1]["examples_seen"] == 60_000 * epochs


def test_seeds_are_named_by_a_number_or_by_the_first_and_the_last() -> None:
    for text, seeds in (("1", [1]), ("3", [1, 2, 3]), ("11-13", [11, 12, 13]), ("0-1", [0, 1])):
        assert list(parse_seeds(text)) == seeds
        assert format_seeds(seeds) == text
    for text in ("0", "many", "4-3"):
        with pytest.raises(UsageError, match=f"--seeds={text}: must be"):
            parse_seeds(text)
