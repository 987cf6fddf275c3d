"""Finding receivers: by entry point, by module, by file; and saying why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from consumers.worker.delivery.handler import ReceiverError
from consumers.worker.process import loading
from consumers.worker.process.loading import load

RECEIVER = """
from consumers import PushMessageReceiver
import neighbour
class Receiver(PushMessageReceiver):
    value = neighbour.VALUE
    def handleNBCommandStateChanged(self): ...
    class Inner(PushMessageReceiver):
        def handleNBCommandStateChanged(self): ...
class Needy:
    def __init__(self, needed): ...
nothing = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "plugin_in_test.py").write_text(RECEIVER)
    (tmp_path / "neighbour.py").write_text("VALUE = 42")
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("neighbour", "plugin_in_test") or name.startswith("nb_bridge_receiver_"):
            del sys.modules[name]


class Installed:
    """Entry points as some distributions would offer them."""

    def __init__(self, **targets: str) -> None:
        self._points = [
            EntryPoint(name=name, value=value, group=loading.ENTRY_POINT_GROUP)
            for name, value in targets.items()
        ]
        for point in self._points:
            vars(point).update(dist=type("Dist", (), {"name": f"dist-of-{point.name}"})())

    def __call__(self, *, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == loading.ENTRY_POINT_GROUP
        return [point for point in self._points if name in (None, point.name)]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(**targets: str) -> None:
        monkeypatch.setattr(loading, "entry_points", Installed(**targets))

    install()
    return install


# --- found


@pytest.mark.parametrize(
    "spec",
    ["plugin_in_test.py:Receiver", "./plugin_in_test.py:Receiver", "plugin_in_test:Receiver"],
)
def test_a_receiver_is_found_by_file_and_by_module(folder: Path, spec: str) -> None:
    assert load(spec).value == 42  # with what lies beside it


def test_a_receiver_is_found_by_an_absolute_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert load(f"{folder}/plugin_in_test.py:Receiver").value == 42


def test_a_path_may_begin_with_the_home_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert load("~/plugin_in_test.py:Receiver").value == 42


def test_a_class_inside_a_class_is_found(folder: Path) -> None:
    assert type(load("plugin_in_test:Receiver.Inner")).__name__ == "Inner"


def test_what_lies_beside_a_file_shadows_nothing(folder: Path) -> None:
    (folder / "json.py").write_text("raise RuntimeError('shadowed')")
    (folder / "plugin_in_test.py").write_text(RECEIVER + "\nimport json\njson.dumps(1)\n")
    load("plugin_in_test.py:Receiver")


def test_an_installed_receiver_is_found_by_its_name(folder: Path, installed: Any) -> None:
    sys.path.append(str(folder))
    installed(mine="plugin_in_test:Receiver", other="json:JSONDecoder")
    assert load("mine").value == 42


def test_the_only_one_installed_needs_no_name(folder: Path, installed: Any) -> None:
    sys.path.append(str(folder))
    installed(mine="plugin_in_test:Receiver")
    assert load(None).value == 42


def test_what_is_installed_is_listed_without_importing_it(installed: Any) -> None:
    installed(b="no_such_module:B", a="json:JSONDecoder")
    found = [(each.name, each.target, each.distribution) for each in loading.available()]
    assert found == [
        ("a", "json:JSONDecoder", "dist-of-a"),
        ("b", "no_such_module:B", "dist-of-b"),
    ]


# --- not found


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("absent.py:Receiver", "absent.py does not exist"),
        (".py:Receiver", "does not exist"),
        ("no_such_module_here:Receiver", "No module named 'no_such_module_here'"),
        ("plugin_in_test:Absent", "plugin_in_test has no Absent"),
        ("plugin_in_test.py:Receiver.Absent", "has no Receiver.Absent"),
        ("plugin_in_test:nothing", "is not a class"),
        ("plugin_in_test:Needy", "called without arguments"),
        ("broken.py:Receiver", "SyntaxError"),
        ("raising.py:Receiver", "ZeroDivisionError"),
        ("exiting.py:Receiver", "SystemExit"),
        ("nobody", "'nobody' not found; installed: none"),
        ("", "not found"),
        (":", "cannot be imported"),
        ("plugin_in_test:", "has no "),
        ("a..b:C", "cannot be imported"),
    ],
)
def test_what_cannot_be_loaded_says_why_and_names_it(
    folder: Path, installed: Any, spec: str, told: str
) -> None:
    (folder / "broken.py").write_text("this is no Python")
    (folder / "raising.py").write_text("1 / 0")
    (folder / "exiting.py").write_text("import sys; sys.exit('no')")
    with pytest.raises(ReceiverError) as caught:
        load(spec)
    assert told in str(caught.value)
    assert caught.value.exit_code == 2


def test_none_installed_says_how_to_name_one(installed: Any) -> None:
    with pytest.raises(ReceiverError, match="--receiver"):
        load(None)


def test_several_installed_are_listed(installed: Any) -> None:
    installed(b="x:B", a="x:A")
    with pytest.raises(ReceiverError, match=r"\(a, b\)"):
        load(None)
    with pytest.raises(ReceiverError, match="installed: a, b"):
        load("c")


def test_an_entry_point_that_cannot_be_imported_says_so(installed: Any) -> None:
    installed(a="no_such_module_here:A")
    with pytest.raises(ReceiverError, match="'a' cannot be imported: ModuleNotFoundError"):
        load("a")


def test_a_file_that_belongs_to_a_package_is_named_as_its_module(tmp_path: Path) -> None:
    folder = tmp_path / "shop" / "devices"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    (folder / "receiver.py").write_text("from .database import Database")
    with pytest.raises(ReceiverError) as error:
        load(f"{folder / 'receiver.py'}:Receiver")
    assert f"--receiver shop.devices.receiver:Class, from {tmp_path}" in str(error.value)
