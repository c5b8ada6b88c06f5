"""What pyproject.toml declares is true: constraints-oldest.txt has its lower bounds, each import is a requirement."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).parent.parent


@functools.cache
def project() -> Any:
    """Return the project's metadata in pyproject.toml."""
    from hatchling.metadata.core import ProjectMetadata

    return ProjectMetadata(str(CHECKOUT), None).core


def declared() -> list[Requirement]:
    """Return the requirements of the package and of its extras."""
    extras = [requirement for extra in project().optional_dependencies.values() for requirement in extra]
    return [Requirement(text) for text in [*project().dependencies, *extras]]


def constraints() -> dict[str, Requirement]:
    """Return the lines of constraints-oldest.txt, by the name of the distribution."""
    lines = [line.split("#")[0].strip() for line in (CHECKOUT / "constraints-oldest.txt").read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def imported(path: Path) -> Iterator[str]:
    """Yield the names of the packages that a Python file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).split(".")[0]


def test_constraints_are_the_lower_bounds_that_the_project_declares() -> None:
    bounds: dict[str, set[Version]] = {}
    for requirement in declared():
        lower = {Version(part.version) for part in requirement.specifier if part.operator == ">="}
        assert len(lower) == 1, f"{requirement} has no lower bound"
        bounds.setdefault(canonicalize_name(requirement.name), set()).update(lower)
    exact = {
        name: {Version(part.version) for part in requirement.specifier}
        for name, requirement in constraints().items()
        if str(requirement.specifier).startswith("==")
    }
    assert exact == bounds


def test_readme_and_constraints_name_the_oldest_python_that_the_project_allows() -> None:
    oldest = re.search(r">=\s*([\d.]+)", project().requires_python)
    assert oldest is not None
    assert f"Python {oldest[1]} to" in (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert f"python{oldest[1]} -m venv" in (CHECKOUT / "constraints-oldest.txt").read_text(encoding="utf-8")


def test_every_package_that_the_program_imports_is_declared() -> None:
    provided = {*sys.stdlib_module_names, "mnist_lab"}
    for requirement in declared():
        provided.add(requirement.name)  # A package of an extra may not be installed.
        with suppress(PackageNotFoundError):
            provided |= {file.parts[0].removesuffix(".py") for file in files(requirement.name) or []}
    for path in (CHECKOUT / "mnist_lab").rglob("*.py"):
        assert set(imported(path)) <= provided, f"{path}: imports what pyproject.toml does not declare"
