"""Use Hydra without disturbing another application in the process: set its global state aside and put it back."""

import io
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from mnist_lab.config import conf_dir
from mnist_lab.config.keys import INTERNAL_CHOICES
from mnist_lab.errors import UsageError
from mnist_lab.formatting import print_lines

_LOCK = threading.RLock()  # Hydra's state belongs to the process, so one thread at a time may set it aside.
_thread = threading.local()  # In each thread, ${hydra:...} reads from another `hydra`.
# HydraConfig is left alone: another application may read it in another thread, and no composition needs it.
_SINGLETONS = (GlobalHydra, JobRuntime, VersionBase, ConfigStore)
_RESOLVERS = ("now", "hydra", "python_version")


@contextmanager
def hydra_aside() -> Iterator[None]:
    """Give the block a fresh Hydra, one thread at a time, and restore the former state afterwards."""
    with _LOCK:  # Hydra has no public function for that, only the private dictionaries of singletons and resolvers.
        Plugins.instance()  # Installed plugins put their settings into the store now, and not later.
        singletons, resolvers = dict(Singleton._instances), dict(BaseContainer._resolvers)
        for singleton in _SINGLETONS:
            Singleton._instances.pop(singleton, None)
        Singleton._instances[ConfigStore] = _store_without_our_names(singletons[ConfigStore])
        setup_globals()
        try:
            yield
        finally:
            _restore(Singleton._instances, _SINGLETONS, singletons)
            _restore(BaseContainer._resolvers, _RESOLVERS, resolvers)


def _restore(state: dict[Any, Any], keys: Sequence[Any], before: dict[Any, Any]) -> None:
    for key in keys:
        state.pop(key, None)
        if key in before:
            state[key] = before[key]


def _store_without_our_names(store: Any) -> Any:
    """Copy Hydra's store without the settings of plugins that conf/hydra has too: Hydra would merge the two."""
    copied = object.__new__(ConfigStore)
    groups = dict(store.repo.get("hydra", {}))
    for path in (conf_dir() / "hydra").glob("*/*.yaml"):
        group = path.parent.name
        groups[group] = {name: node for name, node in groups.get(group, {}).items() if name != path.name}
    copied.repo = {**store.repo, "hydra": groups}
    return copied


def show(arguments: Sequence[str]) -> None:
    """Let Hydra's own application answer --cfg, --info, --hydra-help and shell completion."""
    argv, config = sys.argv, HydraConfig.instance().cfg
    sys.argv, shown = [*argv[:1], *arguments], io.StringIO()
    try:
        with hydra_aside(), redirect_stdout(shown):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(lambda cfg: None)()
    except SystemExit as stop:
        raise SystemExit(UsageError.exit_status if stop.code == 1 else stop.code) from None
    finally:
        sys.argv, HydraConfig.instance().cfg = argv, config
        words = shown.getvalue().expandtabs().removesuffix("\n").split(" ")
        print_lines(*" ".join(word for word in words if word not in INTERNAL_CHOICES).split("\n"))


@contextmanager
def composer(config_dir: str | None = None) -> Iterator[None]:
    """Prepare Hydra to compose from conf/ and from a folder of the user's own, which cannot replace files of conf/."""
    with hydra_aside(), hydra.initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="train"):
        OmegaConf.register_new_resolver("hydra", _select_from_hydra, replace=True)
        if config_dir is not None:
            path, loader = f"file://{Path(config_dir).absolute()}", config_loader()
            loader.get_search_path().prepend("command-line", path, anchor="schema")
            loader.repository.initialize_sources(loader.get_search_path())
        yield


def config_loader() -> Any:
    """Return Hydra's loader of configurations within `composer`, or None outside."""
    state = GlobalHydra.instance()
    return state.config_loader() if state.is_initialized() else None


@contextmanager
def reading_from(node: DictConfig) -> Iterator[None]:
    """Let ${hydra:...} read from Hydra's node of a configuration, in this thread."""
    _thread.hydra = node
    try:
        yield
    finally:
        del _thread.hydra


def _select_from_hydra(path: str) -> Any:
    node: Any = getattr(_thread, "hydra", None)
    return OmegaConf.select(node or HydraConfig.get(), path)  # type: ignore[arg-type]
