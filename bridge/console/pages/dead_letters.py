"""`/dead`: dead letters of one group or of all, and one of them; giving it back, dropping it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp import web

from bridge.console import acting, parts
from bridge.console.asked import Asked
from bridge.console.entries import Entry
from bridge.console.filters import link
from bridge.console.forms import done
from bridge.console.notes import Note
from bridge.console.page import page
from bridge.console.payload import payload
from bridge.http.problem import Problem
from bridge.operations import dead_letter_pages, dead_letters
from bridge.operations.dead_letters import Place

ENTRY: Final = Entry("/dead", "Dead letters")
_ONE: Final = "/dead/{group}/{partition}/{id}"


async def show(request: web.Request) -> web.Response:
    """The newest that a filter leaves, and what they died of."""
    asked = Asked.of(request.query)
    async with parts.of(request).opened() as connected:
        found = await dead_letter_pages.page(
            connected,
            group=asked.group or None,
            wanted=asked.wanted,
            before=request.query.get("before") or None,
        )
    context = {"found": found, "asked": asked, "before": request.query.get("before", "")}
    return page(request, "dead_letters.html", context, document=found.document())


async def show_one(request: web.Request) -> web.Response:
    """One with its error and traceback; its body is another page."""
    group, place = _named(request)
    async with parts.of(request).opened() as connected:
        letter = await dead_letters.find(connected, group, place)
    if letter is None:
        raise _gone(group, place)
    document = {
        "group": group,
        **dead_letters.document(letter),
        "traceback": dead_letters.text_of(letter, b"dead_traceback"),
    }
    context = {
        "letter": document,
        "line": dead_letters.line_of(letter),
        "body_bytes": len(letter.fields.get(b"body", b"")),
    }
    return page(request, "dead_letter.html", context, document=document)


async def show_body(request: web.Request) -> web.Response:
    """The payload of one, which nothing shows unasked."""
    group, place = _named(request)
    async with parts.of(request).opened() as connected:
        letter = await dead_letters.find(connected, group, place)
    if letter is None:
        raise _gone(group, place)
    body = letter.fields.get(b"body", b"")
    return payload(request, body, name=place.id.decode(), of=request.path.removesuffix("/body"))


async def replay(request: web.Request) -> web.Response:
    """Gives one back to its group."""
    group, place = _named(request)
    async with parts.of(request).opened() as connected:
        await connected.refuse_while_held()
        letter = await dead_letters.find(connected, group, place)
        what = f"group {group}: {place}"
        outcome = await acting.act(
            request, connected, "dead replay", what,
            lambda: dead_letters.replay(connected, group, place),
        )  # fmt: skip
    command = letter and dead_letters.text_of(letter, b"command")
    note = Note(
        text=f"{place} was given back to group {group}: it comes behind what waits there.",
        href=link("commands", command) if command else None,
        link_text="See what becomes of it",
    )
    return _done(request, group, place, outcome, note)


async def drop(request: web.Request) -> web.Response:
    """Deletes one for good."""
    group, place = _named(request)
    async with parts.of(request).opened() as connected:
        what = f"group {group}: {place}"
        outcome = await acting.act(
            request, connected, "dead drop", what,
            lambda: dead_letters.drop(connected, group, place),
        )  # fmt: skip
    return _done(request, group, place, outcome, Note(text=f"{place} of group {group} is dropped."))


def _named(request: web.Request) -> tuple[str, Place]:
    info = request.match_info
    return info["group"], Place.of(f"{info['partition']}/{info['id']}")


def _gone(group: str, place: Place) -> Problem:
    return Problem(
        HTTPStatus.NOT_FOUND,
        "console",
        f"group {group} has no dead letter {place} (any more): it was given back or dropped; "
        "the audit says by whom",
    )


def _done(request: web.Request, group: str, place: Place, outcome: str, note: Note) -> web.Response:
    if outcome == "gone":
        text = f"{place} of group {group} was already gone: nothing was done."
        note = Note(text=text, is_good=False, href="/audit", link_text="The audit says by whom")
    return done(request, "/dead", note, document=acting.document_of(outcome), group=group)


ROUTES: Final = (
    web.get("/dead", show),
    web.get(_ONE, show_one),
    web.get(f"{_ONE}/body", show_body),
    web.post(f"{_ONE}/replay", replay),
    web.post(f"{_ONE}/drop", drop),
)
