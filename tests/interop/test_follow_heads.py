"""A head that follows another one: two real servers, over loopback and TLS."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from support.daemon import MAC, NODES, overlay
from support.heads import Heads
from support.patience import until
from wwfast.images import building
from wwfast.nodes.edit.store import Store
from wwfast.nodes.text.source import NODES as SECTION

BOOT = ("ipxe", "kernel", "image", "system", "runtime")


@pytest.fixture
def heads(tmp_path: Path) -> Heads:
    return Heads(tmp_path)


def test_follow_serves_what_the_first_head_has_also_without_it(heads: Heads) -> None:
    with heads.leading() as first, heads.following() as second:
        for stage in BOOT[1:]:
            for query in ("", "?compress=gz"):
                one, other = (each.get(f"/{stage}/{MAC}{query}") for each in (first, second))
                assert (one[0], one[1]) == (other[0], other[1]), (stage, query)
        assert b"wwfast" in second.get(f"/ipxe/{MAC}")[1]
        revision = second.status()["following"]["revision"]
        [(_, peer)] = first.status()["peers"].items()
        assert (peer["revision"], peer["behind"], peer["silent"]) == (revision, 0.0, False)
    with heads.following() as second:
        assert second.get(f"/kernel/{MAC}")[1] == b"kernel" * 1000
        assert second.status()["following"]["revision"] == revision
        assert b"n1 of tiny\n" in gzip.decompress(second.get(f"/runtime/{MAC}?compress=gz")[1])
        until(lambda: "does not answer" in second.status()["following"]["said"])


def test_follow_takes_up_what_changes(heads: Heads) -> None:
    with heads.leading() as first, heads.following() as second:
        Store(heads.first).change(
            lambda draft: draft.get(SECTION, "n1").update({"kernel": {"args": ["loud"]}}), why="t"
        )
        until(lambda: b"loud" in second.get(f"/ipxe/{MAC}")[1])
        (heads.first.site_overlays / "motd/rootfs/etc/motd.j2").write_text("new of {{ id }}\n")
        until(lambda: b"new of n1\n" in gzip.decompress(second.get(f"/runtime/{MAC}?compress=gz")[1]))
        (heads.first.chroots / "tiny/rootfs/boot/vmlinuz-6.1.0-1").write_bytes(b"another")
        building.build(heads.first, "tiny")
        until(lambda: second.get(f"/kernel/{MAC}")[1] == b"another")
        assert first.get(f"/kernel/{MAC}")[1] == b"another"
        overlay(heads.first, "more", "{{ id }} and more\n")
        heads.first.nodes_conf.write_text(NODES.replace("runtime overlay: [motd]", "runtime overlay: [more]"))
        until(lambda: b"n1 and more\n" in gzip.decompress(second.get(f"/runtime/{MAC}?compress=gz")[1]))
