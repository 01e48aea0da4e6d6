"""Places that strangers take: bounded for one of them and for all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wwfast.net.shares import Shares


def test_shares_one_holder_alone_gets_half_and_the_rest_is_for_others() -> None:
    shares = Shares(100)
    assert sum(shares.take("greedy") for _ in range(1000)) == 50
    assert shares.refused == 950
    assert all(shares.take(name) for name in range(25))


@given(st.lists(st.integers(0, 9), max_size=300), st.integers(2, 60))
def test_shares_are_bounded_and_a_newcomer_finds_room(takes: list[int], limit: int) -> None:
    shares = Shares(limit)
    held = [holder for holder in takes if shares.take(holder)]
    assert len(held) == shares.total <= limit
    if len(set(held)) < limit // 2:
        assert shares.take("newcomer")
        shares.give("newcomer")
    for holder in held:
        shares.give(holder)
    assert (shares.total, shares.taken) == (0, {})
