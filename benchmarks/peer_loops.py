"""The five networks in other frameworks, each loop as fast as its framework's own documentation makes it.

    python -m benchmarks.peer_loops LOOP NETWORK DATA.npz

benchmarks.peers runs this in another environment, so it imports nothing of mnist_lab, and only the framework that is
timed. DATA.npz has a preset's images, as mnist_lab trains on them, and its settings. The last line of output has the
seconds of the second epoch and the accuracy on the test images.
"""

import argparse
import importlib.metadata
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("fastai", "keras", "jax", "flax")
EPOCHS = 2  # JAX compiles in the first, which does not count.

Layer = tuple[str, int, int]  # Kind, outputs and size of the kernel; 0 for none.
RELU, POOL, FLATTEN = ("relu", 0, 0), ("pool", 0, 2), ("flatten", 0, 0)
DROPOUT, CHANNEL_DROPOUT = ("dropout", 0, 0), ("channel_dropout", 0, 0)


def conv(channels: int, kernel: int) -> Layer:
    return ("conv", channels, kernel)


def dense(features: int) -> Layer:
    return ("dense", features, 0)


# The losses of these frameworks take logits, so no network ends with a softmax.
LAYERS: dict[str, list[Layer]] = {
    "simple_cnn": [conv(20, 5), RELU, POOL, conv(50, 5), RELU, POOL, FLATTEN, dense(500), RELU, dense(10)],
    "compact_cnn": [
        *(conv(32, 5), POOL, RELU, conv(16, 3), POOL, RELU, FLATTEN),
        *(dense(100), RELU, DROPOUT, dense(10)),
    ],
    "lenet": [
        *(conv(6, 5), RELU, POOL, conv(16, 5), RELU, POOL, FLATTEN),
        *(dense(120), RELU, dense(84), RELU, dense(10)),
    ],
    "dropout_cnn": [
        *(conv(10, 5), POOL, RELU, conv(20, 5), CHANNEL_DROPOUT, POOL, RELU, FLATTEN),
        *(dense(50), RELU, DROPOUT, dense(10)),
    ],
    "mlp": [FLATTEN, *(layer for width in (128, 128, 64, 64) for layer in (dense(width), RELU)), dense(10)],
}


def with_inputs(network: str, size: int) -> list[tuple[Layer, int]]:
    """Return each layer with its number of input channels or features, for images of size x size."""
    channels, layers = 1, []
    for layer in LAYERS[network]:
        kind, outputs, kernel = layer
        layers.append((layer, channels))
        if kind == "conv":
            size, channels = size - kernel + 1, outputs
        elif kind == "pool":
            size //= kernel
        elif kind == "flatten":
            channels *= size * size
        elif kind == "dense":
            channels = outputs
    return layers


def train_lightning(network: str, data: Any) -> tuple[float, float]:
    """Train with Lightning's Trainer, without progress bar, logger and checkpoints."""
    import lightning.pytorch as pl
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    from benchmarks.tutorials import NETWORKS

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = NETWORKS[network]()

        def training_step(self, batch: Any, _: int) -> Any:
            images, labels = batch
            return loss(self.network(images), labels)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), float(data["lr"]), float(data["momentum"]), fused=True)

    class Clock(pl.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            times.append(time.perf_counter())

        def on_train_epoch_end(self, *_: Any) -> None:
            times.append(time.perf_counter())

    times: list[float] = []
    loss = getattr(torch.nn.functional, str(data["loss"]))
    images = TensorDataset(torch.from_numpy(data["images"]), torch.from_numpy(data["labels"]))
    batches = BatchSampler(RandomSampler(images), int(data["batch_size"]), drop_last=False)
    torch.manual_seed(0)
    model = Module()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        callbacks=Clock(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(images, sampler=batches, batch_size=None))
    return times[-1] - times[-2], _accuracy(model.network, data)


def train_fastai(network: str, data: Any) -> tuple[float, float]:
    """Train with fastai's Learner and torch's optimizer, without a progress bar."""
    import torch
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Callback, CancelValidException, Learner
    from fastai.optimizer import OptimWrapper
    from fastai.torch_core import set_seed

    from benchmarks.tutorials import NETWORKS

    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])
    times: list[float] = []

    class Loader(DataLoader):
        def create_item(self, index: int) -> int:
            return index

        def create_batch(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            return images[indices], labels[indices]

    class Clock(Callback):
        def before_train(self) -> None:
            times.append(time.perf_counter())

        def after_train(self) -> None:
            times.append(time.perf_counter())

        def before_validate(self) -> None:
            raise CancelValidException

    set_seed(0)
    loader = Loader(range(len(images)), bs=int(data["batch_size"]), shuffle=True)
    optimizer = partial(OptimWrapper, opt=torch.optim.SGD, momentum=float(data["momentum"]), fused=True)
    loss = getattr(torch.nn.functional, str(data["loss"]))
    model = NETWORKS[network]()
    learner = Learner(DataLoaders(loader, loader), model, loss_func=loss, opt_func=optimizer, cbs=Clock())
    with learner.no_logging():
        learner.fit(EPOCHS, lr=float(data["lr"]))
    return times[-1] - times[-2], _accuracy(model, data)


def _accuracy(model: Any, data: Any) -> float:
    import torch

    with torch.inference_mode():
        scores = model.eval()(torch.from_numpy(data["test_images"]))
    return float((scores.argmax(1).numpy() == data["test_labels"]).mean())


def train_keras(network: str, data: Any, steps_per_execution: int) -> tuple[float, float]:
    """Train with Keras on JAX, by compile and fit on arrays, channels last, without a progress bar."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    def build(layer: Layer) -> Any:
        kind, outputs, kernel = layer
        if kind == "conv":
            return keras.layers.Conv2D(outputs, kernel, kernel_initializer=weights)
        if kind == "dense":
            return keras.layers.Dense(outputs, kernel_initializer=weights)
        makers = {
            "relu": keras.layers.ReLU,
            "pool": keras.layers.MaxPooling2D,
            "flatten": keras.layers.Flatten,
            "dropout": partial(keras.layers.Dropout, 0.5),
            "channel_dropout": partial(keras.layers.SpatialDropout2D, 0.5),
        }
        return makers[kind]()

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            times.append(time.perf_counter())

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            float(logs["loss"])  # It waits for the last step.
            times.append(time.perf_counter())

    keras.utils.set_random_seed(0)
    times: list[float] = []
    weights = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # Torch draws its weights like this.
    images, test_images = _channels_last(data["images"]), _channels_last(data["test_images"])
    layers = [build(layer) for layer in LAYERS[network]]
    model = keras.Sequential([keras.Input(images.shape[1:]), *layers])
    model.compile(
        optimizer=keras.optimizers.SGD(float(data["lr"]), float(data["momentum"])),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    batch_size = int(data["batch_size"])
    model.fit(images, data["labels"], batch_size=batch_size, epochs=EPOCHS, verbose=0, callbacks=[Clock()])
    accuracy = (model.predict(test_images, batch_size=1000, verbose=0).argmax(1) == data["test_labels"]).mean()
    return times[-1] - times[-2], float(accuracy)


def train_flax(network: str, data: Any) -> tuple[float, float]:
    """Train with Flax NNX: its tutorial's step and metrics, in the functional loop of its guide to performance."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    weights = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # Torch draws its weights like this.
    rngs = nnx.Rngs(0)

    def build(layer: Layer, inputs: int) -> Any:
        kind, outputs, kernel = layer
        if kind == "conv":
            size = (kernel, kernel)
            return nnx.Conv(inputs, outputs, size, padding="VALID", kernel_init=weights, rngs=rngs)
        if kind == "dense":
            return nnx.Linear(inputs, outputs, kernel_init=weights, rngs=rngs)
        if kind == "dropout":
            return nnx.Dropout(0.5, rngs=rngs)
        if kind == "channel_dropout":
            return nnx.Dropout(0.5, broadcast_dims=(1, 2), rngs=rngs)
        if kind == "pool":
            return partial(nnx.max_pool, window_shape=(kernel, kernel), strides=(kernel, kernel))
        return nnx.relu if kind == "relu" else lambda x: x.reshape(len(x), -1)

    images, test_images = _channels_last(data["images"]), _channels_last(data["test_images"])
    layers = [build(layer, inputs) for layer, inputs in with_inputs(network, images.shape[1])]
    model = nnx.Sequential(*layers)
    optimizer = nnx.Optimizer(model, optax.sgd(float(data["lr"]), float(data["momentum"])), wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))

    model.train()
    graph, state = nnx.split((model, optimizer, metrics))

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, images: Any, labels: Any) -> Any:
        model, optimizer, metrics = nnx.merge(graph, state)

        def loss_of(model: Any) -> tuple[Any, Any]:
            logits = model(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

        (loss, logits), gradients = nnx.value_and_grad(loss_of, has_aux=True)(model)
        metrics.update(loss=loss, logits=logits, labels=labels)
        optimizer.update(model, gradients)
        return nnx.state((model, optimizer, metrics))

    labels, batch_size = data["labels"].astype(np.int32), int(data["batch_size"])
    generator = np.random.default_rng(0)
    for _ in range(EPOCHS):
        started = time.perf_counter()
        order = generator.permutation(len(images))
        for first in range(0, len(images), batch_size):
            chosen = order[first : first + batch_size]
            state = step(state, images[chosen], labels[chosen])
        nnx.update((model, optimizer, metrics), state)
        metrics.compute()
        metrics.reset()
        state = jax.block_until_ready(nnx.state((model, optimizer, metrics)))
        seconds = time.perf_counter() - started
    model.eval()
    right = jnp.argmax(model(jnp.asarray(test_images)), 1) == data["test_labels"]
    return seconds, float(right.mean())


def _channels_last(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


LOOPS: dict[str, Callable[[str, Any], tuple[float, float]]] = {
    "lightning": train_lightning,
    "fastai": train_fastai,
    "keras": partial(train_keras, steps_per_execution=1),
    "keras_50": partial(train_keras, steps_per_execution=50),
    "flax": train_flax,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=[*LOOPS, "versions"])
    parser.add_argument("network", nargs="?", choices=LAYERS)
    parser.add_argument("data", nargs="?", type=Path)
    options = parser.parse_args()
    if options.loop == "versions":
        packages = (*PACKAGES, "torch")
        print(", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages))
        return
    with np.load(options.data) as file:
        data = dict(file)
    print(*LOOPS[options.loop](options.network, data))


if __name__ == "__main__":
    main()
