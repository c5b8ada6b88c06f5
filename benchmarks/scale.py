"""How time and memory grow with the data and the batch size.

    python -m benchmarks.scale [NETWORK] [--copies 1 2 4 8 16] [--batch-sizes 16 64 256 1024 4096]

Trains a network (default: mlp) for one epoch on 1 to 16 copies of the training set, and on one copy at several batch
sizes, each in a process of its own. Prints seconds of the epoch, images a second, and the most memory of the process.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from benchmarks.timing import Clock, output_of, peak_gigabytes, print_head, print_row, train_timed
from mnist_lab.data.mnist_files import Arrays, Source


@dataclass(frozen=True, kw_only=True)
class Copies(Source):
    """A data set with several copies of its training images."""

    copies: int = 1

    def load(self, *args: object, **settings: object) -> Arrays:
        arrays = super().load(*args, **settings)  # type: ignore[arg-type]
        images, labels = np.tile(arrays.train_images, (self.copies, 1, 1)), np.tile(arrays.train_labels, self.copies)
        return arrays._replace(train_images=images, train_labels=labels)


def measure(network: str, copies: int, batch_size: int) -> str:
    """Train in this process; return seconds of an epoch, images a second and gigabytes of memory."""
    source = ("data.source._target_=benchmarks.scale.Copies", f"+data.source.copies={copies}")
    job = (f"model={network}", "trainer.max_epochs=1", "data.val_size=0", f"data.batch_size={batch_size}")
    train_timed(*job, *source)
    seconds = Clock.times[-1] - Clock.times[0]
    return f"{seconds:.1f} | {60_000 * copies / seconds:,.0f} | {peak_gigabytes():.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="mlp")
    parser.add_argument("--copies", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[16, 64, 256, 1024, 4096])
    parser.add_argument("--only", type=int, nargs=2, metavar=("COPIES", "BATCH"), help="measure one run, here")
    options = parser.parse_args()
    if options.only:
        print(measure(options.network, *options.only))
        return
    print_head(f"{options.network}, 60,000 images ×", "batch size", "seconds an epoch", "images/s", "GB")
    runs = [*((copies, 64) for copies in options.copies), *((1, size) for size in options.batch_sizes)]
    for copies, size in dict.fromkeys(runs):
        only = ("benchmarks.scale", options.network, "--only", str(copies), str(size))
        print_row(copies, size, output_of(*only))


if __name__ == "__main__":
    main()
