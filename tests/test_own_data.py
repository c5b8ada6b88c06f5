"""Own data work in every command: training, test, resume, sweep, report, prediction, export."""

import json
import re
import shutil
from pathlib import Path

import pytest
from lab import Command, assert_refused, change_settings, same, thorough, weights
from test_image_folder import draw_shape, write_shapes
from torch import Tensor, nn

from mnist_lab.config.compose import compose
from mnist_lab.evaluation.ensemble import make_ensemble
from mnist_lab.models import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model
from mnist_lab.training.train import train
from mnist_lab.web.page import page_of

SETTINGS = [
    "trainer.max_epochs=6",
    "data.batch_size=8",
    "trainer.accelerator=cpu",
    "data.val_size=0.2",
    "figures=false",
]
SHAPES = ["circle", "cross", "square"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("own") / "shapes", dict.fromkeys(SHAPES, 20))


@pytest.fixture(scope="module")
def trained(folder: Path) -> Run:
    data = ["data=image_folder", f"data.source.path={folder}"]
    return train(compose("model=lenet", *data, f"hydra.run.dir={folder.parent / 'run'}", *SETTINGS, "figures=true"))


def test_network_has_as_many_classes_as_there_are_folders(trained: Run, folder: Path) -> None:
    model = load_trained_model(trained)
    assert (model.num_classes, model.fc3.out_features) == (3, 3)
    source = trained.config.data.source
    assert (source.name, list(source.classes), source.path) == ("shapes", SHAPES, str(folder))
    assert source.background > 200 and len(source.sha256) == 64
    assert trained.info["metrics"]["test/acc"] > 0.5


def test_networks_for_other_classes_are_combined_and_exported(command: Command, trained: Run, tmp_path: Path) -> None:
    members = [Run(Path(shutil.copytree(trained.folder, tmp_path / name))) for name in "ab"]
    ensemble, _ = make_ensemble(members, tmp_path / "both")
    assert ensemble.info["metrics"]["test/acc"] == trained.info["metrics"]["test/acc"]
    for run in (ensemble, trained):
        outcome = command("export", str(run), "--format", "state_dict", data=False)
        assert outcome.status == 0 and "LeNet(num_classes=3)" in outcome.out
        card = next(run.exports_folder.glob("*.md")).read_text()
        assert "trained on shapes" in card and "(B, 3), of the classes circle, cross, square" in card


@pytest.mark.parametrize("action", ["test", *thorough("resume", "report")])
def test_data_that_have_moved_are_found_where_they_are_named_and_refused_once_they_have_changed(
    command: Command, trained: Run, folder: Path, tmp_path: Path, action: str
) -> None:
    copied = Run(Path(shutil.copytree(trained.folder, tmp_path / "run")))
    moved = Path(shutil.copytree(folder, tmp_path / "shapes"))
    change_settings(copied, {"data.source.path": str(moved)})
    resume = [f"resume={copied}", "trainer.max_epochs=7", f"data.source.path={moved}"]
    arguments = resume if action == "resume" else [action, str(copied)]
    if action == "test":
        outcome = command("test", str(trained), f"data.source.path={moved}", data=False)
        assert outcome.status == 0 and f"{trained.info['metrics']['test/acc']:.2%}" in outcome.out
    draw_shape("cross", 77).save(moved / "cross" / "0.png")
    assert_refused(command(*arguments, data=False), "", "the data have changed since they were recorded")


@pytest.mark.thorough
def test_resumed_run_equals_the_run_left_alone(trained: Run, folder: Path, tmp_path: Path, command: Command) -> None:
    data = ["data=image_folder", f"data.source.path={folder}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert command("model=lenet", *data, *SETTINGS, "trainer.max_epochs=4", data=False).status == 0
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    resumed = [f"resume={tmp_path / 'run'}", "trainer.max_epochs=6", f"data.source.path={moved}"]
    assert command(*resumed, data=False).status == 0
    assert same(weights(trained.chosen_checkpoint()), weights(Run(tmp_path / "run").chosen_checkpoint()))


def test_report_figures_and_dashboard_name_the_classes(command: Command, trained: Run) -> None:
    assert command("report", str(trained), data=False).status == 0
    page = (trained.folder / "report.html").read_text()
    assert "lenet on shapes" in page and "Precision and recall of each class" in page
    for name in SHAPES:
        assert f'<th scope="row">{name}</th>' in page
    labels = next(trained.folder.rglob("metadata.tsv")).read_text().split()
    assert set(labels) <= {"label", "predicted", *SHAPES}
    events = b"".join(path.read_bytes() for path in trained.folder.rglob("events.out.tfevents*"))
    assert all(f"pr_curve/{name}".encode() in events for name in SHAPES)


def test_images_are_given_to_the_network_as_in_training(command: Command, trained: Run, folder: Path) -> None:
    outcome = command("predict", str(trained), str(folder / "cross"), "--json", data=False)
    assert outcome.status == 0
    rows = json.loads(outcome.out)
    assert [row["class"] for row in rows].count("cross") > len(rows) / 2
    assert all(abs(sum(row[f"p_{name}"] for name in SHAPES) - 1) < 1e-4 for row in rows)
    table = command("predict", str(trained), str(folder / "cross" / "0.png"), data=False).out
    assert table.split()[:4] == ["file", "class", "probability", "runner-up"]


@pytest.mark.slow
def test_drawing_is_classified_by_name(trained: Run) -> None:
    page = page_of(trained)
    assert "Draw a picture" in page and '["circle", "cross", "square"]' in page
    assert re.search(r'"background": (\d+)', page)[1] > "200", "light paper, as in training"


@pytest.mark.thorough
def test_sweep_is_ranked_and_not_trained_again(command: Command, folder: Path) -> None:
    data = ["data=image_folder", f"data.source.path={folder}"]
    sweep = ["-m", *data, "model=mlp", "sweep=own", *SETTINGS[1:], "optimizer.lr=0.01,0.05", "trainer.max_epochs=1"]
    assert command(*sweep, data=False).status == 0
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.csv")}
    assert len(before) == 2
    assert command(*sweep, data=False).status == 0
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.csv")} == before


def test_data_are_described_before_training_and_by_check(command: Command, folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "parts"
    for name in ("training", "Valid", "testing"):
        shutil.copytree(folder, data / name)
    (data / "training" / "cross" / ".cache").write_bytes(b"")
    (data / "notes.txt").write_text("words")
    for path in (data / "testing" / "circle").iterdir():
        path.unlink()
    outcome = command("data=image_folder", f"data.source.path={data}", "model=lenet", "--check", data=False)
    assert outcome.status == 0
    for line in (
        "data: 3 classes\nimages: 30 x 40 to 49 x 40 pixels, values ",
        "class   training  validation  test\n",
        "circle        20          20     0\n",
        "all           60          60    40\n",
        "left out because hidden, a link, no image, or in no class's folder: 2 (notes.txt, training/cross/.cache)\n",
        "the data have a validation set of their own; data.val_size=0 leaves it out",
    ):
        assert line in outcome.out, line
    assert [line.removeprefix("mnist_lab: warning: ").split(": ")[0] for line in outcome.err.splitlines()] == [
        "60 of 60 validation images are in the training set, too",
        "the test set has no images of circle",
        "40 of 40 test images are in the training set, too",
        "40 of 40 test images are in the validation set, too",
    ]
    trained = command(
        "data=image_folder", f"data.source.path={data}", "model=mlp", *SETTINGS, "hydra.run.dir=r", data=False
    )
    assert trained.status == 0 and set(outcome.out.splitlines()[1:9]) <= set(trained.out.splitlines())
    assert Run(Path("r")).config.data.source.validation == 60
    assert "images:" not in command("model=mlp", "--check").out


class TenClasses(Classifier):
    """A user's network without num_classes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model._target_=test_own_data.TenClasses"], "TenClasses is for ten classes, and the data have 3"),
        (["data.val_size=60"], "data.val_size=60: leaves none of 48 images to train on"),
        (["data.source.path=nowhere"], "data.source.path=nowhere: folder not found"),
        (["data.source.path="], "data.source.path: required"),
        (["data.source.validation=5"], "has 0 images for validation, not 5"),
        (["data=arrays"], "has no arrays (.npy .npz .mat .csv .tsv .csv.gz .tsv.gz .zip); data=image_folder reads"),
        *thorough(
            (["+model.num_classes=10"], "model.num_classes=10: the data have 3 classes"),
            (["data.val_size=0.001"], "data.val_size=0.001: leaves none of 48 images for validation"),
            (["~data.source.path"], "data.source"),
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_a_run_starts(
    command: Command, folder: Path, settings: list[str], message: str
) -> None:
    given = [] if "data.source.path" in settings[0] else [f"data.source.path={folder}"]
    assert_refused(command("data=image_folder", *given, *settings, data=False), "", message)
    assert not list(Path().glob("runs/*"))
