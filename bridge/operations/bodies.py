"""Bodies, which are whatever strangers sent, in documents of JSON."""

from __future__ import annotations

import base64


def fields_of(body: bytes) -> dict[str, str]:
    """`body`, or `body_base64` where it is not UTF-8."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}
