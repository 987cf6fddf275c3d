"""What `recognition` asks of every form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from bridge.contract.digests import NotificationId
from bridge.platform.notification import Notification

Document = Mapping[str, Any]


class Documented(NamedTuple):
    """How bodies of a type are put into the shape that the platform's old callbacks have.

    `type` is the type they then have; `translate` takes a body as `json.loads` reads it and returns
    another such document, without changing it.
    """

    type: str
    translate: Callable[[Document], dict[str, Any]]


class Form(ABC):
    """One sender's way to write notifications."""

    title: ClassVar[str]
    """What people are told a body looks like: "a present-day push"."""
    telltales: ClassVar[frozenset[str]]
    """Top-level fields of which each makes a body look like this form."""

    @abstractmethod
    def claims(self, document: Document) -> bool:
        """Whether a body has this form, right or wrong; by its shape alone."""

    def resembles(self, document: Document) -> bool:
        """Whether a body that no form claims is nearest to this one."""
        return not self.telltales.isdisjoint(document)

    @abstractmethod
    def reasons_against(self, document: Document) -> list[str]:
        """What the schemas say against a body, one `path: message` line per problem."""

    @abstractmethod
    def accept(
        self, document: Document, body: bytes, arrival_id: NotificationId | None
    ) -> Notification:
        """The notification; `NotANotificationError` where the schemas say something against it.

        `arrival_id` is the id of a body that does not identify itself, where it has one already.
        """

    def documented(self, type_: str) -> Documented | None:
        """How bodies of `type_` are put into the documented shape; `None` where that has none."""
        return None
