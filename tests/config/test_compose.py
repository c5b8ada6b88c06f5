"""Every choice composes and passes the check; all bad settings are reported at once, by key and value, and early."""

import re
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.singleton import Singleton
from lab import Command, Tiny, assert_refused, slow, thorough
from lightning.pytorch import seed_everything
from omegaconf.basecontainer import BaseContainer

from mnist_lab import conf_dir
from mnist_lab.config.compose import compose
from mnist_lab.config.metric_names import EPOCH_METRICS, METRIC_NAMES
from mnist_lab.config.settings import flatten
from mnist_lab.config.validate import validate
from mnist_lab.errors import UsageError
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_model

PRESETS = [[f"experiment={path.stem}"] for path in sorted(conf_dir().glob("experiment/*.yaml"))]
LEFT_OUT = ("hydra", "experiment", "data/default") + (() if torch.cuda.is_available() else ("trainer/gpu",))


def choices_together() -> list[list[str]]:
    """Return lists of choices with which every choice of every group, except the presets, is composed once."""
    groups: dict[str, list[str]] = {}
    for path in sorted(conf_dir().glob("*/*.yaml")):
        if not {path.parent.name, f"{path.parent.name}/{path.stem}"} & set(LEFT_OUT):
            groups.setdefault(path.parent.name, []).append(f"{path.parent.name}={path.stem}")
    return [list(filter(None, together)) for together in zip_longest(*groups.values())]


@pytest.mark.parametrize(
    "choices", [*PRESETS[:1], *slow(PRESETS[-1]), *thorough(*PRESETS[1:-1]), *choices_together()], ids=" ".join
)
def test_every_choice_of_every_group_composes_and_passes_the_check(choices: list[str]) -> None:
    path = ["data.source.path=x"] if {"data=image_folder", "data=arrays", "data=idx"} & set(choices) else []
    path += ["distillation.run=x"] if "distillation=teacher" in choices else []
    validate(compose(*choices, *path))


def test_data_of_ones_own_need_a_path() -> None:
    with pytest.raises(UsageError, match=r"^data\.source\.path: required; add data\.source\.path=VALUE$"):
        compose("data=arrays")


def test_metrics_that_conf_names_are_among_those_that_runs_log() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in conf_dir().rglob("*.yaml"))
    monitored, published = re.findall(r"monitor: (\S+)", text), re.findall(r"^    (\w+/\w+): ", text, re.MULTILINE)
    assert monitored and set(monitored) <= set(EPOCH_METRICS)
    assert published and set(published) <= set(METRIC_NAMES)


def test_presets_are_the_tutorials_settings() -> None:
    for name, settings in {
        "simple_cnn": (64, 0.01, 0.5, 30),
        "compact_cnn": (64, 0.01, 0.5, 3),
        "lenet": (64, 0.001, 0.9, 5),
        "dropout_cnn": (1000, 0.01, 0.5, 10),
        "mlp": (32, 0.003, 0.9, 5),
    }.items():
        cfg = compose(f"experiment={name}")
        assert (cfg.data.batch_size, cfg.optimizer.lr, cfg.optimizer.momentum, cfg.trainer.max_epochs) == settings
        assert (cfg.name, cfg.data.val_size) == (name, 0)
    assert compose("experiment=dropout_cnn").seed == 1
    assert compose("experiment=mlp").data.mean == 0.5


@pytest.mark.slow
def test_override_may_take_another_settings_value(command: Command) -> None:
    for extra in ([], ["-m"]):
        assert command(*extra, "model=mlp", "data.eval_batch_size=${data.batch_size}").status == 0
    for run in Run.below("runs"):
        assert run.config.data.eval_batch_size == 16
    assert command("resume=latest", "trainer.max_epochs=3", data=False).status == 0


def test_gradients_of_a_fused_optimizer_are_not_clipped_in_mixed_precision(tiny: Tiny) -> None:
    mixed = ("model=mlp", "+trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed")
    with pytest.raises(UsageError, match=r"^trainer\.gradient_clip_val=1: needs optimizer\.fused=false in mixed prec"):
        validate(tiny.compose(*mixed))
    validate(tiny.compose(*mixed, "optimizer.fused=false"))
    validate(tiny.compose(*mixed, "trainer.precision=32-true"))


def test_least_and_greatest_seed_are_seeds() -> None:
    def first_weights(seed: int) -> torch.Tensor:
        seed_everything(compose(f"seed={seed}").seed, verbose=False)
        return next(make_model(compose()).parameters()).detach()

    assert torch.equal(first_weights(0), first_weights(0))
    assert not torch.equal(first_weights(0), first_weights(1))
    validate(compose("seed=4294967295"))


AT_ONCE = [  # Each setting has a part of its message.
    {
        "trainer.accelerator=foo": "auto",
        "optimizer.lr=abc": "number",
        "optimizer.momentum=1.5": "less than 1",
        "+optimizer.lrr=1": "no such setting; did you mean optimizer.lr?",
        "data.batch_size=0": "greater than or equal to 1",
        "data.source=null": "instance of ImageSource",
        "trainer.precision=7": "16-mixed",
        "trainer.gradient_clip_val=-1": "greater than or equal to 0",
        "+trainer.epochs=3": "no such setting",
        "trainer.limit_test_batches=1.5": "less than or equal to 1",
        "model._target_=torch.nn.Identity": "not a class derived from mnist_lab.models.Classifier",
        "callbacks.best.monitor=val/f1": "not logged; choose from val/loss, val/acc",
    },
    {
        "optimizer.lr=0": "greater than 0",
        "trainer.log_every_n_steps=0": "greater than or equal to 1",
        "trainer.precision=16": "a CPU cannot train in float16; use bf16-mixed or 32-true",
        "model._target_=no_such_module.Net": "cannot be imported (No module named 'no_such_module')",
        "callbacks.best.monitor=test/acc": "test metrics cannot be monitored; choose from val/loss, val/acc",
        "seed=4294967296": "less than 4294967296",
    },
]
ALONE = [
    ("optimizer.lr=nan", "finite"),
    ("optimizer=null", "choose from adam, adamw, sgd"),
    ("model=5", "choose from compact_cnn"),
    ("folder=elsewhere", "is derived; set model, sweep or hydra.run.dir instead"),
    ("callbacks.best=5", "must be null, for none, or settings with a _target_"),
    ("hydra.job.chdir=true", "has no effect"),
    ("hydra.sweep.subdir=x", "has no effect"),
]


@pytest.mark.parametrize("settings", AT_ONCE, ids=["ranges", "others"])
def test_bad_settings_are_all_reported_at_once_in_a_line_each(command: Command, settings: dict[str, str]) -> None:
    outcome = command(*settings, data=False)
    first, *lines = outcome.err.removeprefix("mnist_lab: ").splitlines()
    assert first == f"{len(settings)} problems in the configuration:"
    assert (outcome.status, len(lines)) == (2, len(settings)), outcome.err
    for setting, message in settings.items():
        (line,) = [line for line in lines if line.strip().startswith(f"{setting.lstrip('+')}: ")]
        assert message in line
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("setting", "message"), ALONE)
def test_bad_setting_is_reported_with_key_value_and_remedy(command: Command, setting: str, message: str) -> None:
    assert_refused(command(setting, data=False), f"{setting.lstrip('+')}: ", message)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trainer.devices=0"], "trainer: invalid settings"),
        (["trainer.limit_val_batches=0.1"], "is less than one of the 2 batches"),
        (["data.val_size=0", "callbacks=early_stopping"], "early_stopping.monitor=val/acc: not logged"),
        *slow(
            (["optimizer.nesterov=true", "optimizer.momentum=0"], "Nesterov momentum requires a momentum"),
            (["scheduler=onecycle", "scheduler.pct_start=2"], "pct_start"),
        ),
        *thorough(
            (["~trainer.max_epochs"], "trainer.max_epochs: required"),
            (["+callbacks.mine.patience=1"], "callbacks.mine="),
            (["optimizer._target_=torch.optim.RMSprop", "~optimizer.fused"], "remove it with ~optimizer.nesterov, or"),
        ),
    ],
)
def test_settings_that_do_not_fit_together_leave_no_run(command: Command, arguments: list[str], message: str) -> None:
    assert_refused(command(*arguments), "", message)
    assert not list(Path().iterdir())


def test_broken_yaml_of_the_user_is_reported_by_file(command: Command, tiny: Tiny) -> None:
    (tiny.conf / "model").mkdir()
    (tiny.conf / "model" / "mine.yaml").write_text("_target_: [my_net.MyNet\n")
    assert_refused(command("model=mine"), f"{tiny.conf / 'model' / 'mine.yaml'}: not a YAML file")


@pytest.mark.parametrize(
    ("overrides", "precision"),
    [
        (["model=lenet", "trainer=fast"], "bf16-mixed"),
        (["model=mlp", "trainer=fast"], "32-true"),
        (["trainer=fast", "trainer.precision=16-mixed"], "16-mixed"),
    ],
)
def test_fast_trainer_takes_the_networks_fastest_precision(overrides: list[str], precision: str) -> None:
    assert compose(*overrides).trainer.precision == precision


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("setting", ["trainer=gpu", "trainer.accelerator=mps"])
def test_missing_gpu_is_reported_with_what_to_use(command: Command, setting: str) -> None:
    assert_refused(command(setting, data=False), "", "trainer.accelerator=cpu, or auto")


@pytest.mark.parametrize(
    ("gpus", "devices", "accelerator", "reported"),
    [
        (1, 4, "gpu", "trainer.devices=4: torch finds 1 GPU on this machine; use trainer.devices=1, or"),
        (2, 3, "auto", "trainer.devices=3: torch finds 2 GPUs on this machine; use trainer.devices=2, or"),
        (2, 2, "gpu", ""),
        (1, 2, "cpu", ""),
    ],
)
def test_more_devices_than_gpus_are_reported(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, gpus: int, devices: int, accelerator: str, reported: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    cfg = tiny.compose(f"trainer.devices={devices}", f"trainer.accelerator={accelerator}")
    with pytest.raises(UsageError, match=re.escape(reported)) if reported else nullcontext():
        validate(cfg)


@pytest.mark.parametrize(("accelerator", "is_apple"), [("auto", True), ("cpu", False)])
def test_float64_is_refused_on_apples_gpus(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, accelerator: str, is_apple: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    cfg = tiny.compose(f"trainer.accelerator={accelerator}", "trainer.precision=64-true")
    with pytest.raises(UsageError, match="Apple's GPUs have no float64") if is_apple else nullcontext():
        validate(cfg)


class Own(MLP):
    """A user's network with a setting."""

    def __init__(self, *, width: int = 3) -> None:
        super().__init__()


def test_settings_of_a_users_own_network_are_checked_by_its_signature(tiny: Tiny) -> None:
    (tiny.conf / "model").mkdir()
    (tiny.conf / "model" / "own.yaml").write_text("_target_: test_compose.Own\nwidth: 3\n")
    validate(tiny.compose("model=own", "model.width=4"))
    with pytest.raises(UsageError, match=r"model\.width=wide"):
        validate(tiny.compose("model=own", "model.width=wide"))


@pytest.mark.parametrize("group", ["augmentation", *thorough("scheduler", "test_augmentation")])
def test_choice_of_none_leaves_nothing_of_what_a_preset_sets(group: str) -> None:
    cfg = compose("experiment=champion", f"{group}=none")
    validate(cfg)
    assert cfg[group] == {}


def test_settings_of_none_are_refused(tiny: Tiny) -> None:
    (tiny.conf / "experiment").mkdir()
    (tiny.conf / "experiment" / "own.yaml").write_text("# @package _global_\naugmentation: {degrees: 20}\n")
    remedy = "augmentation=none has no settings; choose another augmentation, or remove it with ~augmentation.degrees"
    for overrides in (["experiment=own"], ["augmentation=none", "+augmentation.degrees=20"]):
        with pytest.raises(UsageError, match=rf"^augmentation\.degrees=20: {remedy}$"):
            validate(tiny.compose(*overrides))
    with pytest.raises(UsageError, match=r"^augmentation\._partial_=true: augmentation=none has no settings"):
        validate(tiny.compose("augmentation=none", "+augmentation._partial_=true"))


def test_settings_may_have_numbers_as_keys_and_choices_subfolders(tiny: Tiny) -> None:
    (tiny.conf / "model" / "mine").mkdir(parents=True)
    (tiny.conf / "model" / "mine" / "net.yaml").write_text("_target_: mnist_lab.models.MLP\n")
    cfg = tiny.compose("model=mine/net", "+tutorial.published={1: 0.5}")
    validate(cfg)
    assert flatten(cfg)["tutorial.published.1"] == 0.5
    with pytest.raises(UsageError, match=r"^model=mine/nett: unknown choice; did you mean mine/net\?"):
        tiny.compose("model=mine/nett")


def test_composes_inside_another_application_of_hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.yaml").write_text("x: 1\n")
    monkeypatch.setattr("sys.argv", ["app", f"hydra.run.dir={tmp_path}/out", "hydra/job_logging=none"])
    monkeypatch.setattr("hydra._internal.utils.is_under_debugger", lambda: True)  # Then Hydra raises errors.
    names: list[str] = []
    app = hydra.main(version_base="1.3", config_path=str(tmp_path), config_name="app")
    app(lambda cfg: names.append(compose("model=lenet").name))()
    assert names == ["lenet"]


def test_composes_after_hydra_was_initialized_and_leaves_it_and_its_resolvers_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text("x: ${now:%Y}\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        singletons, resolvers = dict(Singleton._instances), dict(BaseContainer._resolvers)
        assert compose("model=lenet").name == "lenet"
        with pytest.raises(UsageError):
            compose("model=no")
        assert (singletons, resolvers) == (Singleton._instances, BaseContainer._resolvers)
        assert len(hydra.compose("app").x) == 4


def test_interpolation_within_one_of_the_environment_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    cfg = compose("data.root='${oc.env:NOWHERE,${hydra:runtime.cwd}}'")
    assert cfg.data.root == str(Path.cwd())


@pytest.mark.slow
def test_primary_configuration_of_ones_own_is_composed_and_kept_on_resume(command: Command, tiny: Tiny) -> None:
    (tiny.conf / "mine.yaml").write_text("defaults: [train, _self_]\noptimizer: {lr: 0.123}\n")
    assert command("--config-name", "mine", "model=mlp", "trainer.max_epochs=1").status == 0
    assert command("resume=latest", "trainer.max_epochs=2", data=False).status == 0
    run = Run.find("latest")
    assert (run.config.optimizer.lr, run.info["epochs"]) == (0.123, 2)
    assert "--config-name mine" in (run.info["command"] or "")


def test_composes_while_another_thread_does(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, others = hydra.compose, list[Future[Any]]()

    def compose_slowly(*args: Any, **settings: Any) -> Any:
        if not others:
            others.append(threads.submit(compose, "seed=2"))
            wait(others, timeout=0.5)
        return plain(*args, **settings)

    monkeypatch.setattr("hydra.compose", compose_slowly)
    with ThreadPoolExecutor(1) as threads:
        seed = compose("seed=1").seed
    assert (seed, others[0].result().seed) == (1, 2)
