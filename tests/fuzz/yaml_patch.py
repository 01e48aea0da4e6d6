"""nodes.conf: refused or read, alike by both readers; an edit touches nothing else, or is refused."""

from __future__ import annotations

from wwfast.config.yaml import Tree
from wwfast.errors import WwfastError
from wwfast.nodes.edit.store import Draft
from wwfast.nodes.text.source import NODES, SECTIONS, Source, whole

TOKENS = (
    b"nodes:\n", b"nodeprofiles:\n", b"  n1:\n", b"    comment: x\n", b"    tags: {a: b}\n",
    b"    profiles:\n    - default\n", b"&a ", b"*a", b"<<: ", b"# c\n", b"'", b'"', b"|\n", b">-\n", b"{", b"}",
    b"[", b"]", b"\t", b"\r\n", b"- ", b": ", b"? ", b"---\n", b"...\n", b"!!str ", b"\xef\xbb\xbf", "\x85".encode(),
    "\u2028".encode(), b"{}\n", b"~", b"network devices:\n",
)  # fmt: skip
FRESH: Tree = {"comment": "new # text", "tags": {"a": "1"}}


def one(data: bytes) -> None:
    """The first byte chooses the edit: bits for a node that is made, one that is changed, one that is taken out."""
    how, text = data[0] if data else 0, data[1:]
    try:
        source = Source.parse(text, "nodes.conf")
        trees = {section: dict(source.trees[section]) for section in SECTIONS}
    except WwfastError:
        return
    assert trees == {section: dict(tree) for section, tree in whole(text, "nodes.conf")[0].items()}
    names = list(trees[NODES])
    draft = Draft(source)
    expected = dict(trees[NODES])
    if how & 1:
        draft.put(NODES, "fuzzed", FRESH)
        expected["fuzzed"] = FRESH
    if how & 2 and names:
        draft.put(NODES, names[0], FRESH)
        expected[names[0]] = FRESH
    if how & 4 and names:
        draft.put(NODES, names[-1], None)
        del expected[names[-1]]
    try:
        result = draft.result()
    except WwfastError:
        return
    assert dict(result.trees[NODES]) == expected
    assert dict(Source.parse(result.data, "nodes.conf").trees[NODES]) == expected
