"""A misspelt setting or choice gets one line that names the nearest one, wherever overrides are given."""

import re
from pathlib import Path

import pytest
from lab import Command, Outcome, Tiny, assert_refused
from omegaconf import OmegaConf

from mnist_lab import __version__
from mnist_lab.config.compose import compose
from mnist_lab.errors import UsageError
from mnist_lab.runs.run import Run

MISSPELT = [
    ("lr=0.1", "unknown setting; did you mean optimizer.lr?"),
    ("ckpt_path=x.ckpt", "unknown setting; did you mean resume?"),
    ("trainer.max_epoch=3", "unknown setting; did you mean trainer.max_epochs?"),
    ("optimiser=adam", "unknown setting; did you mean optimizer?"),
    ("model=ResNet50", "unknown choice; did you mean residual_cnn?"),
    ("data=Fashion-MNIST", "unknown choice; did you mean fashion_mnist?"),
    ("epochs=3", "unknown setting; did you mean trainer.max_epochs?"),
    ("scheduler.gamma=0.5", "unknown setting here; scheduler=step has it"),
    ("model=lenett", "unknown choice; did you mean lenet? (choose from compact_cnn, "),
    ("model=xyz/1", "unknown choice (choose from compact_cnn, "),
    ("dashboard=[1,2]", "unknown choice (choose from default, none)"),
    ("n_trials=9", "unknown setting; did you mean hydra.sweeper.n_trials?"),
    ("optimizer=sgd,adam", "several values; add -m"),
    ("optimizer.lr=[1", "not valid as KEY=VALUE"),
    ("~resume", "cannot be removed; set resume=null"),
]


@pytest.mark.parametrize(("override", "hint"), MISSPELT)
def test_misspelt_override_gets_one_line_with_the_nearest(tiny: Tiny, override: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose(override)
    assert str(caught.value).startswith(f"{override}: {hint}") and "\n" not in str(caught.value)


@pytest.mark.slow
def test_setting_that_only_some_swept_choices_have_is_refused_in_one_line(command: Command) -> None:
    outcome = command("-m", "model=residual_cnn,mlp", "model.widths=[2,2,2]")
    assert outcome.status == 2 and not Path("runs").exists()
    assert re.fullmatch(r"mnist_lab: model\.widths=\[2,2,2\]: unknown setting here; model=\w+ has it\n", outcome.err)
    assert command("-m", "model=residual_cnn", "seed=0,1", "model.widths=[2,2,2]", "--check").status == 0


@pytest.mark.parametrize(
    ("arguments", "start", "hint"),
    [
        (["~lr"], "~lr", "did you mean optimizer.lr?"),
        (["name=a"], "name=a", "is derived"),
        (["-m", "model=mlp,lenett", "seed=1,2"], "model=mlp,lenett", "unknown choice; did you mean lenet?"),
        (["-m", "sweep=..", "seed=1,2"], "sweep=..", "a sweep's name consists of"),
        (["--epochs", "3"], "--epochs", "unknown option; did you mean trainer.max_epochs=VALUE?"),
        (["model=mlp", "lr", "0.1"], "lr", "write KEY=VALUE, after a command if there is one"),
        (["seed", "=", "3"], "seed", "or write KEY=VALUE"),
        (["trian", "model=mlp"], "trian", "did you mean train?"),
        (["evaluate", "latest"], "evaluate", "did you mean test?"),
        (["sweep", "seed=1,2"], "sweep", "did you mean -m?"),
        (["vit"], "vit", "choose from train, "),
        (["--cfg", "foo"], "argument --cfg/-c", "choose from"),
        (["--config-dir", "nowhere"], "--config-dir=nowhere", "folder not found"),
    ],
)
def test_misspelt_setting_or_option_is_refused(command: Command, arguments: list[str], start: str, hint: str) -> None:
    assert_refused(command(*arguments, data=False), f"{start}: ", hint)
    assert not list(Path().iterdir())


def test_choice_of_a_users_own_folder_is_named(command: Command, tiny: Tiny) -> None:
    assert_refused(command("data=tniy"), "data=tniy: ", "did you mean tiny? (choose from arrays, ")


def test_choice_in_a_folder_here_is_named_with_the_option_that_adds_it(command: Command, tiny: Tiny) -> None:
    tiny.conf.rename("my_conf")
    Path("my_conf/model").mkdir()
    Path("my_conf/model/deep.yaml").write_text("_target_: mnist_lab.models.MLP\n")
    hint = "my_conf/model/deep.yaml has it: add --config-dir my_conf"
    assert_refused(command("model=deep", data=False), "model=deep: ", hint)
    assert command("--config-dir", "my_conf", "model=deep", "data=tiny", "--check", data=False).status == 0


LISTENER = "lightning.pytorch.callbacks.LearningRateMonitor"


@pytest.mark.parametrize(
    ("plus", "others"),
    [
        ("+trainer.gradient_clip_val=0.7", []),
        ("+trainer.max_epochs=3", []),
        ("+optimizer.amsgrad=true", ["optimizer=adam"]),
        (f"+callbacks.rate._target_={LISTENER}", []),
        ("+callbacks.rate.logging_interval=step", [f"callbacks.rate._target_={LISTENER}"]),
        ("+trainer.profiler.filename=x", ["trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler"]),
    ],
)
def test_argument_of_a_class_is_set_with_and_without_plus(plus: str, others: list[str]) -> None:
    with_plus, without = (compose(*others, override, "hydra.run.dir=x") for override in (plus, plus[1:]))
    assert with_plus == without and OmegaConf.select(without, plus[1:].partition("=")[0]) is not None


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("trainer.logger=false", "trainer.logger=false: cannot be set, the group logger has them"),
        ("trainer.gradient_clip_val=much", "trainer.gradient_clip_val=much: input should be"),
    ],
)
def test_argument_that_cannot_be_set_is_refused_with_a_reason(command: Command, override: str, start: str) -> None:
    assert_refused(command("model=mlp", override), start)


@pytest.mark.slow
def test_argument_without_plus_is_kept_by_a_resumed_run_and_swept(command: Command) -> None:
    given = ("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/a")
    assert command(*given, "trainer.gradient_clip_val=0.7").status == 0
    assert command("resume=runs/a", "trainer.max_epochs=2", data=False).status == 0
    assert Run(Path("runs/a")).config.trainer.gradient_clip_val == 0.7
    assert command("resume=runs/a", "trainer.max_epochs=3", "trainer.gradient_clip_val=0.9", data=False).status == 0
    assert Run(Path("runs/a")).config.trainer.gradient_clip_val == 0.9
    assert "2 jobs over trainer.gradient_clip_val" in command("-m", "trainer.gradient_clip_val=0.1,1", "--check").out


def test_choice_that_only_other_files_begin_with_is_not_completed(
    lab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", "mnist-lab data=")
    completed = lab("-sc", "query=bash").out.split()
    assert "data=mnist" in completed and "data=default" not in completed
    monkeypatch.setenv("COMP_LINE", "mnist-lab trainer=")
    assert "trainer=default" in lab("-sc", "query=bash").out.split()


def test_folder_of_configurations_may_have_an_equals_sign_and_other_files(command: Command, tiny: Tiny) -> None:
    (tiny.conf / "chart.yaml").write_text("{{ if .Values }}\n---\na: 1\n---\nb: 2\n")
    folder = tiny.conf.rename(tiny.folder / "my=conf")
    outcome = command("--config-dir", str(folder), "data=tiny", "optimizer.lr=-1", data=False)
    assert_refused(outcome, "optimizer.lr=-1: ", "greater than 0")
    assert compose("data=tiny", config_dir=str(folder)).data.root == str(tiny.root)


def test_version_is_the_programs_own(command: Command) -> None:
    for arguments in (["--version"], ["train", "--version"]):
        assert command(*arguments, data=False) == Outcome(0, f"mnist_lab {__version__}\n", "")


@pytest.mark.slow
def test_value_of_a_variable_is_used_not_written(command: Command, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny.root.rename(tiny.folder / "secret-0123456789")
    monkeypatch.setenv("TINY_ROOT", str(root))
    given = ("model=mlp", "figures=true", "data.root=${oc.env:TINY_ROOT}", "trainer.max_epochs=1")
    assert command(*given, "hydra.run.dir=runs/a/b").status == 0
    assert command("resume=runs/a/b", "trainer.max_epochs=2", data=False).status == 0
    assert command("-m", *given, "seed=1,2", "sweep=s").status == 0
    files = [path for path in Path("runs").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if b"secret-0123456789" in path.read_bytes()]
    run = Run(Path("runs/a/b"))
    assert run.info["overrides"][-2:] == ["data.root=${oc.env:TINY_ROOT}", "trainer.max_epochs=2"]
    assert command("test", "runs/a/b", data=False).status == 0
    monkeypatch.delenv("TINY_ROOT")
    assert command("compare", "runs", "--json", data=False).status == 0
    for arguments in (["test", "runs/a/b"], ["resume=runs/a/b"]):
        assert_refused(command(*arguments, data=False), "", "Environment variable 'TINY_ROOT' not found")
