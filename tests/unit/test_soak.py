"""The judge of a soak sees an answer that is too old or too new, and no other."""

from __future__ import annotations

import pytest

from support.soak import GRACE, NODES, OVERLAY, Change, Poller, Seen, judge

CHANGES = [Change(NODES, 1, 0.0, 0.1), Change(OVERLAY, 1, 0.0, 0.1), Change(NODES, 2, 10.0, 11.0)]


@pytest.mark.parametrize(
    ("number", "asked", "answered"),
    [
        (1, 5.0, 5.1),  # the only one
        (1, 9.0, 9.9),  # the next one has not begun
        (2, 9.9, 10.1),  # it began while the answer was on its way
        (1, 11.0 + GRACE - 0.1, 14.0),  # it has just ended
        (2, 11.0 + GRACE + 0.1, 14.0),
    ],
)
def test_soak_takes_what_may_be_true(number: int, asked: float, answered: float) -> None:
    assert judge(CHANGES, [Seen(NODES, number, asked, answered)]) == []


@pytest.mark.parametrize(
    ("number", "asked", "answered"),
    [(1, 11.0 + GRACE + 0.1, 14.0), (2, 9.0, 9.9), (0, 5.0, 5.1), (3, 100.0, 100.1)],
)
def test_soak_names_what_is_stale_or_from_nowhere(number: int, asked: float, answered: float) -> None:
    assert len(judge(CHANGES, [Seen(NODES, number, asked, answered)])) == 1


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ((500, "", b""), "status 500"),
        ((304, '"a"', b""), "status 304"),  # to a question without a tag
        ((200, '"a"', b"no archive"), "ReadError"),
    ],
)
def test_soak_counts_a_wrong_answer(
    answer: tuple[int, str, bytes], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = Poller("127.0.0.1", 9, 1)
    monkeypatch.setattr(poller, "ask", lambda *_: answer)
    assert poller.poll(0, "runtime") == []
    assert wrong in poller.wrong[0]


def test_soak_counts_two_contents_of_one_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    import zstandard

    poller = Poller("127.0.0.1", 9, 1)
    for text in (b"generation 1\nTRAILER!!!", b"generation 2\nTRAILER!!!"):
        body = zstandard.compress(text)
        monkeypatch.setattr(poller, "ask", lambda *_, body=body: (200, '"a"', body))
        poller.poll(0, "image")
    assert "another content" in poller.wrong[0]
