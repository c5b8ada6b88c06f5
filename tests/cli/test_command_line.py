"""The command line in processes of its own: quick help, any folder, the wheel, several processes at once."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from instrumented import assert_each_image_is_seen_once_an_epoch
from lab import TRAIN, Command, Outcome, Tiny, assert_refused
from test_ls import fake

from mnist_lab import conf_dir
from mnist_lab.cli.commands import COMMANDS, complete_command
from mnist_lab.cli.robustness import NAMES
from mnist_lab.data.corruptions import CORRUPTIONS
from mnist_lab.export import export
from mnist_lab.runs.run import Run

CHECKOUT = Path(__file__).parent.parent.parent


def run(*arguments: str, **environment: str) -> Outcome:
    """Start a new Python, since the tests are about what it imports, and from where."""
    started = [sys.executable, *arguments]
    done = subprocess.run(started, env=os.environ | environment, capture_output=True, text=True, timeout=240)
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_help_names_commands_groups_and_choices_also_the_users_and_imports_no_slow_module(tiny: Tiny) -> None:
    (tiny.conf / "model").mkdir()
    (tiny.conf / "model" / "my_net.yaml").write_text("_target_: my_net.MyNet\n")
    program = (
        "import sys, mnist_lab.__main__ as program\n"
        f"sys.argv[1:] = ['--help', '--config-dir', {str(tiny.conf)!r}]\n"
        "program.main()\n"
        "assert not {'torch', 'hydra', 'omegaconf', 'numpy', 'rich', 'pydantic'} & set(sys.modules)"
    )
    outcome = run("-c", program)
    assert outcome.status == 0, outcome.err
    assert max(map(len, outcome.out.splitlines())) <= 80
    for name, command in COMMANDS.items():
        assert f"\n  {name} {command.arguments}" in outcome.out
    settings = outcome.out.split("Settings:")[1].replace("\n" + " " * 15, " ")  # This joins the parts of long lines.
    for path in [*conf_dir().glob("*/*.yaml"), Path("model/my_net.yaml")]:
        (line,) = [line for line in settings.splitlines() if line.startswith(f"  {path.parent.name} ")]
        is_listed = path.stem in line.replace(",", "").split()
        assert is_listed == (path != conf_dir() / "data" / "default.yaml")


def test_lists_help_and_refusals_do_not_import_torch(tiny: Tiny) -> None:
    """One interpreter is enough for all, since imports stay."""
    for number in range(3):
        (fake(f"r{number}", number) / "config.yaml").write_text(f"seed: {number}\n")
    commands = [name for name in COMMANDS if name != "train"]
    without_hydra = [["ls"], ["compare", "runs"], ["compare", "runs", "--group", "seed"]]
    lines = [
        *(["--help"], ["--version"], ["--cfg", "job"], ["-sc", "query=bash"]),
        *(["lr=0.1"], ["resume=nowhere"]),
        *([name, "--help"] for name in commands),
        *([name, "--no-such-option"] for name in commands),
        *([name] for name in ("test", "export", "report", "robustness", "predict", "draw", "compare")),
        *(["export", "nowhere", "--format", "onnx"], ["export", "nowhere", "--format", "foo"]),
        *(["robustness", "nowhere"], ["robustness", "latest", "--only", "foo"], ["predict", "nowhere", "x.png"]),
        *(["reproduce", "fooo"], ["reproduce", "mlp", "seed=1"], ["reproduce", "mlp", "--seeds", "0"]),
    ]
    program = (
        "import contextlib, json, sys, mnist_lab.__main__ as program\n"
        "for number, arguments in enumerate(json.loads(sys.argv[1])):\n"
        "    sys.argv[1:] = arguments\n"
        "    with contextlib.suppress(SystemExit): program.main()\n"
        "    slow = {'torch', 'lightning', 'matplotlib', *['hydra'] * (number < 3)}\n"
        "    assert not slow & set(sys.modules), arguments\n"
    )
    outcome = run("-c", program, json.dumps(without_hydra + lines), COMP_LINE="mnist-lab model=")
    assert outcome.status == 0, outcome.err
    assert "Traceback" not in outcome.err


FIRST_LINES = {
    "model=mlp": "training mlp in runs/",
    "-m model=mlp seed=1,2 --check": "checking mlp, 2 jobs",
    "test r0": "testing runs/r0",
    "report r0": "writing the report of runs/r0",
    "robustness r0 --only blur": "testing runs/r0 on 1 corruption",
    "draw r0": "preparing the page of runs/r0",
    "export r0 --format onnx": "exporting runs/r0 as onnx",
    "predict r0 a.png": "predicting a.png with runs/r0",
    "predict r0 a.csv": "predicting a.csv with runs/r0",
    "ensemble r0 r1": "testing 2 networks",
    "compare r0 r1": "testing both networks",
    "data": "reading MNIST",
    "lr model=mlp": "training mlp for 300 steps",
    "reproduce mlp": "reproducing mlp",
}


@pytest.mark.slow
def test_terminal_shows_what_is_done_with_what_before_torch_is_imported(tiny: Tiny) -> None:
    """The import of torch ends each command here, so that one interpreter is enough for all."""
    for number in range(2):
        (fake(f"r{number}", number) / "config.yaml").write_text(f"seed: {number}\n")
    program = (
        "import json, sys, mnist_lab.__main__ as program\n"
        "class Stop:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': raise SystemExit\n"
        "sys.meta_path.insert(0, Stop())\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv[1:] = line.split()\n"
        "    try: program.main()\n"
        "    except SystemExit: print('=====')\n"
    )
    outcome = run("-c", program, json.dumps([*FIRST_LINES]), FORCE_COLOR="1", TERM="xterm", COLUMNS="200")
    shown = outcome.out.split("=====\n")
    assert len(shown) == len(FIRST_LINES) + 1, outcome.err
    for line, first, text in zip(FIRST_LINES, FIRST_LINES.values(), shown, strict=False):
        assert first in text, line


def test_commands_name_every_export_format_and_every_corruption() -> None:
    assert COMMANDS["export"].arguments == f"RUN... --format {'|'.join(export.FORMATS)}"
    assert list(NAMES) == list(CORRUPTIONS)


@pytest.mark.parametrize(
    ("line", "completed", "hydra_completes"),
    [
        ("mnist-lab re", "reproduce report restore", "mnist-lab re"),
        ("mnist-lab ", " ".join(COMMANDS), "mnist-lab "),
        ("mnist-lab optimizer=a", "", "mnist-lab optimizer=a"),
        ("mnist-lab model=mlp opt", "", "mnist-lab model=mlp opt"),
        ("mnist-lab train opt", "", "mnist-lab opt"),
        ("mnist-lab report la", "", None),
    ],
)
def test_command_is_completed_as_the_first_word_and_settings_where_they_belong(
    line: str, completed: str, hydra_completes: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete_command(line) == hydra_completes
    assert capsys.readouterr().out.strip() == completed


def test_folder_that_cannot_be_made_is_reported_before_training(command: Command) -> None:
    Path("file").write_text("")
    assert_refused(command("runs_dir=file"), "", "choose another runs_dir")


def test_full_error_variable_shows_the_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    outcome = command("test", "nowhere", data=False)
    assert (outcome.status, "Traceback" in outcome.err) == (2, True)


@pytest.mark.slow
def test_console_script_finds_a_network_in_the_current_folder(tiny: Tiny) -> None:
    Path("my_net.py").write_text("from mnist_lab.models.mlp import MLP as MyNet\n")
    (tiny.conf / "model").mkdir()
    (tiny.conf / "model" / "my_net.yaml").write_text("_target_: my_net.MyNet\n")
    script = str(Path(sys.executable).with_name("mnist-lab"))
    outcome = run(script, "--config-dir", str(tiny.conf), *tiny.overrides, "model=my_net", "seed=-1")
    assert outcome.err == "mnist_lab: seed=-1: input should be greater than or equal to 0\n"


@pytest.mark.slow
def test_ddp_covers_every_image_exactly_once_an_epoch(tiny: Tiny, command: Command) -> None:
    """There are two processes on the CPU; the sum of an image's noise identifies it."""
    Path("seen").mkdir()
    own = ["--config-dir", str(tiny.conf), *tiny.overrides, "model=mlp", "model._target_=instrumented.Spy"]
    outcome = run("-m", "mnist_lab", *own, "trainer=ddp", "data.val_size=0")
    assert outcome.status == 0, outcome.err
    assert_each_image_is_seen_once_an_epoch(epochs=2, images=TRAIN)
    made = Run.find("latest")
    assert made.info["status"] == "finished"
    assert made.info["device"].startswith("2 × cpu")
    tested = command("test", "latest", data=False)
    assert repr(made.info["metrics"]["test/acc"]) in tested.out, "metrics are summed over the processes"
    loss, *_ = re.findall(r"test/loss ([0-9.]+),", tested.out)  # The recorded loss follows, which may differ.
    assert float(loss) == pytest.approx(made.info["metrics"]["test/loss"])
    assert outcome.out.count("run folder:") == 1
    assert outcome.err == ""


@pytest.mark.slow
def test_wheel_carries_its_configuration_and_runs_the_main_job_elsewhere(tiny: Tiny, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(wheels)]
    built = run("-m", "pip", "wheel", *options, str(CHECKOUT))
    assert built.status == 0, built.err
    (wheel,) = wheels.glob("mnist_lab-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"mnist_lab/conf/{path.relative_to(CHECKOUT / 'conf').as_posix()}" for path in CHECKOUT.glob("conf/**/*.yaml")
    }
    expected |= {f"mnist_lab/report/{path.name}" for path in CHECKOUT.glob("mnist_lab/report/*.*")}
    assert expected <= names
    assert not any(name.startswith(("conf/", "tests/")) for name in names)
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    arguments = ["--config-dir", str(tiny.conf), *tiny.overrides, "trainer.max_epochs=1"]
    outcome = run("-m", "mnist_lab", *arguments, PYTHONPATH=str(site))
    assert outcome.status == 0, outcome.err
    assert Run.find("latest").info["status"] == "finished"
    program = "import mnist_lab; print(mnist_lab.conf_dir())"
    assert run("-c", program, PYTHONPATH=str(site)).out.strip() == str(site / "mnist_lab" / "conf")
