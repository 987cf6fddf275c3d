"""The figures of a run: what was survived, and what it cost. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

from case import Case
from evidence import Evidence
from rules_of_failovers import lost
from rules_of_outcomes import repeats

# Not done to anything: the machine let nobody run for a moment; all the run, spools were small.
CONDITIONS: Final = ("stall", "late_answers", "small_spool")


class Summary(TypedDict):
    """What `--json` prints."""

    faults: dict[str, int]
    callbacks: dict[str, Any]
    groups: dict[str, dict[str, int]]
    repeats_explained_by: dict[str, int]
    restarted_by_supervisor: int
    drained_s: float | None


def summarise(evidence: Evidence, *, drained_s: float | None) -> Summary:
    """Counts everything worth telling."""
    case = Case(evidence)
    answers = Counter(str(attempt.answer or attempt.error) for attempt in evidence.attempts)
    times = sorted(
        (one.answered_ns - one.sent_ns) / 1e6 for one in evidence.attempts if one.answer == 200
    )
    entries = [entry for found in case.appended.values() for _, entry in found]
    callbacks = {
        "notifications": len(case.sent),
        "requests": len(evidence.attempts),
        "answers": dict(answers.most_common()),
        "answer_ms": {
            f"p{share * 100:g}": round(times[int(share * (len(times) - 1))], 1)
            for share in (0.5, 0.99, 1.0)
            if times
        },
        "slower_than_1_s": _slow(evidence),
        "answered_200": len(case.answered),
        "published": len(entries),
        "late": sum(entry.late for entry in entries),
        "rolled_back": sum(
            place in case.rolled_back for found in case.appended.values() for place, _ in found
        ),
        "answered_200_and_lost": len(lost(case)),
    }
    return Summary(
        faults=dict(
            sorted(Counter(disturbance.kind for disturbance in evidence.disturbances).items())
        ),
        callbacks=callbacks,
        groups={group: _of_group(case, group) for group in evidence.groups},
        repeats_explained_by=dict(
            Counter(
                kind for *_, causes in repeats(case) for kind in {cause.kind for cause in causes}
            )
        ),
        restarted_by_supervisor=sum(one.asked_ns is None for one in evidence.exits),
        drained_s=None if drained_s is None else round(drained_s, 1),
    )


def _slow(evidence: Evidence) -> int:
    """Answers that took over a second although nobody touched the ingress or its disk."""
    return sum(
        attempt.answer == 200
        and attempt.answered_ns - attempt.sent_ns > 10**9
        and not any(
            disturbance.target in (attempt.program, "*")
            and disturbance.kind in ("freeze_ingress", "disk_error", "disk_full", "stall")
            and disturbance.began_ns <= attempt.answered_ns
            and disturbance.ended_ns >= attempt.sent_ns
            for disturbance in evidence.disturbances
        )
        for attempt in evidence.attempts
    )


def _of_group(case: Case, group: str) -> dict[str, int]:
    deliveries = [delivery for delivery in case.deliveries if delivery.group == group]
    outcomes = Counter(
        case.outcome(group, notification) or "none" for notification in case.appended
    )
    return {
        "handled": outcomes["handled"],
        "dead": outcomes["dead"],
        "without_outcome": outcomes["none"],
        "deliveries": len(deliveries),
        "failed": sum(one.end == "failed" for one in deliveries),
        "interrupted": sum(one.end in (None, "cancelled", "died", "stuck") for one in deliveries),
        "repeated_after_outcome": sum(repeat[1].group == group for repeat in repeats(case)),
        "epochs": sum(key[0] == group for key in case.acquired),
        "lapsed": len(case.lapsed[group]),
    }


def table(summary: Summary) -> str:
    """For people."""
    callbacks = summary["callbacks"]
    rows: list[tuple[str, object]] = [("faults survived", sum(summary["faults"].values()))]
    rows += [(f"  {kind}", count) for kind, count in summary["faults"].items()]
    for name in (
        "notifications",
        "requests",
        "answered_200",
        "published",
        "late",
        "rolled_back",
        "answered_200_and_lost",
        "slower_than_1_s",
    ):
        rows.append((name.replace("_", " "), callbacks[name]))
    rows += [(f"  answer {answer}", count) for answer, count in callbacks["answers"].items()]
    rows += [(f"  200 after, {name}", f"{ms} ms") for name, ms in callbacks["answer_ms"].items()]
    for group, counts in summary["groups"].items():
        rows.append((f"group {group}", ""))
        rows += [(f"  {name.replace('_', ' ')}", count) for name, count in counts.items()]
    rows.append(("repeats explained by (several may)", ""))
    rows += [(f"  {kind}", count) for kind, count in summary["repeats_explained_by"].items()]
    rows.append(("restarted by the supervisor", summary["restarted_by_supervisor"]))
    rows.append(("drained after", f"{summary['drained_s']} s"))
    return "\n".join(f"{name:34}{value!s:>12}" for name, value in rows)


def table_of_all(runs: Mapping[int, Mapping[str, Any]]) -> str:
    """Several runs by seed, as `--json` has them, as tables in Markdown."""
    rows: list[list[object]] = []
    kinds: Counter[str] = Counter()
    for seed, run in runs.items():
        faults = {kind: n for kind, n in run["faults"].items() if kind not in CONDITIONS}
        kinds.update(faults)
        groups = run["groups"].values()
        rows.append(
            [
                seed,
                run["on"],
                sum(faults.values()),
                run["callbacks"]["notifications"],
                run["callbacks"]["answered_200"],
                *(
                    sum(group[name] for group in groups)
                    for name in ("handled", "dead", "repeated_after_outcome")
                ),
                len(run["violations"]),
            ]
        )
    rows.append(["all", "", *(sum(int(str(row[at])) for row in rows) for at in range(2, 9))])
    head = ["seed", "on", "faults", "notifications", "answered 200", "handled", "dead", "repeated",
            "violations"]  # fmt: skip
    return "\n\n".join(
        (_markdown(head, rows), _markdown(["fault", "times"], sorted(kinds.items())))
    )


def _markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
