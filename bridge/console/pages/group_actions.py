"""What may be done to groups from `/groups`: pause, resume, protect, unprotect.

The buttons are in the template `group_actions.html`. A group's name is a field, since it may be
anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from bridge.console import acting, forms, parts
from bridge.console.notes import Note
from bridge.errors import UsageError
from bridge.operations import audit, groups
from bridge.operations.namespace import Namespace

Act = Callable[[Namespace, str], Awaitable[bool]]
MAX_NAME_CHARS: Final = 256


def _handler(verb: str, act: Act, did: str, did_not: str) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        name = (await forms.fields_of(request)).get("group", "")
        if not 0 < len(name) <= MAX_NAME_CHARS:
            raise UsageError("which group? A form sends its name as group")
        async with (
            parts.of(request).opened() as connected,
            acting.audited(request, connected, f"groups {verb}", f"group {name}") as account,
        ):
            changed = await act(connected, name)
            account.outcome = audit.DONE if changed else "nothing to do"
        parts.of(request).hub.forget()
        note = Note(text=f"group {name} {did if changed else did_not}", is_good=changed)
        document = {"group": name, "changed": changed}
        return forms.done(request, "/groups", note, document=document)

    return handle


ROUTES: Final = (
    web.post("/groups/pause", _handler("pause", groups.pause, "is paused", "was paused already")),
    web.post("/groups/resume", _handler("resume", groups.resume, "goes on", "was not paused")),
    web.post(
        "/groups/protect",
        _handler("protect", groups.protect, "is protected", "was protected already"),
    ),
    web.post(
        "/groups/unprotect",
        _handler("unprotect", groups.unprotect, "may lapse", "was not protected"),
    ),
)
