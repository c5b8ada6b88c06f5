"""Whatever happens to a run, it ends like an undisturbed one, or one line says why not."""

import shutil
import signal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from lab import SAVED_OFTEN, Outcome, Tiny, completed, thorough, tiny_data

from benchmarks.kills import losses
from mnist_lab.files import is_whole
from mnist_lab.runs.checkpoints import read_checkpoint
from mnist_lab.runs.run import Run

STEPS = 36  # in three epochs
CHECKPOINTS = ("checkpoints/last.ckpt", "checkpoints/best.ckpt")
FILES = (*CHECKPOINTS, "run.json", "config.yaml", "metrics.csv", "events.*", "train.log")
FORBIDDEN = ("optimizer.lr=0.5", "seed=7", "model=lenet", "data.batch_size=32")
ALLOWED = ("steps_per_execution=1", "steps_per_execution=7", "callbacks.summary=null", "trainer.log_every_n_steps=4")


def start(tiny: Tiny, runs_dir: Path, *arguments: str, kill: tuple[signal.Signals, int] | None = None) -> Outcome:
    """Run `python -m mnist_lab` in a process, which gets a signal after some steps of training."""
    program = ("-m", "mnist_lab")
    if kill is not None:
        program = ("-c", f"import instrumented; instrumented.program_signalled({kill[0]:d}, {kill[1]})")
    return completed(*program, *tiny.arguments(f"runs_dir={runs_dir}", *arguments))


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, Run]:
    """Train a run without disturbance; the others must end like it."""
    folder = tmp_path_factory.mktemp("lifecycle")
    tiny = tiny_data(folder / "tiny")
    tiny.overrides = [*SAVED_OFTEN, "trainer.max_epochs=3"]
    ended = start(tiny, folder / "whole", "resume=auto")
    assert (ended.status, ended.err) == (0, ""), ended
    return tiny, Run.find("latest", folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("examples", [3, *thorough(8)])  # So many orders are tried.
def test_run_ends_as_if_left_alone_or_says_why_not(left_alone: tuple[Tiny, Run], tmp_path: Path, examples: int) -> None:
    from hypothesis import HealthCheck, settings
    from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
    from hypothesis.strategies import booleans, floats, integers, sampled_from

    tiny, whole = left_alone
    numbers = count()

    class Life(RuleBasedStateMachine):
        """A run that is started, stopped, damaged and started again, in any order."""

        def __init__(self) -> None:
            super().__init__()
            self.runs_dir = tmp_path / str(next(numbers))
            self.damaged: str | None = None  # Only one file, and once: damaged twice, it may look whole.
            self.explained = False
            self.settings: tuple[str, ...] = ()

        @property
        def step(self) -> int:
            """The steps of the newest checkpoint."""
            last = self.file("checkpoints/last.ckpt")
            return int(read_checkpoint(last)["global_step"]) if last and is_whole(last) else 0

        def file(self, pattern: str) -> Path | None:
            return next(iter(sorted(self.runs_dir.glob(f"*/*/{pattern}"))), None)

        def run(self, kill: tuple[signal.Signals, int] | None = None) -> Outcome:
            ended = start(tiny, self.runs_dir, "resume=auto", *self.settings, kill=kill)
            assert "Traceback" not in ended.err, ended.err
            assert len(ended.err.splitlines()) <= 1, ended.err
            if ended.err:
                assert self.damaged, ended.err
                self.explained = True
            return ended

        @rule(number=sampled_from((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)), after=integers(1, 20))
        def stop_after_steps(self, number: signal.Signals, after: int) -> None:
            left = STEPS - self.step
            ended = self.run(kill=(number, after))
            stopped = -number if number == signal.SIGKILL else 128 + number
            assert self.damaged or ended.status == (stopped if after <= left else 0), ended

        @rule(setting=sampled_from(ALLOWED))
        def change_an_allowed_setting(self, setting: str) -> None:
            self.settings = (setting,)

        @precondition(lambda self: self.file("checkpoints/last.ckpt") and not self.damaged)
        @rule(setting=sampled_from(FORBIDDEN))
        def change_a_forbidden_setting(self, setting: str) -> None:
            before = self.contents()
            ended = start(tiny, self.runs_dir, "resume=auto", setting)
            assert ended.status == 2, ended
            assert setting.split("=")[0] in ended.err or "model" in ended.err
            assert self.contents() == before

        def contents(self) -> dict[Path, bytes]:
            files = self.runs_dir.rglob("*")
            return {path: path.read_bytes() for path in files if path.is_file() and path.suffix != ".log"}

        @precondition(lambda self: not self.damaged)
        @rule(name=sampled_from(FILES), place=floats(0, 0.999), cut=booleans())
        def damage_a_file(self, name: str, place: float, cut: bool) -> None:
            path = self.file(name)
            if path is None or not path.stat().st_size:
                return
            self.damaged = name
            content = bytearray(path.read_bytes())
            if cut:
                del content[int(place * len(content)) :]
            else:
                content[int(place * len(content))] ^= 0x10
            path.write_bytes(content)

        def teardown(self) -> None:
            ended = self.run()
            found = losses(whole, Run.find("latest", self.runs_dir), repeats=False) if not ended.status else ["no end"]
            assert not found or (self.damaged and self.explained), (self.damaged, found, ended)
            shutil.rmtree(self.runs_dir, ignore_errors=True)

    limits: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    orders = settings(max_examples=examples, stateful_step_count=5, derandomize=True, **limits)
    run_state_machine_as_test(Life, settings=orders)  # type: ignore[no-untyped-call]
