"""The terminal output of a run: its layers before training, a line for each epoch, and its results."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Column, Table
from torch import Tensor, nn

from mnist_lab.config.metric_names import IMAGES_PER_SECOND
from mnist_lab.console import PlainConsole
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.trial import eval_mode
from mnist_lab.training.callbacks import TestCurve
from mnist_lab.training.multistep import StepCallback, all_callbacks, training_batches

console = PlainConsole()
LOSS, ACCURACY = "{:10.4f}", "{:8.2%}"
EPOCH, RUN = TaskID(0), TaskID(1)  # what has a bar
INTERVAL = 0.2  # seconds between two updates of the bars, at least


class LayerTable(Callback):
    """Prints each layer with its output's size and its parameters before training starts."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        side = int(getattr(pl_module, "image_size", 28))
        console.print(layer_table(pl_module, (1, 1, side, side)))


class EpochLines(StepCallback):
    """Prints a line for each epoch that is done; in a terminal, bars below show the progress of the epoch and the run.

    Beside them stand the epoch's mean loss and accuracy so far, images a second, and the time left. They are drawn in
    the main thread, five times a second, and only then the loss is read off the device: reading it waits for a GPU.
    """

    def __init__(self) -> None:
        self.columns: dict[str, tuple[str, str]] = {}  # heading and format of each metric in an epoch's line
        self.epochs = 0  # of the whole run
        self.epoch_started: float | None = None
        self.progress: Progress | None = None
        self.drawn = 0.0

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        curves = [callback for callback in all_callbacks(trainer) if isinstance(callback, TestCurve)]
        self.epochs, self.columns = trainer.max_epochs or 0, {}
        for name in ("train", *["val"] * (sum(trainer.num_val_batches) > 0), *["test"] * bool(curves)):
            self.columns |= {f"{name}/loss": (f"{name} loss", LOSS), f"{name}/acc": ("accuracy", ACCURACY)}
        self.columns |= {IMAGES_PER_SECOND: ("images/s", "{:9,.0f}"), "seconds": ("time", "{:5.1f} s")}
        if console.is_interactive and len(self._line("", {})) > console.width:
            del self.columns[IMAGES_PER_SECOND]
        console.print(self._line("epoch", {}, headings=True), style="bold", soft_wrap=True)
        if curves and curves[0].before:
            console.print(self._line(self._epoch(0), curves[0].before), soft_wrap=True)
        self._start_bars()
        if trainer.fit_loop.restarted_mid_epoch:  # Lightning does not call on_train_epoch_start then.
            self._begin_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)
        self._begin_epoch(trainer)

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        if self.progress is None or time.perf_counter() - self.drawn < INTERVAL:
            return
        text, batches = self._epoch(trainer.current_epoch + 1), training_batches(trainer)
        if isinstance(pl_module, Classifier):
            loss_sum, hits, images = (value.item() for value in pl_module.train_metrics.sums().values())
            text += f" {LOSS.format(loss_sum / images)} {ACCURACY.format(hits / images)}"
        self.progress.update(RUN, completed=trainer.current_epoch * len(batches) + batches.position)
        speed = (self.progress.tasks[EPOCH].speed or 0) * batches.batch_size * batches.world_size
        self._draw(text, batches.position, len(batches), speed)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        total = sum(trainer.num_test_batches if trainer.testing else trainer.num_val_batches)
        if self.progress is not None and (batch_idx == 0 or time.perf_counter() - self.drawn >= INTERVAL):
            text = "test" if trainer.testing else f"{self._epoch(trainer.current_epoch + 1)} validating"
            self._draw(text, batch_idx + 1, int(total))

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)

    @rank_zero_only
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_bars()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_bars()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove_bars()

    def _begin_epoch(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self.epoch_started = time.perf_counter()
        if self.progress is not None:
            batches, before = training_batches(trainer), trainer.current_epoch * len(training_batches(trainer))
            run_steps = self.epochs * len(batches)
            if trainer.max_steps != -1:
                run_steps = min(run_steps, trainer.max_steps * trainer.accumulate_grad_batches)
            done = batches.resumed["position"] if trainer.fit_loop.restarted_mid_epoch else 0
            self.progress.update(RUN, completed=before + done, total=run_steps, visible=True)
            self.progress.reset(EPOCH)
            self._draw(self._epoch(trainer.current_epoch + 1), done, len(batches))

    def _finish_epoch(self, trainer: Trainer) -> None:
        """Print the epoch just done. Its metrics are complete only after the hooks of its end, so at the next start."""
        if self.epoch_started is not None:
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            values["seconds"] = time.perf_counter() - self.epoch_started
            console.print(self._line(self._epoch(trainer.current_epoch), values), soft_wrap=True)
            self.epoch_started = None

    def _epoch(self, number: int) -> str:
        return f"{number:{len(str(self.epochs))}}/{self.epochs}".ljust(7)

    def _line(self, first: str, values: Mapping[str, float], *, headings: bool = False) -> str:
        cells = [first.ljust(7)]
        for name, (heading, form) in self.columns.items():
            missing = heading if headings else "-"
            cells.append(form.format(values[name]) if name in values else missing.rjust(len(form.format(0))))
        return " ".join(cells)

    def _start_bars(self) -> None:
        """Show the bars where the terminal can; two columns stay free for the ^C that it may echo."""
        if console.is_interactive and not console.quiet:
            speed = [TextColumn("{task.fields[speed]:>9}")] * (IMAGES_PER_SECOND in self.columns)
            bar = BarColumn(max(4, min(40, console.width - 38 - 10 * len(speed))))
            columns = (TextColumn("{task.description:27}"), bar, *speed, TimeRemainingColumn(compact=True))
            self.progress = Progress(*columns, console=console, auto_refresh=False, transient=True)
            self.progress.add_task("test", speed="")
            self.progress.add_task("run", speed="", visible=False)
            self.progress.start()
            console.show_cursor(True)  # A kill would leave a hidden one hidden.

    def _draw(self, text: str, done: int, total: int, speed: float = 0) -> None:
        assert self.progress is not None
        images = f"{speed:,.0f}" if speed else ""
        self.progress.update(EPOCH, description=text, completed=done, total=total, speed=images, refresh=True)
        self.drawn = time.perf_counter()

    def _remove_bars(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def layer_table(model: nn.Module, input_size: tuple[int, ...]) -> Table:
    """Return a table of a network's layers: name, kind, output size for one input, (1, C, H, W), and parameters."""
    layers = {name: layer for name, layer in model.named_modules() if name and not list(layer.children())}
    sizes: dict[nn.Module, str] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, _, out: sizes.update({layer: "×".join(map(str, out.shape[1:]))}))
        for layer in layers.values()
    ]
    # eval: a forward pass in train mode would draw from the random state that dropout starts from
    with torch.no_grad(), eval_mode(model):
        model(next(model.parameters()).new_zeros(input_size))
    for hook in hooks:
        hook.remove()
    total = sum(parameter.numel() for parameter in model.parameters())
    title = f"{type(model).__name__}, {'×'.join(map(str, input_size[1:]))} in"
    totals = (Column("output", footer="total"), Column("parameters", justify="right", footer=f"{total:,}"))
    table = Table("layer", "kind", *totals, title=title, show_footer=True)
    for name, layer in layers.items():
        count = sum(parameter.numel() for parameter in layer.parameters())
        table.add_row(name, type(layer).__name__, sizes.get(layer, "-"), f"{count:,}" if count else "-")
    return table


def results_table(title: str, metrics: Mapping[str, float]) -> Table:
    """Return a table of loss and accuracy, a line for each set that was measured."""
    numbers = (Column(name, justify="right") for name in ("loss", "accuracy"))
    table = Table("set", *numbers, title=title, min_width=len(title))
    for name, words in (("train", "training, while learning"), ("val", "validation"), ("test", "test")):
        if f"{name}/loss" in metrics:
            table.add_row(words, f"{metrics[f'{name}/loss']:.4f}", f"{metrics[f'{name}/acc']:.2%}")
    return table


def working_on(task: str) -> Status:
    """Show in a terminal, while the block runs, what is worked on."""
    return console.status(console.render_str(f"{task} ...", style="dim"), spinner="line")
