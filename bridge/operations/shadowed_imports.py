"""Files that are imported in place of what we need: a local `redis.py`, a `queue.py` on PYTHONPATH.

Standard library only: it has to work when nothing else does.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

DISTRIBUTIONS: Final = {
    "aiohttp": "aiohttp",
    "aiohttp_jinja2": "aiohttp-jinja2",
    "aiohttp_sse": "aiohttp-sse",
    "click": "click",
    "environs": "environs",
    "hiredis": "hiredis",
    "jinja2": "jinja2",
    "marshmallow": "marshmallow",
    "orjson": "orjson",
    "prometheus_client": "prometheus-client",
    "redis": "redis",
    "rich": "rich",
    "structlog": "structlog",
    "uvloop": "uvloop",
}
"""Top-level modules of our dependencies, and whose they are."""

OURS: Final = ("bridge", "consumers")


def find() -> list[Path]:
    """Files that this very process imports in place of what it needs."""
    return [*_instead_of_dependencies(), *_instead_of_the_standard_library()]


def named_alike(folder: Path) -> list[Path]:
    """Files of a folder named like something we import; harmless until the folder comes first."""
    names = {*DISTRIBUTIONS, *OURS, *sys.stdlib_module_names}
    ours = {Path(folder).resolve() for folder in _folders_of_ours()}
    return [module for module in _modules(folder, names) if module.resolve() not in ours]


def advice(found: Iterable[Path]) -> str:
    """What to do about them."""
    names = ", ".join(str(name) for name in found)
    return (
        f"{names} is imported in place of a library: rename it, "
        "or start nb-bridge elsewhere and without PYTHONPATH"
    )


def _instead_of_dependencies() -> Iterator[Path]:
    for module, distribution in DISTRIBUTIONS.items():
        try:
            home = Path(str(importlib.metadata.distribution(distribution).locate_file("")))
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional one
        origin = _origin(module)
        if origin is not None and not origin.resolve().is_relative_to(home.resolve()):
            yield origin


def _origin(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file else None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _instead_of_the_standard_library() -> Iterator[Path]:
    library = Path(sysconfig.get_path("stdlib")).resolve()
    for entry in sys.path:
        folder = Path(entry or ".").resolve()
        if folder == library:
            return
        yield from _modules(folder, sys.stdlib_module_names)


def _modules(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    wanted = set(names)
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # no folder: a zip file, or gone
        return
    for path in entries:
        is_module = path.suffix == ".py" and path.stem in wanted
        if is_module or (path.name in wanted and (path / "__init__.py").is_file()):
            yield path


def _folders_of_ours() -> Iterator[Path]:
    for module in OURS:
        origin = _origin(module)
        if origin is not None:
            yield origin.parent
