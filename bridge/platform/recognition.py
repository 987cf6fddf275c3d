"""What a body is: its fields say so, never the path it came on.

Owns the list of forms, in the order in which they are asked. A further one is a module in `forms/`
and a line here.
"""

from __future__ import annotations

from typing import Final

from bridge.contract.digests import NotificationId
from bridge.platform.forms import aep, nb, notify, v5
from bridge.platform.forms.form import Documented, Form
from bridge.platform.notification import NotANotificationError, Notification
from bridge.platform.strict_json import parse_object

FORMS: Final[tuple[Form, ...]] = (v5.FORM, notify.FORM, aep.FORM, nb.FORM)
_OTHERS: Final = frozenset().union(*(form.telltales for form in FORMS if form is not nb.FORM))
_MISSING: Final = ": Missing data for required field."


def accept(body: bytes, *, arrival_id: NotificationId | None = None) -> Notification:
    """Validates a callback's body, whichever of the forms it has.

    Raises `NotJsonError` for what is not a JSON object, and `NotANotificationError` for one that
    has none of the forms; its reasons begin with the form that is nearest. `arrival_id` is the id
    of a body that does not identify itself, where this arrival has one already.
    """
    document = parse_object(body)
    # Nearly all, where that is pushed; and of three fields none is another form's.
    if nb.accepts(document) and (len(document) == 3 or _OTHERS.isdisjoint(document)):
        return nb.accept_valid(document, body)
    for form in FORMS:
        if form.claims(document):
            try:
                return form.accept(document, body, arrival_id)
            except NotANotificationError as error:
                raise _refusal(form, error.reasons) from None
    for form in FORMS:
        if form.resembles(document) and (reasons := form.reasons_against(document)):
            raise _refusal(form, reasons)
    raise NotANotificationError(
        ["has none of the fields that say what it is", *nb.FORM.reasons_against(document)]
    )


def documented(type_: str) -> Documented | None:
    """How bodies of an entry's type are put into the documented shape; `None` where not at all."""
    return next((found for form in FORMS if (found := form.documented(type_)) is not None), None)


def _refusal(form: Form, reasons: list[str]) -> NotANotificationError:
    """Says what a body looks like, then what is wrong with it."""
    missing = [reason.removesuffix(_MISSING) for reason in reasons if reason.endswith(_MISSING)]
    without = f" without {', '.join(missing)}" if missing else ""
    return NotANotificationError([f"looks like {form.title}{without}", *reasons])
