"""Names of dead letters."""

from __future__ import annotations

import pytest

from bridge.errors import UsageError
from bridge.operations.dead_letters import Place


def test_a_name_is_a_partition_and_an_id() -> None:
    place = Place.of("3/1714564800000-7")
    assert place == (3, b"1714564800000-7")
    assert place.at_ms == 1714564800000
    assert str(place) == "3/1714564800000-7"


@pytest.mark.parametrize(
    "name", ["", "3", "3/", "/1-0", "3/1", "x/1-0", "3/1-x", "3/-0", "-3/1-0", "3/1-0/4", "٣x/1-0"]
)
def test_what_is_not_a_name_is_wrong_use(name: str) -> None:
    with pytest.raises(UsageError, match="PARTITION/ID"):
        Place.of(name)
