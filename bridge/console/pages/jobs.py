"""`/jobs`: counting and acting on many, each with its progress and a way to stop it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bridge.console import acting, forms, parts
from bridge.console.asked import Asked, verb_in
from bridge.console.filters import link
from bridge.console.forms import see_other
from bridge.console.jobs.job import Job
from bridge.console.page import page, wants_json
from bridge.errors import UsageError
from bridge.http.problem import Problem
from bridge.operations.batches import Batch
from bridge.operations.dead_letters import DeadBatch
from bridge.operations.quarantine_pages import QuarantineBatch

_ONE: Final = "/jobs/{id}"


async def show(request: web.Request) -> web.Response:
    """Those that this console knows, newest first."""
    jobs = parts.of(request).jobs.all()
    document = {"jobs": [job.document() for job in jobs]}
    return page(request, "jobs.html", {"jobs": jobs}, document=document)


async def count(request: web.Request) -> web.Response:
    """Begins to count what a filter leaves; the job's page asks whether to act on it."""
    given = await forms.fields_of(request)
    jobs = parts.of(request).jobs
    job = await jobs.count(acting.who(request), _batch(request, given))
    return _page(request, job) if wants_json(request) else see_other(link("jobs", job.id))


async def show_one(request: web.Request) -> web.Response:
    """How far one is; a browser with scripts asks for it again and again while it runs."""
    return _page(request, _job(request))


async def start(request: web.Request) -> web.Response:
    """The yes to what was counted; said twice it is done once."""
    job = _job(request)
    given = await forms.fields_of(request)
    rate_per_s = acting.number_in(given.get("rate", ""))
    parts.of(request).jobs.start(job, acting.who(request), rate_per_s)
    return _page(request, job) if wants_json(request) else see_other(link("jobs", job.id))


async def stop(request: web.Request) -> web.Response:
    """Ends it after what is being done right now."""
    job = _job(request)
    job.stop(acting.who(request))
    return _page(request, job) if wants_json(request) else see_other(link("jobs", job.id))


def _batch(request: web.Request, given: Mapping[str, str]) -> Batch:
    asked, verb = Asked.of(given), verb_in(given)
    match given.get("of", ""):
        case "dead":
            if not asked.group:
                raise UsageError("of which group? Dead letters are acted on a group at a time")
            return DeadBatch(group=asked.group, verb=verb, wanted=asked.wanted)
        case "quarantine":
            replayer = parts.of(request).replayer
            return QuarantineBatch(verb=verb, wanted=asked.wanted, replayer=replayer)
        case _:
            raise UsageError("say of what: of is dead or quarantine")


def _page(request: web.Request, job: Job) -> web.Response:
    return page(request, "job.html", {"job": job}, document=job.document())


def _job(request: web.Request) -> Job:
    job = parts.of(request).jobs.find(request.match_info["id"])
    if job is None:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "console",
            "this console knows no such job (any more): a console that was started again has "
            "forgotten those of before; the audit says how they ended",
        )
    return job


ROUTES: Final = (
    web.get("/jobs", show),
    web.post("/jobs", count),
    web.get(_ONE, show_one),
    web.post(f"{_ONE}/start", start),
    web.post(f"{_ONE}/stop", stop),
)
