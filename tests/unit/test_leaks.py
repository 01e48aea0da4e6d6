"""What is left open is found, and native objects that could not begin leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import leaks
from wwfast._ext.newc import DEBUG
from wwfast._ext.pump import Pump
from wwfast._ext.tftp import Engine
from wwfast._ext.tftpload import Crowd
from wwfast._ext.tree import Tree
from wwfast.system.watch import Watch


def test_leaks_of_descriptors_and_native_objects_are_found() -> None:
    before = leaks.held()
    watch, pump = Watch(), Pump(1)
    assert {name for name in (leaks.held() - before) if name[0] == "a"} == {
        "anon_inode:inotify", "anon_inode:[eventfd]", "anon_inode:[eventpoll]"
    }  # fmt: skip
    assert (leaks.natives() - before)["Pump"] == DEBUG
    watch.close()
    pump.close()
    assert leaks.natives()["Pump"] == DEBUG
    del pump
    assert not leaks.held() - before


@pytest.mark.parametrize("more", range(6))
@pytest.mark.parametrize(
    "make", [Pump, lambda: Engine(()), lambda: Crowd(0, 1, b"", b"", count=4)], ids=["Pump", "Engine", "Crowd"]
)
def test_leaks_are_none_where_descriptors_were_out_half_way(make: Callable[[], object], more: int) -> None:
    before = leaks.held()
    with leaks.descriptors_at_most(more):
        try:
            made = make()
        except (OSError, MemoryError):
            made = None
    del made
    assert not leaks.held() - before


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tree(None),  # type: ignore[arg-type]
        lambda: Tree("/", None),  # type: ignore[arg-type]
        lambda: Tree("/nonexistent"),
        lambda: Engine((), 1),  # type: ignore[call-arg,misc]
        lambda: Engine((-1,)),
        lambda: Crowd("", ""),  # type: ignore[call-arg,arg-type]
        lambda: Pump("many"),  # type: ignore[arg-type]
        lambda: Pump(0),
    ],
)  # fmt: skip
def test_leaks_nor_is_a_descriptor_of_others_closed_by_what_could_not_begin(make: Callable[[], object]) -> None:
    """The first of all is 0: an object of zeros that closes what it has closes that."""
    before = leaks.held()
    with pytest.raises((TypeError, ValueError, OSError)):
        make()
    assert leaks.held() == before


def test_leaks_a_tree_gives_back_what_it_opened(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = leaks.held()
    tree = Tree(tmp_path)
    tree.walk()
    assert (leaks.natives() - before)["Tree"] == DEBUG
    del tree
    assert not leaks.held() - before
