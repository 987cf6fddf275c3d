"""What a handler can ask about the delivery it runs for: `request` and `delivery`.

Both are context-local: each delivery sees its own, in threads and in tasks the handler starts.
"""

from __future__ import annotations

import json
import sys
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from bridge.contract.digests import NotificationId
from bridge.contract.entries import COMMAND_STATUS_TYPE, Entry
from bridge.platform import strict_json
from bridge.platform.forms import nb, notify
from bridge.platform.forms.form import Documented

_UNREAD: Final = object()


class Delivery:
    """One attempt to handle an entry.

    `lost` changes when the lease is lost. `documented` is set before the handler runs: how the body
    is put into the shape that the handler knows, where its own is another.
    """

    __slots__ = (
        "_json", "attempt", "documented", "entry", "epoch", "group", "lost", "partition"
    )  # fmt: skip

    def __init__(
        self, entry: Entry, *, attempt: int, group: str, partition: int, epoch: int
    ) -> None:
        self.entry = entry
        self.attempt = attempt
        self.group = group
        self.partition = partition
        self.epoch = epoch
        self.lost = False
        self.documented: Documented | None = None
        self._json: Any = _UNREAD

    @property
    def json(self) -> Any:
        """What `json.loads` makes of the body, in the handler's shape; read once per delivery."""
        if self._json is _UNREAD:
            document = strict_json.loads(self.entry.body)
            documented = self.documented
            self._json = document if documented is None else documented.translate(document)
        return self._json

    @property
    def path(self) -> str:
        """The request target it came to, its query included; where nothing is kept of it, the
        documented path of its type.
        """
        entry = self.entry
        if entry.path is not None:
            return "/" + entry.path.lstrip("/")
        return nb.PATH if entry.type == COMMAND_STATUS_TYPE else notify.PATH


_current: ContextVar[Delivery] = ContextVar("nb_bridge_delivery")


class Current:
    """`with Current(delivery):` makes it the one that `request` and `delivery` refer to.

    If the receiver's code imported Flask, `flask.request` refers to it too.
    """

    __slots__ = ("_delivery", "_flask", "_token")

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._flask: Any = None

    def __enter__(self) -> None:
        self._token = _current.set(self._delivery)
        if "flask" in sys.modules:
            try:
                self._flask = self._flask_context()
            except BaseException:
                _current.reset(self._token)
                raise
            self._flask.push()

    def _flask_context(self) -> Any:
        from consumers.flask_request import request_context

        delivery = self._delivery
        return request_context(
            delivery.path,
            delivery.entry.body,
            _texts(delivery.entry.headers),
            document=None if delivery.documented is None else delivery.json,
        )

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
        if self._flask is not None:
            self._flask.pop()


def _delivery() -> Delivery:
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError(
            "request and delivery exist only while a handler runs; in a unit test, deliver the "
            "body with consumers.testing"
        ) from None


class CurrentRequest:
    """The callback a handler is called for, under the names of Flask's request."""

    __slots__ = ()

    @property
    def json(self) -> Any:
        """The body as `json.loads` reads it, in the shape that the handler knows."""
        return _delivery().json

    @property
    def path(self) -> str:
        """The path that the callback came to, without its query, decoded as Flask does.

        Of the two documented paths no more is known than which one the type belongs to.
        """
        return unquote(_delivery().path.partition("?")[0])

    @property
    def args(self) -> dict[str, str]:
        """The query's parameters; of one that was repeated the first value, as in Flask."""
        pairs = parse_qsl(_delivery().path.partition("?")[2], keep_blank_values=True)
        return dict(reversed(pairs))

    @property
    def path_params(self) -> dict[str, str]:
        """What stood in the path for each `{name}` of its pattern in `CALLBACK_PATHS`."""
        return _texts(_delivery().entry.path_params)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that `KEEP_HEADERS` names, as it spells them."""
        return _texts(_delivery().entry.headers)

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """As `json`. The arguments are Flask's; the body was validated, so they change nothing."""
        return _delivery().json

    @property
    def data(self) -> bytes:
        """The body as it came, byte for byte."""
        return _delivery().entry.body

    def get_data(self) -> bytes:
        """As `data`."""
        return _delivery().entry.body


def _texts(raw: str | None) -> dict[str, str]:
    """An object of texts that the ingress wrote; empty for anything else."""
    try:
        found = json.loads(raw or "{}")
    except ValueError:
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}


class CurrentDelivery:
    """The delivery a handler is called in."""

    __slots__ = ()

    @property
    def notification_id(self) -> NotificationId:
        """32 hex digits, the same for every delivery of the same notification: idempotency key."""
        return _delivery().entry.id

    @property
    def type(self) -> str:
        """`nbCommandStateChanged`, the platform's notifyType, `resource:event` of a push, or `aep:`
        and the messageType.
        """
        return _delivery().entry.type

    @property
    def attempt(self) -> int:
        """1 at the first."""
        return _delivery().attempt

    @property
    def group(self) -> str:
        """The consumer group of this worker."""
        return _delivery().group

    @property
    def partition(self) -> int:
        """The partition the device belongs to."""
        return _delivery().partition

    @property
    def epoch(self) -> int:
        """Rises with every owner of the partition: a fencing token for what the handler writes."""
        return _delivery().epoch

    @property
    def received_at(self) -> float:
        """When the ingress got the callback, in epoch seconds."""
        return _delivery().entry.received_at_ms / 1000

    @property
    def late(self) -> bool:
        """Whether a later status of the same command was accepted before this one."""
        return _delivery().entry.late

    @property
    def replayed(self) -> bool:
        """Whether an operator replayed this from the dead letters."""
        return _delivery().entry.replayed

    @property
    def lost(self) -> bool:
        """Whether the lease was lost meanwhile: another worker may be doing the same now."""
        return _delivery().lost


request: Final = CurrentRequest()
delivery: Final = CurrentDelivery()
