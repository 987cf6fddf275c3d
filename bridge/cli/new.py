"""`nb-bridge new receiver DIR`: the beginnings of a receiver's package.

What is written is in `templates/`; names are all that is put into it.
"""

from __future__ import annotations

import keyword
import re
import shlex
import shutil
import sys
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

import click

from bridge import __version__
from bridge.cli import PROGRAM
from bridge.errors import UsageError
from bridge.operations import shadowed_imports

FORMS: Final = ("nb", "v5", "aep")
# Template → where it goes, in the order people should read them. Those of a form have its name.
FILES: Final = {
    "README.md": "README.md",
    "receiver.py": "src/{module}/receiver.py",
    "package.py": "src/{module}/__init__.py",
    "test_receiver.py": "tests/test_receiver.py",
    "pyproject.toml": "pyproject.toml",
    "ci.yml": ".github/workflows/ci.yml",
    "gitignore": ".gitignore",
}


@click.group(no_args_is_help=False)
def command() -> None:
    """Write the beginnings of something of your own."""


@command.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--for",
    "form",
    type=click.Choice(FORMS),
    default=FORMS[0],
    show_default=True,
    help="What the platform pushes: nb, documented callbacks, which takes the others' command "
    "statuses, too; v5, present-day pushes; aep, those of AEP.",
)
def receiver(folder: Path, form: str) -> None:
    """Write a small package with a typed handler, its entry point, its tests and a CI file to DIR,
    which must be new or empty. It is named as DIR is.
    """
    name, module = names_for(folder.resolve().name)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty: name a new folder")
        for template, place in FILES.items():
            source = template_for(template, form)
            _write(folder / place.format(module=module), source, name=name, module=module)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror}") from error
    click.echo(
        f"{name} is in {folder}; go on with\n"
        f"  cd {shlex.quote(str(folder))}\n"
        f"  {_beside_python('pip')} install -e '.[test]'\n"
        f"  {_beside_python('pytest')}\n"
        f"  {_beside_python(PROGRAM)} dev {name}"
    )


def _beside_python(name: str) -> str:
    """A program of the environment that we run in, where we are installed: by its name, if that is
    what a shell finds.
    """
    program = Path(sys.executable).parent / name
    found = shutil.which(name)
    return name if found and Path(found) == program else shlex.quote(str(program))


def names_for(folder: str) -> tuple[str, str]:
    """Name of the distribution and of its module; `UsageError` where that can be no module."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")
    module = name.replace("-", "_")
    taken = {
        *shadowed_imports.DISTRIBUTIONS,
        *shadowed_imports.OURS,
        *sys.stdlib_module_names,
        "tests",
        "flask",
    }
    if not module.isidentifier() or keyword.iskeyword(module) or module in taken:
        raise UsageError(
            f"{folder!r} cannot be the name of a Python package of yours: choose another"
        )
    return name, module


def template_for(name: str, form: str) -> str:
    """The template of a form, where it has one of its own."""
    stem, dot, ending = name.partition(".")
    has_own = form != FORMS[0] and name in ("receiver.py", "test_receiver.py")
    return f"{stem}-{form}{dot}{ending}" if has_own else name


def _write(path: Path, template: str, *, name: str, module: str) -> None:
    source = resources.files("bridge.cli") / "templates" / "receiver" / f"{template}.template"
    text = Template(source.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        text.substitute(name=name, module=module, version=__version__), encoding="utf-8"
    )
