"""`nb-bridge new receiver`: names that can be, and folders that are not overwritten."""

from __future__ import annotations

import ast
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from bridge import cli
from bridge.cli import new
from bridge.errors import UsageError


@pytest.mark.parametrize(
    ("folder", "name", "module"),
    [("demo", "demo", "demo"), ("My Demo_2", "my-demo-2", "my_demo_2"), ("-a.b-", "a-b", "a_b")],
)
def test_a_folder_names_the_package(folder: str, name: str, module: str) -> None:
    assert new.names_for(folder) == (name, module)


@pytest.mark.parametrize("folder", ["1st", "", "…", "class", "json", "redis", "bridge", "tests"])
def test_a_name_that_could_not_be_imported_is_refused(folder: str) -> None:
    with pytest.raises(UsageError, match="choose another"):
        new.names_for(folder)


@pytest.mark.parametrize("form", new.FORMS)
def test_every_file_is_well_formed_and_has_its_names(tmp_path: Path, form: str) -> None:
    assert cli.run(["new", "receiver", str(tmp_path / "my-demo"), "--for", form]) == 0
    files = [path for path in (tmp_path / "my-demo").rglob("*") if path.is_file()]
    assert len(files) == len(new.FILES)
    for path in files:
        text = path.read_text()
        assert "$" not in text, path
        if path.suffix == ".py":
            ast.parse(text)
    project = tomllib.loads((tmp_path / "my-demo" / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["nb_bridge.receivers"]
    assert points == {"my-demo": "my_demo.receiver:Receiver"}


def test_a_folder_with_something_in_it_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo").mkdir()
    assert cli.run(["new", "receiver", str(tmp_path / "demo")]) == 0  # empty: may be used
    before = (tmp_path / "demo" / "pyproject.toml").stat()
    assert cli.run(["new", "receiver", str(tmp_path / "demo")]) == 2
    assert (tmp_path / "demo" / "pyproject.toml").stat() == before
    (tmp_path / "file").touch()
    assert cli.run(["new", "receiver", str(tmp_path / "file" / "demo")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_what_to_type_next_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, programs = tmp_path / "my demo", Path(sys.executable).parent
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.run(["new", "receiver", str(folder)]) == 0
    first, *words = [shlex.split(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert first == ["cd", str(folder)]
    assert [word[0] for word in words] == [
        str(programs / name) for name in ("pip", "pytest", "nb-bridge")
    ]


def test_programs_on_the_path_are_called_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert cli.run(["new", "receiver", str(tmp_path / "demo")]) == 0
    assert "  nb-bridge dev demo\n" in capsys.readouterr().out
