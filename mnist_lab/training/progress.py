"""The terminal output of a run: its layers before training, and a line for each epoch."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text
from torch import Tensor, nn
from torchmetrics import Metric

from mnist_lab.config.metric_names import IMAGES_PER_SECOND, TEST_LOSS, TRAIN_ACC, TRAIN_LOSS
from mnist_lab.models.classifier import Classifier
from mnist_lab.training.callbacks import TestCurve
from mnist_lab.training.multistep import StepCallback, training_batches

console = Console(highlight=False, markup=False)


class LayerTable(Callback):
    """Prints each layer with its output's size and its parameters before training starts."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        side = int(getattr(pl_module, "image_size", 28))
        console.print(layer_table(pl_module, (1, 1, side, side)))


def layer_table(model: nn.Module, input_size: tuple[int, ...]) -> Table:
    """Return a table of a network's layers: name, kind, output size for one input, (1, C, H, W), and parameters."""
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if not isinstance(layer, Metric) and name and not list(layer.children())
    }
    sizes: dict[nn.Module, str] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, _, out: sizes.update({layer: "×".join(map(str, out.shape[1:]))}))
        for layer in layers.values()
    ]
    was_training = model.training
    try:
        # eval: a forward pass in train mode would draw from the random state that dropout starts from
        with torch.no_grad():
            model.eval()(next(model.parameters()).new_zeros(input_size))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    total = sum(parameter.numel() for parameter in model.parameters())
    table = Table(
        "layer",
        "kind",
        Column("output", footer="total"),
        title=f"{type(model).__name__}, {'×'.join(map(str, input_size[1:]))} in",
    )
    table.add_column("parameters", justify="right", footer=f"{total:,}")
    table.show_footer = True
    for name, layer in layers.items():
        count = sum(parameter.numel() for parameter in layer.parameters())
        table.add_row(name, type(layer).__name__, sizes.get(layer, "-"), f"{count:,}" if count else "-")
    return table


def results_table(title: str, metrics: Mapping[str, float]) -> Table:
    """Return a table of loss and accuracy, a line for each set that was measured."""
    table = Table("set", title=title, min_width=len(title))
    table.add_column("loss", justify="right")
    table.add_column("accuracy", justify="right")
    for name, words in (("train", "training, while learning"), ("val", "validation"), ("test", "test")):
        if f"{name}/loss" in metrics:
            table.add_row(words, f"{metrics[f'{name}/loss']:.4f}", f"{metrics[f'{name}/acc']:.2%}")
    return table


class EpochLines(StepCallback):
    """Prints a line for each epoch that is done; in a terminal, the running epoch is a last line that moves.

    The moving line has the epoch's mean loss and accuracy so far, a bar, images a second, and the time left of the
    epoch and of the run. It is drawn in the main thread, at most every `refresh_every` steps and ten times a second,
    and only then the loss is read off the device: reading it waits for a GPU.

    Args:
        refresh_every: steps between two updates of the moving line, at least.
    """

    def __init__(self, refresh_every: int = 10) -> None:
        self.refresh_every = refresh_every
        self.live: Live | None = None  # what draws the moving line
        self.drawn = 0.0  # when, by time.perf_counter
        self.epoch_started: float | None = None
        self.epochs: int | None = None  # of the whole run
        self.columns: dict[str, Callable[[float], str]] = {}  # each metric of an epoch's line, and how it is written
        self.cells: list[str] = []  # of the moving line: epoch, training loss, accuracy, images/s
        self.done = (0, 1)  # what its bar shows: steps or batches done, and all
        self.left = ""  # its last cell
        self.first_step = 0  # where the epoch was taken up
        self.steps, self.seconds = 0, 0.0  # of training in the epochs before, validation left out
        self.last_step = 0.0  # when it was taken, by time.perf_counter
        self.seconds_after = 0.0  # from an epoch's last step to the next epoch: validation, checkpoint

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        curves = [callback for callback in callbacks if isinstance(callback, TestCurve)]
        sets = ["train", *["val"] * (sum(trainer.num_val_batches) > 0), *["test"] * bool(curves)]
        self.columns, self.epochs = {}, trainer.max_epochs
        for name in sets:
            self.columns |= {f"{name}/loss": "{:.4f}".format, f"{name}/acc": "{:.2%}".format}
        self.columns |= {IMAGES_PER_SECOND: "{:,.0f}".format, "seconds": "{:.1f} s".format}
        if console.is_interactive and 7 + sum(self._width(name) + 1 for name in self.columns) > console.width:
            del self.columns[IMAGES_PER_SECOND]
        heads = {IMAGES_PER_SECOND: "images/s", "seconds": "time"}
        heads |= {f"{name}/loss": f"{name} loss" for name in sets} | {f"{name}/acc": "accuracy" for name in sets}
        self._print("epoch", [heads[name] for name in self.columns], style="bold")
        if curves and curves[0].before:
            self._print_epoch(0, curves[0].before)
        self._show_line()
        if trainer.fit_loop.restarted_mid_epoch:  # then Lightning calls no on_train_epoch_start
            self._begin_epoch(trainer)

    @rank_zero_only
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)
        self._begin_epoch(trainer)

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        if self.live is None:
            return
        batches = training_batches(trainer)
        is_last = batches.position == len(batches)
        if is_last or (step % self.refresh_every == 0 and self._is_due()):
            self.last_step = time.perf_counter()
            self._show_training(trainer, pl_module)

    @rank_zero_only
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show_batches(trainer, "validating", trainer.num_val_batches, -1)

    @rank_zero_only
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self._show_batches(trainer, "validating", trainer.num_val_batches, batch_idx)

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if TEST_LOSS in self.columns:  # TestCurve comes next, and has no batches that Lightning knows of
            self._show_batches(trainer, "testing", [1], -1)

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)
        self._remove_line()

    @rank_zero_only
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cells = ["test", "", "", ""]
        self._show_line()
        self._show_batches(trainer, "", trainer.num_test_batches, -1)

    @rank_zero_only
    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self._show_batches(trainer, "", trainer.num_test_batches, batch_idx)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_line()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove_line()

    def _begin_epoch(self, trainer: Trainer) -> None:
        self.epoch_started = self.last_step = time.perf_counter()
        batches = training_batches(trainer)
        self.first_step = batches.resumed["position"] if trainer.fit_loop.restarted_mid_epoch else 0
        self.cells = [self._epoch(trainer.current_epoch + 1), "", "", ""]
        self.done, self.left = (self.first_step, len(batches)), ""
        self._draw()

    def _finish_epoch(self, trainer: Trainer) -> None:
        """Print the epoch just done. Its metrics are complete only after the hooks of its end, so at the next start."""
        if self.epoch_started is None:
            return
        now = time.perf_counter()
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._print_epoch(trainer.current_epoch, values | {"seconds": now - self.epoch_started})
        self.steps += training_batches(trainer).position - self.first_step
        self.seconds += self.last_step - self.epoch_started
        self.seconds_after = now - self.last_step
        self.epoch_started = None

    def _show_training(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.epoch_started is not None
        batches = training_batches(trainer)
        images_before = batches.batch_size * batches.world_size * self.first_step
        seconds = self.last_step - self.epoch_started
        cells = [self.cells[0], "", "", f"{(batches.seen - images_before) / max(seconds, 1e-9):,.0f}"]
        if isinstance(pl_module, Classifier):
            loss_sum, hits, images = (value.item() for value in pl_module.train_metrics.sums().values())
            cells[1:3] = f"{loss_sum / images:.4f}", f"{hits / images:.2%}"
        self.cells, self.done = cells, (batches.position, len(batches))
        left, run_left = self._seconds_left(trainer)
        self.left = f"left {clock(left)}, run {clock(run_left)}"
        self._draw()

    def _seconds_left(self, trainer: Trainer) -> tuple[float, float]:
        """Return the seconds of training left in the epoch, and those left in the whole run with its validations."""
        assert self.epoch_started is not None and trainer.max_epochs is not None
        batches = training_batches(trainer)
        taken = self.steps + batches.position - self.first_step
        pace = (self.seconds + self.last_step - self.epoch_started) / taken
        epoch_steps = len(batches) - batches.position
        epochs_after = trainer.max_epochs - trainer.current_epoch - 1
        run_steps = epoch_steps + epochs_after * len(batches)
        if trainer.max_steps != -1:
            run_steps = min(run_steps, (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
            epoch_steps = min(epoch_steps, run_steps)
        return pace * epoch_steps, pace * run_steps + (epochs_after + 1) * self.seconds_after

    def _show_batches(self, trainer: Trainer, doing: str, counts: list[int | float], number: int) -> None:
        """Show how many batches of an evaluation are done; `number` is the last one's, -1 before the first."""
        total = int(sum(counts))
        if self.live is None or trainer.sanity_checking or not (number in (-1, total - 1) or self._is_due()):
            return
        self.done = (number + 1, total)
        if self.epoch_started is not None:
            run_left = self._seconds_left(trainer)[1]
            self.left = f"{doing}, run {clock(run_left)}"
        self._draw()

    def _show_line(self) -> None:
        """Begin to show the moving line, where there is a terminal that can."""
        if console.is_interactive and not console.quiet:
            self.live = Live(console=console, auto_refresh=False, transient=True)
            self.live.start()
            console.show_cursor(True)  # a kill would leave a hidden one hidden

    def _remove_line(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _is_due(self) -> bool:
        return time.perf_counter() - self.drawn >= 0.1

    def _draw(self) -> None:
        if self.live is not None:
            self.live.update(self._moving_line(), refresh=True)
            self.drawn = time.perf_counter()

    def _moving_line(self) -> Table:
        """Lay out the moving line below the columns of the epochs' lines; the bar stands where validation and test do.

        Two columns stay free for the ^C that a terminal shows where the cursor is.
        """
        epoch, *numbers = self.cells
        names = [TRAIN_LOSS, TRAIN_ACC, IMAGES_PER_SECOND][: 2 + (IMAGES_PER_SECOND in self.columns)]
        cells: list[tuple[RenderableType, int]] = [(epoch, max(7, len(epoch)))]
        cells += [(text.rjust(width), width) for text, width in zip(numbers, map(self._width, names), strict=False)]
        cells += [(self.left, max(20, len(self.left)))]
        room = console.width - 2 - sum(width + 1 for _, width in cells)
        evaluated = sum(self._width(name) + 1 for name in self.columns if re.match("(val|test)/", name))
        bar_width = min(evaluated - 1 if evaluated else 20, room)
        if bar_width > 0:
            completed, total = self.done
            bar = ProgressBar(total=max(total, 1), completed=completed)
            cells.insert(3 if evaluated else len(cells) - 1, (bar, bar_width))
        line = Table.grid(padding=(0, 1, 0, 0))
        for _, width in cells:
            line.add_column(width=width, no_wrap=True)
        line.add_row(*(cell for cell, _ in cells))
        return line

    def _print_epoch(self, number: int, values: dict[str, float]) -> None:
        cells = [write(values[name]) if name in values else "-" for name, write in self.columns.items()]
        self._print(self._epoch(number), cells)

    def _print(self, epoch: str, cells: list[str], style: str | None = None) -> None:
        line = [cell.rjust(self._width(name)) for cell, name in zip(cells, self.columns, strict=True)]
        console.print(" ".join([epoch.ljust(7), *line]), style=style, soft_wrap=True)

    def _epoch(self, number: int) -> str:
        return f"{number:{len(str(self.epochs))}}/{self.epochs}"

    @staticmethod
    def _width(name: str) -> int:
        """Return the columns that a metric takes in an epoch's line."""
        return {IMAGES_PER_SECOND: 9, "seconds": 7}.get(name, 10 if name.endswith("loss") else 8)


@contextmanager
def working_on(task: str) -> Iterator[None]:
    """Show in a terminal, for the duration of the block, what is worked on."""
    if console.is_interactive and not console.quiet:
        with Live(Text(f"{task} ...", style="dim"), console=console, auto_refresh=False, transient=True):
            yield
    else:
        yield


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, from an hour on with the hours: 0:04, 12:34, 1:02:34."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
