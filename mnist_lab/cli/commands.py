"""The commands: the one table from which dispatch, help, completion and suggestions follow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command of `python -m mnist_lab`; its code is `mnist_lab.cli.NAME.main`.

    Attributes:
        arguments: what follows the name, as --help shows it.
        summary: one sentence for --help.
    """

    arguments: str
    summary: str


COMMANDS = {
    "train": Command("[KEY=VALUE ...]", "train a network, then test it; without a command, this"),
    "test": Command("RUN... [KEY=VALUE]", "test runs' weights again; RUN: a folder, part of its name, or latest"),
    "reproduce": Command(
        "[PRESET ...] [--seeds N|FIRST-LAST]",
        "train presets over seeds: the tutorials' beside their figures, or the leaderboard's",
    ),
    "lr": Command("[KEY=VALUE ...]", "find a learning rate to try, by a range test on training batches"),
    "presets": Command("[cp NAME DIR]", "list the presets, what they reach and how long they take; or copy one"),
    "report": Command("RUN|SWEEP...", "write an HTML page about it, report.html in its folder"),
    "export": Command(
        "RUN... --format onnx|torch_export|html|safetensors|state_dict",
        "write the network to a file, checked on the test set",
    ),
    "robustness": Command("RUN [RUN ...]", "measure accuracy on shifted, rotated, noisy ... images"),
    "ensemble": Command(
        "RUN RUN...", "combine the networks of runs, or of a sweep's, into one that every command takes"
    ),
    "predict": Command("RUN IMAGE...", "recognise digits in your own images or a CSV of pixels"),
    "draw": Command("RUN", "draw a digit in the browser and see the prediction"),
    "ls": Command(
        "[--sort COLUMN] [--limit N] [--group seed] [--where CONDITION]",
        "list the runs, or mean ± standard deviation over seeds; COLUMN: date, test/acc, time ...",
    ),
    "tag": Command("RUN TAG... [--remove]", 'mark a run, to find it again: ls --where "tag == keep"'),
    "note": Command("RUN TEXT", "keep a note with a run"),
    "rm": Command("RUN|SWEEP... [--empty-trash]", "move runs into the trash, or delete for good what is there"),
    "restore": Command("[NAME ...]", "take runs out of the trash, or list it"),
    "archive": Command("RUN... FILE.zip", "write runs into one file, with a checksum of each of theirs"),
    "unarchive": Command("FILE.zip", "verify such a file, and unpack its runs"),
    "status": Command("[SWEEP] [--watch]", "show how the jobs of a sweep stand: states, machines, logs, what is left"),
    "compare": Command(
        "RUN RUN...",
        "show settings and metrics of runs, or of a sweep's, side by side, and test whether two differ; --out FILE "
        "plots their curves",
    ),
}
