"""How a parked message is written, and what is made of one that was cut or changed."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.contract.meta import ContractError
from consumers.worker.recording import netstrings

strings = st.lists(st.binary(max_size=40))


@given(strings)
@example([])
@example([b""])
@example([b"5:hello,", b",", b":"])
def test_strings_read_as_they_were_written(them: list[bytes]) -> None:
    assert netstrings.decode(netstrings.encode(them)) == them


@given(strings, st.integers(min_value=0))
def test_what_is_cut_short_is_shorter_or_no_netstrings(them: list[bytes], at: int) -> None:
    whole = netstrings.encode(them)
    cut = whole[: at % (len(whole) + 1)]
    try:
        read = netstrings.decode(cut)
    except ContractError:
        return
    assert read == them[: len(read)]
    assert netstrings.encode(read) == cut


@given(st.binary(max_size=30))
def test_whatever_is_in_a_list_is_read_or_against_the_contract(raw: bytes) -> None:
    try:
        netstrings.decode(raw)
    except ContractError:
        pass


@pytest.mark.parametrize("raw", [b"3:ab,", b"2:abc,", b":,", b"-1:,", b"ab", b"2:ab"])
def test_what_is_no_netstring_is_told(raw: bytes) -> None:
    with pytest.raises(ContractError):
        netstrings.decode(raw)
