"""Validate a configuration and report all problems together, before data or weights are touched."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, get_type_hints

import torch
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from mnist_lab.config.distributed import world_size_problems
from mnist_lab.config.keys import FIXED_ON_RESUME, OPTIONAL, OWN_ARGUMENTS, READ_FROM_DATA
from mnist_lab.config.metric_names import EPOCH_METRICS, METRIC_NAMES, VAL_ACC, VAL_LOSS, direction
from mnist_lab.config.overrides import nearest_key
from mnist_lab.config.settings import flatten, is_list_of_nodes, require_environment
from mnist_lab.config.targets import find_class
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_value, shorten

GROUPS = (
    "model",
    "data",
    "augmentation",
    "test_augmentation",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "dashboard",
)
OF_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")  # hydra.utils.instantiate reads these.
_POSITIVE = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_FRACTION = Annotated[float, Field(ge=0, lt=1)]
_COUNT = Annotated[int, Field(ge=1)]
_SHARE = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None
LIMITS: dict[str, Any] = {  # types of keys without a signature, and ranges that torch and Lightning do not check
    "seed": Annotated[int, Field(ge=0, lt=2**32)],
    "resume": str | None,
    "init_from": str | None,
    "label_smoothing": _FRACTION,
    "steps_per_execution": _COUNT,
    "threads": _COUNT | None,
    "figures": bool,
    "sweep": str | int | float | None,  # a name; Hydra takes 1 and nan for numbers
    "retries": Annotated[int, Field(ge=0)],
    "fail_fast": bool,
    "detach": bool,
    "tutorial": dict[str, Any] | None,
    "tutorial.explained_by": str | None,
    "tutorial.disagreements": list[str],
    "runs_dir": str,
    "name": str,
    "folder": str,
    "overrides": list[str],
    "config_dir": str | None,
    "config_name": str,
    "optimizer.lr": _POSITIVE,
    "optimizer.momentum": _FRACTION,
    "optimizer.weight_decay": Annotated[float, Field(ge=0, allow_inf_nan=False)],
    "optimizer.betas": tuple[_FRACTION, _FRACTION],
    "scheduler.max_lr": _POSITIVE,
    "scheduler.gamma": _POSITIVE,
    "scheduler.step_size": _COUNT,
    "scheduler.T_max": Annotated[int, Field(ge=0)],
    "trainer.max_epochs": Annotated[int, Field(ge=0)],
    "trainer.max_steps": Annotated[int, Field(ge=-1)],
    "trainer.log_every_n_steps": _COUNT,
    "trainer.limit_train_batches": _SHARE,
    "trainer.limit_val_batches": _SHARE,
    "trainer.limit_test_batches": _SHARE,
    "trainer.accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
}


def validate(cfg: DictConfig, resumed: DictConfig | None = None) -> list[str]:
    """Raise UsageError with every problem of a job's configuration; types and ranges follow from the signatures.

    With the configuration of the run to resume, settings of it that this version does not know are removed from both,
    and their keys returned.
    """
    require_environment(cfg)
    ignored: list[str] = []
    if resumed is not None:
        if not resumed.get("optimizer"):
            raise UsageError(f"resume={cfg.resume}: was made of trained networks, and cannot be trained itself")
        ignored = drop_unknown_settings(resumed)
        _drop(cfg, ignored)
    problems = [*_shape_problems(cfg)]
    if not problems:  # the rest relies on the shape
        kinds = (_signature_problems, _machine_problems, _clipping_problems, _reload_problems, _monitor_problems)
        problems = [problem for kind in kinds for problem in kind(cfg)]
        problems += _resume_problems(cfg, resumed) if resumed else []
    if problems:
        start = f"{len(problems)} problems in the configuration:\n  " if len(problems) > 1 else ""
        raise UsageError(start + "\n  ".join(problems))
    return ignored


def validate_parts(cfg: DictConfig) -> None:
    """Raise UsageError if a run's network and data cannot be made from its configuration, on any machine.

    Settings that this version does not know are removed.
    """
    for name in ("model", "data", "trainer"):
        if not isinstance(cfg.get(name), DictConfig):
            raise UsageError(f"{name}: is missing or not a group of settings")
    for name in ("seed", "label_smoothing", "trainer.max_epochs", "trainer.limit_train_batches"):
        if OmegaConf.select(cfg, name, default=MISSING) is MISSING:
            raise UsageError(f"{name}: is missing")
    problems = [
        problem for name in ("seed", "label_smoothing") for problem in _type_problems(name, cfg[name], LIMITS[name])
    ]
    parts = ("model", "data", "augmentation", "test_augmentation", "optimizer", "scheduler")
    drop_unknown_settings(cfg, parts)
    for name in parts:
        if isinstance(cfg.get(name), DictConfig):
            require_environment(cfg[name])
            problems += _signature_problems(cfg[name], f"{name}.")
    if problems:
        raise UsageError("; ".join(problems))


def drop_unknown_settings(cfg: DictConfig, groups: Sequence[str] = GROUPS) -> list[str]:
    """Remove the settings of a loaded run that this version does not know, and return their keys.

    They are those at its top, and in some groups the arguments that a class does not take. A run of another version may
    have them.
    """
    unknown = [str(name) for name in cfg if name not in (*GROUPS, *LIMITS)]
    for group in groups:
        if isinstance(cfg.get(group), DictConfig):
            unknown += _unknown_arguments(cfg[group], group)
    _drop(cfg, unknown)
    return unknown


def _unknown_arguments(node: DictConfig, path: str) -> Iterator[str]:
    """Yield the keys of arguments, in a node and below it, that the node's class does not take."""
    parameters: dict[str, Any] | None = None
    if "_target_" in node:
        try:
            parameters = parameter_types(find_class(node._target_, path))
        except UsageError:  # validation reports it
            return
    for name, value in [(str(name), value) for name, value in node.items_ex(resolve=False)]:
        key = f"{path}.{name}"
        if parameters is not None and not _takes(parameters, key):
            yield key
        elif isinstance(value, DictConfig):
            yield from _unknown_arguments(value, key)
        elif is_list_of_nodes(value):
            for i, each in enumerate(value):
                yield from _unknown_arguments(each, f"{key}.{i}")


def _takes(parameters: Mapping[str, Any], key: str) -> bool:
    """Return whether a class with these parameters takes a setting, or Hydra does."""
    name = key.rpartition(".")[2]
    return key not in OWN_ARGUMENTS and (name in parameters or "**" in parameters or name in OF_HYDRA)


def _drop(cfg: DictConfig, keys: Iterable[str]) -> None:
    for key in keys:
        group, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, group) if group else cfg
        if isinstance(node, DictConfig):
            with open_dict(node):
                node.pop(name, None)


def _format(value: Any) -> str:
    """Format a value for a message: as on the command line, in one line, shortened."""
    return shorten(format_value(value))


def _shape_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield problems of missing settings, unknown top-level keys, and values in place of groups."""
    known = [*GROUPS, *(key for key in LIMITS if "." not in key)]
    for name in map(str, cfg):
        if name not in known:
            near = nearest_key(name, [*known, *(key for key in flatten(cfg) if key.split(".")[0] in known)])
            hint = f"did you mean {near}?" if near else f"choose from {', '.join(known)}"
            yield f"{name}={_format(cfg[name])}: unknown setting; {hint}"
    for name in known:
        # Presets alone have a tutorial, and a run may be older than the dashboard and detach.
        if name not in cfg and name not in ("dashboard", "tutorial", "detach"):
            yield f"{name}: required; it can be changed but not removed"
    for name in GROUPS:
        node = cfg.get(name, {})
        if not isinstance(node, DictConfig):
            yield f"{name}={_format(node)}: a group of settings, not a value; choose it when the run is started"
        elif name in ("callbacks", "logger"):
            for part in map(str, node):
                value = node[part]
                if value is not None and not (isinstance(value, DictConfig) and "_target_" in value):
                    yield f"{name}.{part}={_format(value)}: must be null, for none, or settings with a _target_"
    if isinstance(cfg.get("trainer"), DictConfig) and "max_epochs" not in cfg.trainer:
        yield "trainer.max_epochs: required; it can be changed but not removed"


def _signature_problems(node: DictConfig, path: str = "") -> Iterator[str]:
    """Yield problems of unknown settings, wrong types and values out of range, in a node and below it."""
    parameters: dict[str, Any] | None = None
    if "_target_" in node:
        try:
            parameters = parameter_types(find_class(node._target_, path[:-1]))
        except UsageError as error:
            yield str(error)
            return
    elif node and path[:-1] in OPTIONAL:
        group, [(name_, value), *_] = path[:-1], node.items()
        remedy = f"choose another {group}, or remove it with ~{path}{name_!s}"
        yield f"{path}{name_!s}={_format(value)}: {group}=none has no settings; {remedy}"
        return
    for key_, value in node.items():
        name = str(key_)
        key = f"{path}{name}"
        if name in OF_HYDRA:
            continue
        if parameters is not None and key in OWN_ARGUMENTS:
            yield f"{key}={_format(value)}: cannot be set, {OWN_ARGUMENTS[key]}; remove it with ~{key}"
        elif parameters is not None and not _takes(parameters, key):
            known = ", ".join(known for known in parameters if known not in ("params", "optimizer")) or "none"
            owner, remedy = node._target_.rsplit(".", 1)[-1], f"remove it with ~{key}, or choose from {known}"
            yield f"{key}={_format(value)}: {owner} has no such setting; {remedy}"
        elif isinstance(value, DictConfig) and ("_target_" in value or parameters is None):
            yield from _signature_problems(value, f"{key}.")
        elif is_list_of_nodes(value):
            for i, each in enumerate(value):
                yield from _signature_problems(each, f"{key}.{i}.")
        else:
            annotation = LIMITS.get(key, (parameters or {}).get(name, Any))
            yield from _type_problems(key, value, annotation)


def parameter_types(target: Callable[..., Any]) -> dict[str, Any]:
    """Return a constructor's parameters and annotations; "**" among them if it accepts any keyword."""
    parameters = inspect.signature(target).parameters.values()
    try:
        annotated = target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target
        hints = get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker can resolve
        hints = {}
    return {"**" if p.kind is p.VAR_KEYWORD else p.name: hints.get(p.name, Any) for p in parameters}


def _type_problems(key: str, value: Any, annotation: Any) -> Iterator[str]:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if value is None and isinstance(annotation, type) and annotation is not Any:
        yield f"{key}=null: may not be null"
        return
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except (PydanticUserError, TypeError, NameError):
        return  # pydantic does not know the type; the constructor checks it
    try:
        # YAML has one kind of list: it may stand for a tuple
        adapter.validate_python(tuple(value) if isinstance(value, list) and "tuple" in str(annotation) else value)
    except ValidationError as error:
        messages = dict.fromkeys(problem["msg"] for problem in error.errors())
        yield f"{key}={_format(value)}: {', or '.join(message[0].lower() + message[1:] for message in messages)}"


def _machine_problems(cfg: DictConfig) -> Iterator[str]:
    accelerator = OmegaConf.select(cfg, "trainer.accelerator")
    found = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("gpu", "cuda") and not found:
        yield (
            f"trainer.accelerator={accelerator}: torch finds no GPU on this machine; "
            "use trainer.accelerator=cpu, or auto for what there is"
        )
    devices = cfg.trainer.get("devices")
    if isinstance(devices, int):
        yield from world_size_problems(devices, cfg.trainer.get("num_nodes", 1))


def _clipping_problems(cfg: DictConfig) -> Iterator[str]:
    """A fused optimizer unscales the gradients of mixed precision itself, too late for Lightning to clip them."""
    clip = cfg.trainer.get("gradient_clip_val")
    mixed, fused = str(cfg.trainer.get("precision")).endswith("-mixed"), cfg.optimizer.get("fused")
    if clip and mixed and fused:
        yield f"trainer.gradient_clip_val={_format(clip)}: needs optimizer.fused=false in mixed precision"


def _reload_problems(cfg: DictConfig) -> Iterator[str]:
    after, epochs = OmegaConf.select(cfg, "callbacks.reload.after"), cfg.trainer.max_epochs
    if isinstance(after, int) and isinstance(epochs, int) and 0 < epochs <= after:
        yield f"callbacks.reload.after={after}: must be less than trainer.max_epochs={epochs}"
    if after is not None and not cfg.callbacks.get("last"):
        yield "callbacks.last=null: callbacks.reload loads what it saves; add callbacks.reload=null"


def _monitor_problems(cfg: DictConfig) -> Iterator[str]:
    unlogged = (VAL_LOSS, VAL_ACC) if OmegaConf.select(cfg, "data.val_size") == 0 else ()
    logged = [name for name in EPOCH_METRICS if name not in unlogged]
    callbacks = enabled_callbacks(cfg)
    classes = [str(node.get("_target_")) for node in (cfg.model, *callbacks.values())]
    others_log = any(not name.startswith(("mnist_lab.", "lightning.", "torch.")) for name in classes)
    for name, node in callbacks.items():
        key, monitor, mode = f"callbacks.{name}", node.get("monitor"), node.get("mode")
        if name in ("best", "last") and (monitor is None) == (name == "best"):
            why = "a metric is needed" if name == "best" else "every epoch is saved"
            yield f"{key}.monitor={_format(monitor)}: {why}; other checkpoints are +callbacks.NAME._target_=CLASS"
        elif monitor in logged:
            if mode not in (None, expected := direction(monitor)):
                best = "least" if expected == "min" else "greatest"
                yield f"{key}.mode={_format(mode)}: the {best} {monitor} is the best; leave the mode out"
        elif monitor is None:
            continue
        elif str(monitor).startswith("test/") or monitor in METRIC_NAMES or not others_log:
            why = "test metrics cannot be monitored" if str(monitor).startswith("test/") else "not logged"
            yield f"{key}.monitor={monitor}: {why}; choose from {', '.join(logged)}"
        elif mode is None:
            yield f"{key}.mode: required, since {monitor} is a metric of your own; set it to min or max"


def _resume_problems(cfg: DictConfig, resumed: DictConfig) -> Iterator[str]:
    """Yield problems of settings that cannot change on resume."""
    saved, asked = flatten(resumed), flatten(cfg)
    for key in saved | asked:
        value = asked.get(key)
        is_kept = value is None and key in READ_FROM_DATA
        if FIXED_ON_RESUME.match(key) and not is_kept and saved.get(key, value) != value:
            yield (
                f"{key}={_format(value)}: cannot change on resume (this run uses {_format(saved[key])}); "
                "init_from=CHECKPOINT starts a new run from its weights"
            )


def enabled_callbacks(cfg: DictConfig) -> dict[str, DictConfig]:
    """Return the enabled callbacks by name; without validation images there is no best checkpoint to save."""
    without = {"best"} if OmegaConf.select(cfg, "data.val_size") == 0 else set()
    return {str(name): node for name, node in cfg.callbacks.items() if node and name not in without}
