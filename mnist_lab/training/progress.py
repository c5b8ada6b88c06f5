"""The terminal output of a run: its layers before training, a line for each epoch, and its results."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_summary.model_summary import LayerSummary
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from mnist_lab.config.metric_names import IMAGES_PER_SECOND
from mnist_lab.console import console
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.dummy_batch import eval_mode
from mnist_lab.runs.listing import format_cell
from mnist_lab.tables import table_lines
from mnist_lab.training.callbacks import TestCurve
from mnist_lab.training.multistep import StepCallback, find_callbacks, training_batches

LOSS, ACCURACY = "{:10.4f}", "{:8.2%}"
INTERVAL = 0.2  # seconds, the least time between two updates of the bar


class LayerTable(Callback):
    """Prints each layer with its output's size and its parameters before training starts."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        side = int(getattr(pl_module, "image_size", 28))
        print_status(*layer_table(pl_module, (1, 1, side, side)), "")


class EpochLines(StepCallback):
    """Prints a line for each epoch that is done; in a terminal, a bar below shows the progress of training or the test.

    The bar has the epoch's mean loss and accuracy so far, and the time left. It is drawn in the main thread, at most
    five times a second, and only then is the loss read: reading it waits for a GPU.
    """

    def __init__(self) -> None:
        self.columns: dict[str, tuple[str, str]] = {}  # heading and format of each metric in an epoch's line
        self.epochs = 0
        self.epoch_started: float | None = None
        self.progress: Progress | None = None
        self.drawn = 0.0

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        curves = find_callbacks(trainer, TestCurve)
        self.epochs, self.columns = trainer.max_epochs or 0, {}
        names = ["train"]
        if sum(trainer.num_val_batches) > 0:
            names.append("val")
        if curves:
            names.append("test")
        for name in names:
            self.columns |= {f"{name}/loss": (f"{name} loss", LOSS), f"{name}/acc": ("accuracy", ACCURACY)}
            if name != "train" and isinstance(pl_module, Classifier) and pl_module.val_metrics.by_class:
                self.columns |= {f"{name}/balanced_acc": ("balanced", ACCURACY)}
        self.columns |= {IMAGES_PER_SECOND: ("images/s", "{:9,.0f}"), "seconds": ("time", "{:5.1f} s")}
        if console.is_interactive and len(self._line("", {})) > console.width:
            del self.columns[IMAGES_PER_SECOND]
        console.print(self._line("epoch", {}, headings=True), style="bold", soft_wrap=True)
        if curves and curves[0].before:
            console.print(self._line(self._epoch(0), curves[0].before), soft_wrap=True)
        batches = self.epochs * len(training_batches(trainer))
        if trainer.max_steps > 0:
            batches = min(batches, trainer.max_steps * trainer.accumulate_grad_batches)
        self._start_bar(batches)
        if trainer.fit_loop.restarted_mid_epoch:  # Lightning does not call on_train_epoch_start then.
            self.epoch_started = time.perf_counter()

    @rank_zero_only
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)
        self.epoch_started = time.perf_counter()

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        if self._is_due():
            assert isinstance(pl_module, Classifier)
            loss_sum, hits, images = (value.item() for value in pl_module.train_metrics.sums().values())
            means = f"{LOSS.format(loss_sum / images)} {ACCURACY.format(hits / images)}"
            batches = training_batches(trainer)
            done = trainer.current_epoch * len(batches) + batches.position
            self._draw(f"{self._epoch(trainer.current_epoch + 1)} {means}", done)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(f"{self._epoch(trainer.current_epoch + 1)} validating")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)

    @rank_zero_only
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_bar(sum(trainer.num_test_batches))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        if self._is_due():
            self._draw("test", batch_idx + 1)

    def teardown(self, *args: Any, **settings: Any) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    on_exception = teardown

    def _finish_epoch(self, trainer: Trainer) -> None:
        """Print the line of the last epoch, at the start of the next one: its metrics are complete only by then."""
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

    def _start_bar(self, total: float) -> None:
        """Show the bar if the terminal can; two columns stay free for the ^C that it may echo."""
        if console.is_interactive and not console.quiet:
            bar = BarColumn(max(4, min(40, console.width - 38)))
            columns = (TextColumn("{task.description:27}"), bar, TimeRemainingColumn(compact=True))
            self.progress = Progress(*columns, console=console, auto_refresh=False, transient=True)
            self.progress.add_task("", total=total)
            self.progress.start()
            console.show_cursor(True)  # If the process is killed, a hidden cursor would stay hidden.

    def _is_due(self) -> bool:
        return self.progress is not None and time.perf_counter() - self.drawn >= INTERVAL

    def _draw(self, text: str, done: int | None = None) -> None:
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], description=text, completed=done, refresh=True)
            self.drawn = time.perf_counter()


def layer_table(model: nn.Module, input_size: tuple[int, ...]) -> list[str]:
    """Return the lines of a table of a network's layers: name, kind, output for an input, (1, C, H, W), parameters."""
    modules = {name: module for name, module in model.named_modules() if name and not list(module.children())}
    layers = {name: LayerSummary(module) for name, module in modules.items()}
    # In train mode a forward pass would draw from the random state that dropout starts from.
    with torch.no_grad(), eval_mode(model):
        model(next(model.parameters()).new_zeros(input_size))
    total = sum(parameter.numel() for parameter in model.parameters())
    rows = []
    for name, layer in layers.items():
        layer.detach_hook()
        size, count = "×".join(map(str, layer.out_size[1:])), layer.num_parameters
        rows.append([name, layer.layer_type, size or "-", f"{count:,}" if count else "-"])
    title = f"{type(model).__name__}, {'×'.join(map(str, input_size[1:]))} in"
    left = ("layer", "kind", "output")
    return [title, *table_lines((*left, "parameters"), [*rows, ["", "", "total", f"{total:,}"]], left)]


def results_table(metrics: Mapping[str, float]) -> list[str]:
    """Return the lines of a table of loss, accuracy and, if there is one, balanced accuracy, for each measured set."""
    heads = {"loss": "loss", "acc": "accuracy", "balanced_acc": "balanced accuracy"}
    kinds = [kind for kind in heads if any(name.endswith(f"/{kind}") for name in metrics)]
    rows = []
    for name, words in (("train", "training, while learning"), ("val", "validation"), ("test", "test")):
        if f"{name}/loss" in metrics:
            rows.append([words, *(format_cell(f"{name}/{kind}", metrics.get(f"{name}/{kind}")) for kind in kinds)])
    return table_lines(["set", *(heads[kind] for kind in kinds)], rows, left=("set",))


@rank_zero_only
def print_status(*lines: str) -> None:
    """Print lines about the run, unless a sweep shows the states of its jobs."""
    console.print(*lines, sep="\n", soft_wrap=True)
