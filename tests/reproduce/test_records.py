"""The leaderboard says what its logs say, and a log says what its run did."""

import json
import statistics
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab import Command, Outcome, Tiny, same

from mnist_lab.config import conf_dir
from mnist_lab.config.compose import compose
from mnist_lab.models.lenet import LeNet
from mnist_lab.models.residual_cnn import ResidualCNN
from mnist_lab.reproduce.leaderboard import Log, accuracy, flop_per_image, read_logs, records_page, summarise_logs
from mnist_lab.runs.run import Run

OUT = Path("results")
COMMITTED = Path(__file__).parents[2] / "results"


@pytest.fixture
def reproduce(command: Command, tiny: Tiny) -> Callable[..., Outcome]:
    """`python -m mnist_lab reproduce mine ...`, a preset of the user's own on the tiny data, into results/."""
    (tiny.conf / "experiment").mkdir()
    text = (
        "# @package _global_\ndefaults: [override /model: mlp, override /data: tiny]\n"
        "data: {val_size: 0}\ntrainer: {max_epochs: 1}\nfigures: false\n"
    )
    (tiny.conf / "experiment" / "mine.yaml").write_text(text)

    def run(*arguments: str) -> Outcome:
        return command("reproduce", "mine", *arguments, "--out", str(OUT), "--config-dir", str(tiny.conf), data=False)

    return run


def log(seed: int, wrong: int, **entries: Any) -> Log:
    made: dict[str, Any] = {
        "preset": "mine", "seeds": [seed], "changed": [], "command": "reproduce mine", "parameters": 7,
        "pflop": 0.5, "seconds": 10.0 * seed, "date": f"2026-11-0{seed}", "commit": "abc", "versions": {},
        "processor": "2 × CPU", "device": "cpu, 2 threads", "epochs": [], "images": 1000,
        "wrong": dict.fromkeys(range(wrong), 3),
    }  # fmt: skip
    return {**made, **entries}  # type: ignore[typeddict-item]


def test_line_is_mean_and_deviation_over_the_seeds_and_the_ensemble_beside_them() -> None:
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


def test_operations_are_those_of_forward_and_backward_passes() -> None:
    """LeNet's by hand: forward, and twice that backward, without the gradient of the images."""
    conv1, rest = 6 * 28 * 28 * 25, 16 * 10 * 10 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10
    assert flop_per_image(LeNet()) == 2 * (2 * conv1 + 3 * rest)
    network = ResidualCNN(widths=(4, 4, 4))
    before = deepcopy(network.state_dict())
    flop_per_image(network)
    assert same(network.state_dict(), before)


@pytest.mark.slow
def test_reproduced_preset_of_ones_own_is_on_the_leaderboard_with_a_log_of_each_run(
    reproduce: Callable[..., Outcome],
) -> None:
    """Records of other presets stay, its own of other seeds are replaced."""
    (OUT / "logs").mkdir(parents=True)
    for name in ("other-seed1", "mine-seed9"):
        (OUT / "logs" / f"{name}.yaml").write_text(yaml.safe_dump(log(1, 1, preset=name.split("-")[0])))
    outcome = reproduce("--seeds", "2")
    assert outcome.status == 0, outcome.err
    logs = sorted(path.stem for path in (OUT / "logs").iterdir())
    assert logs == ["mine-ensemble", "mine-seed1", "mine-seed2", "other-seed1"]
    other, record = json.loads((OUT / "records.json").read_text())
    assert other["preset"] == "other"
    assert (record["preset"], record["seeds"], record["changed"]) == ("mine", [1, 2], [])
    assert not (OUT / "RESULTS.md").exists(), "there is nothing that was published"
    assert "| 2 | mine | 130,058 |" in (OUT / "RECORDS.md").read_text(encoding="utf-8")
    for seed in (1, 2):
        made: Log = yaml.safe_load((OUT / "logs" / f"mine-seed{seed}.yaml").read_text(encoding="utf-8"))
        info = Run(Path(f"runs/reproduce/mine-seed{seed}")).info
        assert accuracy(made) == pytest.approx(100 * info["metrics"]["test/acc"])
        assert made["epochs"][-1]["examples_seen"] == 230
    together: Log = yaml.safe_load((OUT / "logs" / "mine-ensemble.yaml").read_text(encoding="utf-8"))
    assert (together["seeds"], together["parameters"]) == ([1, 2], 260_116)
    assert record["ensemble"] == accuracy(together)


def test_committed_leaderboard_is_made_of_its_logs() -> None:
    records = read_logs(COMMITTED / "logs")
    assert json.loads((COMMITTED / "records.json").read_text(encoding="utf-8")) == records
    assert (COMMITTED / "RECORDS.md").read_text(encoding="utf-8") == records_page(records)


@pytest.mark.parametrize("name", ["champion", "sprint", "tiny"])
def test_header_of_a_preset_and_its_logs_agree(name: str) -> None:
    """And the logs are those of the preset as it stands, trained from a commit without changes."""
    (record,) = (record for record in read_logs(COMMITTED / "logs") if record["preset"] == name)
    header = (conf_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").split("defaults:")[0]
    here = f"{record['mean']:.2f} ± {record['std']:.2f} % over {len(record['seeds'])} seeds"
    assert here in " ".join(header.replace("#", " ").split())
    assert record["changed"] == [] and "changes" not in record["commit"]
    epochs = compose(f"experiment={name}").trainer.max_epochs
    for seed in record["seeds"]:
        log = yaml.safe_load((COMMITTED / "logs" / f"{name}-seed{seed}.yaml").read_text(encoding="utf-8"))
        assert log["epochs"][-1]["examples_seen"] == 60_000 * epochs
