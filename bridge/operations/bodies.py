"""Bodies, which are whatever strangers sent, in documents of JSON."""

from __future__ import annotations

import base64
import contextlib
import json

from bridge.terminal import visible


def fields_of(body: bytes) -> dict[str, str]:
    """`body`, or `body_base64` where it is not UTF-8."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def shown(body: bytes) -> str:
    """A body for people: indented if it is JSON, else its text as far as it is one."""
    text = body.decode(errors="backslashreplace")
    with contextlib.suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return visible(text)
