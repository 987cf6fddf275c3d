"""Settings as options: each setting of a command is an option that overrides its variable.

An option's value goes into the environment before the settings are loaded: so there is one place
that reads and judges values, and child processes inherit what was said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any, Final, TypeVar

import click

from bridge import settings
from bridge.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

_METAVARS: Final = {"int": "N", "float": "SECONDS", "list": "LIST", "str": "TEXT"}


def settings_options(half: str, *, besides: Collection[str] = ()) -> Callable[[F], F]:
    """Options for every setting of `half` (`ingress`, `worker`), except the fields in `besides`.

    Secrets have none, since a command line can be read by every user of the machine; of the Redis
    URL most have no password, so it has one.
    """
    chosen = [
        spec
        for spec in fields(Settings)
        if spec.metadata["halves"] in ("both", half)
        and (not spec.metadata["secret"] or spec.name == "redis_url")
        and spec.name not in besides
    ]

    def decorate(command: F) -> F:
        for spec in reversed(chosen):
            command = setting_option(spec.name)(command)
        return command

    return decorate


def setting_option(name: str, option: str | None = None) -> Callable[[F], F]:
    """The option of one setting, named as its field, or `option`."""
    spec = next(spec for spec in fields(Settings) if spec.name == name)
    variable = settings.variable(name)

    def put(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            os.environ[variable] = value
            os.environ.pop(f"{variable}_FILE", None)  # the option is said later, and louder

    return click.option(
        option or f"--{name.replace('_', '-')}",
        metavar=_METAVARS[spec.metadata["read"]],
        expose_value=False,
        callback=put,
        help=f"{spec.metadata['doc']}  [{variable}; default: {_default(spec)}]",
    )


def _default(spec: Any) -> str:
    if text := spec.metadata["default_text"]:
        return str(text)
    if isinstance(spec.default, tuple):
        return ",".join(spec.default) or "none"
    if isinstance(spec.default, float):
        return f"{spec.default:g}"
    return "none" if spec.default is None else str(spec.default)


def load() -> Settings:
    """The settings of this process; warns on stderr of variables that name none."""
    for warning in settings.unknown_variables(os.environ):
        click.echo(f"nb-bridge: warning: {warning}", err=True)
    return settings.load()
