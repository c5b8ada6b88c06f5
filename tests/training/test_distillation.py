"""A network that learns from a trained one: its loss, its teacher's images, resuming, and who is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from lab import Command, Tiny, assert_refused, same, slow, thorough, weights
from test_resume import PARTS, THREE, WHOLE, stop_run

from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.models.lenet import LeNet
from mnist_lab.reproduce.results import flop_per_image
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_data, make_model
from mnist_lab.training.distillation import set_up_teacher

TEACHER, OTHER = Run(Path("runs/teacher")), Run(Path("runs/other"))
BY = ["distillation=teacher", f"distillation.run={TEACHER}"]
DISTORTED = ["augmentation=affine", "label_smoothing=0.1"]
BRIEF = ["figures=false", "trainer.max_epochs=1"]


@pytest.fixture
def teacher(command: Command) -> Run:
    """Train a teacher whose size, normalisation and views are others than its pupils'."""
    settings = ["model=lenet", "optimizer.lr=0.05", "data.mean=0.5", "data.std=0.5", "test_augmentation=views"]
    assert command(*settings, *BRIEF, f"hydra.run.dir={TEACHER}").status == 0
    return TEACHER


@pytest.mark.parametrize(("weight", "temperature"), [(0.7, 2.0), *thorough((0.0, 1.0), (1.0, 0.5))])
@pytest.mark.parametrize("network", ["residual_cnn", *thorough("dropout_cnn")])  # Logits, and log-probabilities.
def test_loss_is_the_weighted_sum_of_those_of_labels_and_teacher(
    teacher: Run, tiny: Tiny, network: str, weight: float, temperature: float
) -> None:
    settings = [f"distillation.weight={weight}", f"distillation.temperature={temperature}", "label_smoothing=0.1"]
    cfg = tiny.compose(f"model={network}", *BY, *settings)
    model = make_model(cfg).eval()
    set_up_teacher(cfg, model)
    assert model.teacher is not None
    images, labels = make_data(cfg, model).examples(20)
    scores = model(images)
    log_p = (scores / temperature).log_softmax(1)
    q = (model.teacher.scores(images) / temperature).softmax(1)
    learned = model.loss_of(scores, labels, 0.1)
    teachers_pass = flop_per_image(model) - flop_per_image(make_model(cfg))
    assert 1 / 3 < teachers_pass / flop_per_image(LeNet()) < 1 / 2  # It is one forward pass, and resizing.
    expected = (1 - weight) * learned - weight * temperature**2 * (q * log_p).sum(1).mean()
    assert torch.allclose(model.objective(images, scores, labels), expected)


@pytest.mark.parametrize("network", ["mlp", *slow("compact_cnn")])
def test_teacher_sees_images_as_in_its_own_training(tiny: Tiny, teacher: Run, network: str) -> None:
    cfg, trained = tiny.compose(f"model={network}", *BY), TrainedRun(teacher)
    model, trained.model.views = make_model(cfg), None
    set_up_teacher(cfg, model)
    assert model.teacher is not None
    images, _ = make_data(cfg, model).examples(20)
    expected = trained.model.eval()(trained.data.examples(20)[0])
    # Images of another size than 28 are resized twice, and lose a little.
    tolerance = 1e-5 if images.shape[-1] == 28 else 0.05
    assert torch.allclose(model.teacher.scores(images).softmax(1), expected.softmax(1), atol=tolerance)


@pytest.mark.parametrize("step", [7, *thorough(12)])
def test_stopped_and_resumed_it_ends_the_same(command: Command, teacher: Run, step: int) -> None:
    arguments = ("model=mlp", *BY, *DISTORTED, THREE)
    assert command(*arguments, f"hydra.run.dir={WHOLE}").status == 0
    stop = f"+callbacks.stop={{_target_: test_multistep.StopWithin, step: {step}}}"
    stop_run(command, *arguments, f"hydra.run.dir={PARTS}", stop, step=step, size=5)
    shutil.copytree(teacher.folder, OTHER.folder)  # A teacher may have moved.
    shutil.rmtree(teacher.folder)
    assert command(f"resume={PARTS}", "callbacks.stop.step=0", f"distillation.run={OTHER}", data=False).status == 0
    whole, parts = (weights(run.checkpoint("last")) for run in (WHOLE, PARTS))
    assert same(whole, parts) and not [name for name in whole if "teacher" in name]
    assert WHOLE.config.distillation.sha256 == PARTS.config.distillation.sha256


def test_teacher_that_cannot_teach_is_refused(command: Command, teacher: Run) -> None:
    refused = {
        "distillation.run: required": ["distillation=teacher"],
        "distillation.run=nobody: ": ["distillation=teacher", "distillation.run=nobody"],
        f"distillation.run={TEACHER}: was trained with data.split_seed=0": [*BY, "data.split_seed=5"],
        f"distillation.run={TEACHER}: needs data.mean": [*BY, "data.mean=null", "data.std=null"],
        "distillation.weight=1.5: ": [*BY, "distillation.weight=1.5"],
        "distillation.temperature=0: ": [*BY, "distillation.temperature=0"],
        f"distillation.run={TEACHER}: its weights": [*BY, f"distillation.sha256={64 * '0'}"],
    }
    for start, settings in refused.items():
        assert_refused(command("model=mlp", *settings, *BRIEF, "hydra.run.dir=runs/pupil"), start)
        assert_refused(command("model=mlp", *settings, "--check"), start)
    teacher.update(status=RunState.PAUSED)
    assert_refused(command("model=mlp", *BY, "--check"), f"distillation.run={TEACHER}: is not finished")
    assert not Path("runs/pupil").exists()


def test_on_all_images_a_teacher_of_any_split_is_taken(command: Command, teacher: Run) -> None:
    assert command("model=mlp", *BY, *BRIEF, "data.val_size=0", "hydra.run.dir=runs/pupil").status == 0


def test_ensemble_teaches_unless_one_of_its_members_has_learned_what_is_held_out(
    command: Command, teacher: Run
) -> None:
    for seed in (0, 1):
        assert command("model=mlp", f"data.split_seed={seed}", *BRIEF, f"hydra.run.dir=runs/{seed}").status == 0
        assert command("ensemble", str(teacher), f"runs/{seed}", "--to", f"runs/with{seed}", data=False).status == 0
    pupil = ["model=mlp", "distillation=teacher", *BRIEF, "hydra.run.dir=runs/pupil"]
    assert_refused(
        command(*pupil, "distillation.run=runs/with1"), "distillation.run=runs/with1: was trained with data.val"
    )
    assert command(*pupil, "distillation.run=runs/with0").status == 0


def test_another_teacher_is_refused_on_resume(command: Command, teacher: Run) -> None:
    assert command("model=mlp", *BY, *BRIEF, "hydra.run.dir=runs/pupil").status == 0
    assert command("model=mlp", *BRIEF, f"hydra.run.dir={OTHER}").status == 0
    resumed = ["resume=runs/pupil", "trainer.max_epochs=2"]
    assert_refused(command(*resumed, f"distillation.run={OTHER}", data=False), f"distillation.run={OTHER}: its weights")
    assert_refused(command(*resumed, "distillation.weight=0.5", data=False), "distillation.weight=0.5: cannot change")
