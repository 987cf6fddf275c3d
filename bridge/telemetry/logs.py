"""Logging: structlog, one constant event name per line with fields; console or JSON, on stderr.

Never logged: payloads, tokens, passwords, URLs with credentials. Device and command ids may be.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, Final, TextIO, cast

import orjson
import structlog

from bridge.telemetry.log_writer import LogWriter
from bridge.terminal import visible

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "console", "json")

Logger = structlog.typing.FilteringBoundLogger


def configure(*, level: str, format: str) -> None:
    """Sets up structlog and the standard library's root logger, once, from the command line.

    `auto` means console on a terminal, else JSON.
    """
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    shared.append(_with_traceback)
    if console:
        shared.append(_visible)
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_dumps)
    numeric = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, LogWriter())),
        cache_logger_on_first_use=True,
    )
    # Libraries (asyncio, aiohttp) log through the standard library: same place, same shape.
    handler = logging.StreamHandler(LogWriter())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(numeric, logging.WARNING))


def _visible(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """For consoles only: programs that read JSON search for an id as it is."""
    return {
        name: visible(value) if isinstance(value, str) else value for name, value in event.items()
    }


def _with_traceback(
    logger: Any, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """The traceback of `exc_info` as text, whatever the exception's own class does then."""
    try:
        return structlog.processors.format_exc_info(logger, name, event)
    except BaseException as error:
        event.pop("exc_info", None)
        return {**event, "exception": f"cannot be shown: {type(error).__name__}"}


def _dumps(event: object, **_: object) -> str:
    try:
        return orjson.dumps(event, default=_text).decode()
    except (TypeError, ValueError):  # a lone surrogate, an integer too long: the line matters more
        return json.dumps(event, default=_text)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"a {type(value).__name__}"


def get(name: str) -> Logger:
    """A logger whose lines carry `component=name`."""
    logger: Logger = structlog.get_logger(component=name)
    return logger
