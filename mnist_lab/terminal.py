"""What a run shows in the terminal: its layers before training, a bar and a line for each epoch."""

from __future__ import annotations

import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from torch import Tensor, nn
from torchmetrics import Metric

from mnist_lab.callbacks import TestCurve
from mnist_lab.steps import StepCallback, training_batches

console = Console(highlight=False)


class LayerTable(Callback):
    """Prints each layer with its output's size and its parameters before training starts."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        side = int(getattr(pl_module, "image_size", 28))
        console.print(layer_table(pl_module, (1, 1, side, side)))


def layer_table(model: nn.Module, input_size: tuple[int, ...]) -> Table:
    """A table of a network's layers: name, kind, size of the output for one input (1, C, H, W), parameters."""
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


class EpochLines(StepCallback):
    """A bar for the epoch under way, and one line for each that is done. Where no terminal is, the lines alone."""

    def __init__(self, refresh_every: int = 10) -> None:
        self.refresh_every = refresh_every
        self.bar: Progress | None = None
        self.epoch_started: float | None = None
        self.columns: dict[str, str] = {}  # how each metric that is shown is written

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        curves = [callback for callback in callbacks if isinstance(callback, TestCurve)]
        sets = ["train", *["val"] * (sum(trainer.num_val_batches) > 0), *["test"] * bool(curves)]
        for name in sets:
            self.columns |= {f"{name}/loss": "{:.4f}", f"{name}/acc": "{:.2%}"}
        self.columns |= {"images_per_second": "{:,.0f}", "seconds": "{:.1f} s"}
        heads = [head for name in sets for head in (f"{name} loss", "accuracy")]
        self._print(["epoch", *heads, "images/s", "time"], style="bold")
        if curves and curves[0].before:
            self._print_epoch(f"0/{trainer.max_epochs}", curves[0].before)
        self.epoch_started = time.perf_counter() if trainer.fit_loop.restarted_mid_epoch else None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=console, transient=True)
            self.bar.start()

    @rank_zero_only
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)
        self.epoch_started = time.perf_counter()
        if self.bar is not None:
            done = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.bar.add_task(f"{done:>7}", total=len(training_batches(trainer)))

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        if self.bar is not None and step % self.refresh_every == 0:
            self.bar.update(self.bar.task_ids[-1], completed=training_batches(trainer).position)

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_bar()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove_bar()

    def _remove_bar(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _finish_epoch(self, trainer: Trainer) -> None:
        """Print the epoch just done. Its metrics are complete only after the hooks of its end, so at the next start."""
        if self.epoch_started is None:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        values["seconds"] = time.perf_counter() - self.epoch_started
        self.epoch_started = None
        if self.bar is not None:
            for task in self.bar.task_ids:
                self.bar.remove_task(task)
        self._print_epoch(f"{trainer.current_epoch}/{trainer.max_epochs}", values)

    def _print_epoch(self, done: str, values: dict[str, float]) -> None:
        written = self.columns.items()
        self._print([done, *(way.format(values[name]) if name in values else "-" for name, way in written)])

    def _print(self, cells: list[str], style: str | None = None) -> None:
        widths = [7, *(11, 8) * (len(cells) // 2 - 1), 10, 7]  # loss and accuracy of each set in between
        line = " ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        console.print(line, style=style, soft_wrap=True)
