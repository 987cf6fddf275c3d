"""`/quarantine`: bodies that are not notifications, and one of them; mending and dropping it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bridge.console import acting, forms, parts
from bridge.console.asked import Asked
from bridge.console.entries import Entry
from bridge.console.filters import link
from bridge.console.forms import done
from bridge.console.notes import Note
from bridge.console.page import page, wants_json
from bridge.console.payload import payload
from bridge.http.problem import Problem
from bridge.operations import mending, quarantine_pages, quarantined
from bridge.operations.quarantined import Kept, NotReplayableError

ENTRY: Final = Entry("/quarantine", "Quarantine")
_ONE: Final = "/quarantine/{id}"
_CUT: Final = "only its beginning was kept: mend it, with the whole body"


async def show(request: web.Request) -> web.Response:
    """The newest that a filter leaves, and what is wrong with them."""
    asked = Asked.of(request.query)
    async with parts.of(request).opened() as connected:
        found = await quarantine_pages.page(
            connected, wanted=asked.wanted, before=request.query.get("before") or None
        )
    context = {"found": found, "asked": asked, "before": request.query.get("before", "")}
    return page(request, "quarantine.html", context, document=found.document())


async def show_one(request: web.Request) -> web.Response:
    """One body's circumstances; the body is another page."""
    kept = await _kept(request)
    document = kept.document()
    context = {"body": document, "looks": kept.looks}
    return page(request, "quarantined.html", context, document=document)


async def show_body(request: web.Request) -> web.Response:
    """What is kept of the payload."""
    kept = await _kept(request)
    name = kept.id.decode()
    return payload(request, _bytes_of(kept), name=name, of=link("quarantine", name))


async def mend(request: web.Request) -> web.Response:
    """A form with the body as text."""
    kept = await _kept(request)
    return _form(request, kept, mending.text_of(_bytes_of(kept)), problem=None)


async def replay(request: web.Request) -> web.Response:
    """Publishes one after all, as it is or as the form has it."""
    id_ = quarantined.id_of(request.match_info["id"])
    given = await forms.fields_of(request)
    async with parts.of(request).opened() as connected:
        await connected.refuse_while_held()
        kept = await quarantined.find(connected, id_)
        mended = None
        if kept is not None and "body" in given:
            mended = mending.mended(_bytes_of(kept), given["body"])
        what = id_.decode() + (", mended" if mended is not None else "")
        replayer = parts.of(request).replayer(connected)
        reason = ""
        async with acting.audited(request, connected, "quarantine replay", what) as account:
            try:
                outcome = await quarantine_pages.replay(connected, replayer, id_, mended)
            except NotReplayableError as error:
                outcome, reason = "left", str(error)
            account.count(outcome)
    if kept is not None and outcome == "left":
        return _left(request, kept, given, reason)
    text = {
        "replayed": f"{id_.decode()} is published: it is a notification now.",
        "duplicate": f"{id_.decode()} had been accepted before: it is out of quarantine.",
    }
    return _done(request, id_, outcome, text.get(outcome, ""))


async def drop(request: web.Request) -> web.Response:
    """Deletes one for good."""
    id_ = quarantined.id_of(request.match_info["id"])
    async with parts.of(request).opened() as connected:
        outcome = await acting.act(
            request, connected, "quarantine drop", id_.decode(),
            lambda: quarantine_pages.drop(connected, id_),
        )  # fmt: skip
    return _done(request, id_, outcome, f"{id_.decode()} is dropped.")


async def _kept(request: web.Request) -> Kept:
    id_ = quarantined.id_of(request.match_info["id"])
    async with parts.of(request).opened() as connected:
        kept = await quarantined.find(connected, id_)
    if kept is None:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "console",
            f"there is no {id_.decode()} in quarantine (any more): it was published or dropped, or "
            "it was the oldest of too many; the audit says what people did",
        )
    return kept


def _bytes_of(kept: Kept) -> bytes:
    return b"" if kept.body is None else kept.body.body


def _left(request: web.Request, kept: Kept, given: Mapping[str, str], reason: str) -> web.Response:
    """Still no notification: the form again, with what was typed and what is wrong with it."""
    if "body" not in given and not (kept.body and kept.body.is_whole):
        reason = _CUT
    if wants_json(request):
        document = {**acting.document_of("left"), "reason": reason}
        return page(request, "quarantined_mend.html", {}, document=document)
    text = given.get("body", mending.text_of(_bytes_of(kept)))
    return _form(request, kept, text, problem=reason)


def _form(request: web.Request, kept: Kept, text: str, *, problem: str | None) -> web.Response:
    status = HTTPStatus.OK if problem is None else HTTPStatus.UNPROCESSABLE_ENTITY
    context = {"body": kept.document(), "text": text, "problem": problem}
    return page(request, "quarantined_mend.html", context, status=status)


def _done(request: web.Request, id_: bytes, outcome: str, text: str) -> web.Response:
    note = Note(text=text)
    if outcome == "gone":
        text = f"{id_.decode()} was already gone: nothing was done."
        note = Note(text=text, is_good=False, href="/audit", link_text="The audit says by whom")
    return done(request, "/quarantine", note, document=acting.document_of(outcome))


ROUTES: Final = (
    web.get("/quarantine", show),
    web.get(_ONE, show_one),
    web.get(f"{_ONE}/body", show_body),
    web.get(f"{_ONE}/mend", mend),
    web.post(f"{_ONE}/replay", replay),
    web.post(f"{_ONE}/drop", drop),
)
