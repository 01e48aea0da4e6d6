"""Hostlists: every rule with its expected result."""

from __future__ import annotations

import pytest

from wwfast.config.checks import shown
from wwfast.errors import UsageError
from wwfast.nodes.hostlist import compress, expand


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["n1,n2"], "n1 n2"),
        (["n1,"], "n1"),
        (["n[1-3]"], "n1 n2 n3"),
        (["n[1,3]"], "n1 n3"),
        (["n[1,5-6]"], "n1 n5 n6"),
        (["n[3,1,1]"], "n3 n1 n1"),
        (["n[01-03]"], "n01 n02 n03"),
        (["n[8-10]"], "n8 n9 n10"),
        (["n[08-11]"], "n08 n09 n10 n11"),
        (["r[1-2]-n[3-4]"], "r1-n3 r1-n4 r2-n3 r2-n4"),
        (["n[1-2].cl"], "n1.cl n2.cl"),
        (["n[-1]"], "n0 n1"),
        (["a", "b[1,2],c"], "a b1 b2 c"),
        ([], ""),
    ],
)
def test_expand(words: list[str], names: str) -> None:
    assert expand(words) == names.split()


BAD = [
    "n[1-2-3]", "n[a-b]", "n[1,]", "n[1", "n1]", "n]1[", "n[1[2]]", "n[]", "n[4-1]", "n[1,9-8]", "n[1-010]", "n[--1]",
    "n[1-]", "n[+1]", "n[1.5]", "n[1-3]x]", "n[\u0661-\u0663]", "n[1-3]]", "n[[1-3]]", "n[0x1-0x3]", "n[1;3]", "n[,]",
]  # fmt: skip


@pytest.mark.parametrize("word", [*BAD, "n[1 -2]", "n[1\n]", "n[1-3\n]"])
def test_a_bad_bracket_is_an_error_that_names_it(word: str) -> None:
    """W-75: there one bad bracket disables expansion of the whole list, or is dropped silently."""
    with pytest.raises(UsageError) as caught:
        expand(["good[1-2]", word])
    assert shown(word) in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "word",
    [
        "n[1-9999999]",
        "n[1-2000]-[1-2000]",
        "n[0-99999999999999999999]",
        f"n[{'9' * 5000}]",
        f"n[0-{'9' * 5000}]",
        f"n[{','.join(['1-1000000'] * 50)}]",
        f"{'n' * 254}[1-999999]",
    ],
)
def test_a_range_too_large_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"larger than|more than|longer than"):
        expand([word])


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("n01 n02 n03 n05", "n[01-03,05]"),
        ("n1 n2 n3", "n[1-3]"),
        ("login n2 n1", "login,n[1-2]"),
        ("n7", "n7"),
        ("n08 n09 n10", "n[08-10]"),
        ("a1 b1 a2", "a[1-2],b1"),
        ("", ""),
    ],
)
def test_compress(names: str, text: str) -> None:
    assert compress(names.split()) == text
    assert sorted(expand([text])) == sorted(names.split())
