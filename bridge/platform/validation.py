"""What the schemas of all forms are made of, and the same checks without the cost of a schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, validate

MAX_IDENTIFIER_CHARS: Final = 256
MAX_CODE_CHARS: Final = 64
MAX_TYPE_CHARS: Final = 128


def text_field(max_chars: int, *, min_chars: int = 1) -> fields.String:
    """A mandatory text of so many characters that has a UTF-8 form."""
    return fields.String(
        required=True, validate=[validate.Length(min=min_chars, max=max_chars), _is_unicode_text]
    )


def _is_unicode_text(value: str) -> None:
    # json.loads lets "\ud800" through; it has no UTF-8 form, so no key and no digest either.
    if not _encodes(value):
        raise ValidationError("Not valid Unicode text (a lone surrogate).")


def is_text(value: object, max_chars: int, *, min_chars: int = 1) -> bool:
    """Whether a `text_field` with these bounds would take `value`."""
    return (
        type(value) is str
        and min_chars <= len(value) <= max_chars
        and (value.isascii() or _encodes(value))
    )


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_field(max_chars: int, *, other_than: Collection[str] = ()) -> fields.String:
    """A text that is part of an entry's type, in which a colon separates what senders wrote.

    `other_than` are names that stand for something else there.
    """
    return fields.String(
        required=True,
        validate=[
            validate.Length(min=1, max=max_chars),
            _is_unicode_text,
            validate.Regexp("^[^:]*$", error="Not a name: it has a colon."),
            validate.NoneOf(other_than, error="Not a name: it stands for another form."),
        ],
        # What a description would otherwise not have of them.
        metadata={"not": {"enum": list(other_than)}} if other_than else {},
    )


def is_name(value: object, max_chars: int, *, other_than: Collection[str] = ()) -> bool:
    """Whether a `name_field` like this would take `value`."""
    return is_text(value, max_chars) and ":" not in str(value) and value not in other_than


def longest(schema: Schema, name: str) -> int:
    """The upper bound of a text, for the checks that are derived from it."""
    for validator in schema.fields[name].validators:
        if isinstance(validator, validate.Length) and validator.max is not None:
            return validator.max
    raise TypeError(f"{type(schema).__name__}.{name} has no maximum length")


def reasons_against(document: Mapping[str, Any], schema: Schema) -> list[str]:
    """What a schema says against `document`, one `path: message` line per problem."""
    errors = schema.validate(document)
    return sorted(_flatten(errors)) if errors else []


def _flatten(errors: Mapping[Any, Any] | list[Any], path: str = "") -> list[str]:
    if isinstance(errors, Mapping):
        lines = []
        for name, below in errors.items():
            inner = path if name == "_schema" else f"{path}.{name}" if path else str(name)
            lines += _flatten(below, inner)
        return lines
    return [f"{path}: {message}" for message in errors]
