"""Finding a receiver: an entry point's name, `module:Class`, or `path/to/file.py:Class`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from consumers.worker.delivery.handler import ReceiverError

ENTRY_POINT_GROUP: Final = "nb_bridge.receivers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """A receiver that an installed distribution offers."""

    name: str
    target: str
    distribution: str


def available() -> list[Available]:
    """The receivers found by entry point, sorted by name; nothing is imported."""
    return [
        Available(name=point.name, target=point.value, distribution=point.dist.name)
        for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)
        if point.dist is not None
    ]


def load(spec: str | None) -> Any:
    """An instance of the receiver that `spec` names; of the only one installed if it is `None`.

    `ReceiverError` says what could not be found, imported, or made.
    """
    named = _the_only_one() if spec is None else spec
    class_ = _class(named)
    if not isinstance(class_, type):
        raise ReceiverError(f"receiver {named!r} is not a class")
    try:
        return class_()
    except (Exception, SystemExit) as error:
        raise ReceiverError(
            f"receiver {named!r} cannot be made: {_text(error)}; it is called without arguments"
        ) from error


def _the_only_one() -> str:
    found = available()
    if len(found) == 1:
        return found[0].name
    if not found:
        raise ReceiverError(
            "no receiver is installed: name one with --receiver (module:Class or file.py:Class)"
        )
    names = ", ".join(offered.name for offered in found)
    raise ReceiverError(f"several receivers are installed ({names}): name one with --receiver")


def _class(spec: str) -> Any:
    source, colon, name = spec.rpartition(":")
    if not colon:
        return _from_entry_point(spec)
    module = _from_file(Path(source)) if source.endswith(".py") else _from_module(source, spec)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise ReceiverError(f"receiver {spec!r}: {source} has no {name}")
    return found


def _from_entry_point(name: str) -> Any:
    points: list[EntryPoint] = list(entry_points(group=ENTRY_POINT_GROUP, name=name))
    if not points:
        known = ", ".join(offered.name for offered in available()) or "none"
        raise ReceiverError(
            f"receiver {name!r} not found; installed: {known}; "
            "or give module:Class or path/to/file.py:Class"
        )
    try:
        return points[0].load()
    except (Exception, SystemExit) as error:
        raise ReceiverError(f"receiver {name!r} cannot be imported: {_text(error)}") from error


def _from_module(module: str, spec: str) -> ModuleType:
    # A console script has its own folder in sys.path, not the one it was called in.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ReceiverError(f"receiver {spec!r} cannot be imported: {_text(error)}") from error


def _from_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ReceiverError(f"receiver file {path} does not exist")
    folder = str(path.parent)
    if folder not in sys.path:  # so that the file can import its neighbours, but shadow nothing
        sys.path.append(folder)
    name = f"nb_bridge_receiver_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise ReceiverError(f"receiver file {path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        module_spec.loader.exec_module(module)
    except ImportError as error:
        if "relative import" not in str(error):
            raise ReceiverError(f"receiver file {path} cannot be run: {_text(error)}") from error
        raise ReceiverError(
            f"receiver file {path} imports its neighbours as parts of a package: name it as a "
            f"module, --receiver {_as_module(path)}:Class, from {_root_of(path)}"
        ) from error
    except (Exception, SystemExit) as error:
        raise ReceiverError(f"receiver file {path} cannot be run: {_text(error)}") from error
    return module


def _as_module(path: Path) -> str:
    """The dotted name of a file within the package that it is a part of."""
    return ".".join(path.relative_to(_root_of(path)).with_suffix("").parts)


def _root_of(path: Path) -> Path:
    """The folder that the package of a file is in."""
    folder = path.parent.parent  # it imports relatively: so its own folder is a package
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
