"""The settings of the operators' web console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bridge.settings.common import MAX_PORT
from bridge.settings.ingress import WithIngress
from bridge.settings.readers import number, one_of, pairs, setting, words

CONSOLE: Final = "console"


@dataclass(frozen=True, slots=True, kw_only=True)
class WithConsole(WithIngress):
    """A row for each, below those of the ingress."""

    console_host: str = setting(
        "127.0.0.1",
        "address of the web console; another than loopback needs CONSOLE_TOKENS or "
        "CONSOLE_BASIC_CREDENTIALS",
        halves=CONSOLE,
    )
    console_port: int = number(
        8090, "port of the web console; 0: any free one", low=0, high=MAX_PORT, halves=CONSOLE
    )
    console_names: tuple[str, ...] = words(
        "names with a dot by which the web console may be called, besides addresses, as behind a "
        "proxy; needs CONSOLE_TOKENS or CONSOLE_BASIC_CREDENTIALS",
        halves=CONSOLE,
    )
    console_actions: Literal["off", "on"] = one_of(
        "off",
        "on",
        doc="on: the web console may replay, drop, pause and the like; off: it only shows",
        halves=CONSOLE,
    )
    console_tokens: tuple[str, ...] = words(
        "tokens that let an operator into the web console, separated by commas or lines",
        closes=True,
        secret=True,
        halves=CONSOLE,
    )
    console_basic_credentials: tuple[str, ...] = pairs(
        "user:password pairs that let an operator into the web console, separated by commas or "
        "lines",
        closes=True,
        halves=CONSOLE,
    )
