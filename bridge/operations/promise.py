"""Whether the promise is kept: every callback answered 200, and kept. Judged by what ingresses say.

From their heartbeats while Redis is there, and else from themselves; pure but for the asking.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from bridge.clock import epoch_ms
from bridge.operations import ingress_status
from bridge.operations.ingresses import Ingress, is_number

BLOCK_LISTED_AT: Final = 10
"""Answers other than 200 in a row, after which the platform block-lists the host."""
MAX_ASKED: Final = 64
"""Ingresses that are asked themselves, at a time."""
MISSED_MS: Final = 5 * 60_000
"""For so long an ingress that is gone is worth a word."""
Level = Literal["kept", "at_risk", "broken", "unknown"]
Source = Literal["heartbeat", "itself", "nobody"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known of one ingress. What it does not say (it may be of 0.1) is `None`."""

    name: str
    source: Source
    """Who said it; `nobody`: what it said last, and now it does not answer."""
    age_ms: int
    at_ms: int
    """When it said that, by its own clock."""
    url: str | None = None
    admin_url: str | None = None
    version: str | None = None
    path: str | None = None
    pressure: str | None = None
    spool_entries: int | None = None
    answers: Mapping[str, int] = field(default_factory=dict)
    """How many of each code since `started_at_ms`."""
    started_at_ms: int | None = None
    consecutive_failures: int | None = None
    last_callback_at_ms: int | None = None
    not_ready: tuple[str, ...] = ()
    ahead_ms: int = 0
    """How far its clock is ahead of Redis', where that is too far for its heartbeats to count."""

    @property
    def answers_now(self) -> bool:
        """Whether this is how it is now."""
        return self.source != "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """The judgement, its reasons (most severe first), and what it rests on."""

    level: Level
    reasons: tuple[str, ...]
    ingresses: tuple[Report, ...]

    @property
    def answers(self) -> Mapping[str, int]:
        """Of all ingresses, by code."""
        counts: Counter[str] = Counter()
        for report in self.ingresses:
            counts.update(report.answers)
        return dict(sorted(counts.items()))

    @property
    def consecutive_failures(self) -> int | None:
        """The longest run of answers other than 200 that some ingress is in."""
        runs = [report.consecutive_failures for report in self.ingresses]
        return max((run for run in runs if run is not None), default=None)

    @property
    def last_callback_at_ms(self) -> int | None:
        """When any of them got a callback last."""
        moments = [report.last_callback_at_ms for report in self.ingresses]
        return max((moment for moment in moments if moment is not None), default=None)

    @property
    def spool_entries(self) -> int:
        """Callbacks that are on disks only."""
        return sum(report.spool_entries or 0 for report in self.ingresses)


def of_heartbeat(ingress: Ingress) -> Report:
    """What an ingress wrote to Redis, if that is of now."""
    source: Source = "nobody" if ingress.is_silent or ingress.is_ahead else "heartbeat"
    found = _report(ingress.name, ingress.heartbeat, source=source, age_ms=ingress.age_ms)
    return replace(found, ahead_ms=ingress.ahead_ms) if ingress.is_ahead else found


async def asked(reports: Sequence[Report]) -> list[Report]:
    """The same, but from itself for each that answers now."""
    urls = dict.fromkeys(report.admin_url for report in reports[:MAX_ASKED] if report.admin_url)
    found = dict(zip(urls, await asyncio.gather(*map(ingress_status.ask, urls)), strict=True))
    return [_of_itself(report, found.get(report.admin_url or "")) for report in reports]


def _of_itself(report: Report, document: Mapping[str, Any] | None) -> Report:
    if document is None or (report.name and document.get("name") != report.name):
        # Nobody, or another one on the same port: then this one is gone.
        return _silent(report)
    spool = document.get("spool")
    entries = spool.get("entries") if isinstance(spool, dict) else None
    values = {**document, "spool_entries": entries, "admin_url": report.admin_url}
    values["at_ms"] = epoch_ms()
    found = _report(str(document.get("name")), values, source="itself", age_ms=0)
    return replace(found, ahead_ms=report.ahead_ms)


def _silent(report: Report) -> Report:
    values = {
        "url": report.url, "admin_url": report.admin_url, "version": report.version,
        "path": report.path, "pressure": report.pressure, "spool_entries": report.spool_entries,
        "answers": report.answers, "started_at_ms": report.started_at_ms,
        "last_callback_at_ms": report.last_callback_at_ms, "at_ms": report.at_ms,
    }  # fmt: skip
    found = _report(report.name, values, source="nobody", age_ms=report.age_ms)
    return replace(found, ahead_ms=report.ahead_ms)


def _report(name: str, said: Mapping[str, Any], *, source: Source, age_ms: int) -> Report:
    """What is of the right type; the rest was written by somebody else."""
    answers = said.get("answers")
    reasons = said.get("not_ready")
    return Report(
        name=name,
        source=source,
        age_ms=age_ms,
        at_ms=_number(said.get("at_ms")) or 0,
        url=_text(said.get("url")),
        admin_url=_text(said.get("admin_url")),
        version=_text(said.get("version")),
        path=_text(said.get("path")),
        pressure=_text(said.get("pressure")),
        spool_entries=_number(said.get("spool_entries")),
        answers={
            str(code): count
            for code, count in (answers.items() if isinstance(answers, Mapping) else ())
            if is_number(count)
        },
        started_at_ms=_number(said.get("started_at_ms")),
        consecutive_failures=_number(said.get("consecutive_failures")),
        last_callback_at_ms=_number(said.get("last_callback_at_ms")),
        not_ready=tuple(map(str, reasons)) if isinstance(reasons, list | tuple) else (),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return value if is_number(value) else None


# --- judging


def judge(reports: Iterable[Report], *, is_redis_up: bool) -> Promise:
    """Whether the promise is kept, by all that is known now."""
    ingresses = tuple(reports)
    present = [report for report in ingresses if report.answers_now]
    broken = [reason for report in present for reason in _broken(report)]
    risks = [reason for report in present for reason in _at_risk(report)]
    places = {_place(report) for report in present}
    risks += [
        _gone(report)
        for report in ingresses
        if not report.answers_now
        # Later, or where another took its place (and its spool), it is history.
        and (report.age_ms < MISSED_MS or report.spool_entries)
        and _place(report) not in places
    ]
    if not present:
        if not is_redis_up or not ingresses:
            return Promise(level="unknown", reasons=(_nobody(is_redis_up),), ingresses=ingresses)
        return Promise(
            level="broken",
            reasons=("no ingress answers: callbacks get no answer", *risks),
            ingresses=ingresses,
        )
    level: Level = "broken" if broken else "at_risk" if risks else "kept"
    return Promise(level=level, reasons=(*broken, *risks), ingresses=ingresses)


def _broken(report: Report) -> list[str]:
    found = [f"{report.name}: {reason}" for reason in report.not_ready]
    run = report.consecutive_failures or 0
    if run >= BLOCK_LISTED_AT:
        found.append(
            f"{report.name} has answered {run} callbacks in a row with something else than 200: "
            "the platform may have block-listed it"
        )
    return found


def _at_risk(report: Report) -> list[str]:
    found = []
    run = report.consecutive_failures or 0
    if 0 < run < BLOCK_LISTED_AT:
        found.append(
            f"{report.name} has answered the last {run} otherwise than 200; at "
            f"{BLOCK_LISTED_AT} in a row the platform block-lists it"
        )
    if report.path is not None and report.path != "direct":
        why = f": {report.pressure}" if report.pressure else ""
        found.append(
            f"{report.name} spools to its disk ({report.spool_entries or 0} wait there){why}"
        )
    if report.ahead_ms:
        found.append(f"{report.name} answers; {_clock(report)}")
    return found


def _place(report: Report) -> tuple[str, str | None]:
    """Where it is: the host that its name (host:pid:id) says, and its address there.

    In containers all have one address, each on a host of its own.
    """
    return report.name.rsplit(":", 2)[0], report.url


def _gone(report: Report) -> str:
    found = (
        f"{report.name} was heard last {report.age_ms // 1000} s ago: it is gone, or cannot be "
        "reached"
    )
    if report.ahead_ms:  # so nobody knows when it was heard
        found = f"{report.name} does not answer: it is gone, or cannot be reached; {_clock(report)}"
    if report.spool_entries:
        found += (
            f"; {report.spool_entries} callbacks are in its spool only, until an ingress starts "
            "there or nb-bridge spool drain publishes them"
        )
    return found


def _clock(report: Report) -> str:
    return f"its clock is {report.ahead_ms // 1000} s ahead"


def _nobody(is_redis_up: bool) -> str:
    if is_redis_up:
        return "no ingress has been seen: nb-bridge serve starts one"
    return "Redis is away, and no ingress can be reached from here"


def unknown_at(admin_url: str) -> Report:
    """An ingress that may be there, by its address alone, to be `asked`."""
    return Report(name="", source="nobody", age_ms=0, at_ms=0, admin_url=admin_url)
