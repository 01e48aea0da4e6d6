"""The memory that nodes reported: kept by node, bounded by nodes, whole on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from wwfast.errors import WwfastError
from wwfast.nodes.machines import MOST, Machines, read


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path / "state/machines.json")


def test_machines_keep_what_was_told_last(machines: Machines, tmp_path: Path) -> None:
    machines.load()
    assert (machines.memory("n1"), machines.changed) == (0, False)
    machines.tell("n1", 4096)
    machines.tell("n2", 2048)
    machines.unheard.update(["n1", "n3"])
    machines.save(lambda node: node == "n1")
    assert read(tmp_path / "state/machines.json") == {"n1": 4096}
    assert (machines.memory("n1"), machines.memory("n2")) == (4096, 0), "one that is gone is forgotten"
    assert machines.unheard == {"n1"}
    again = Machines(tmp_path / "state/machines.json")
    again.load()
    assert again.memory("n1") == 4096


def test_machines_write_nothing_for_what_is_the_same_told_in_another_way(machines: Machines) -> None:
    machines.tell("n1", 4096)
    machines.save(lambda _: True)
    for memory in (4095, 4090, 4140, 0, -5, MOST + 1):
        machines.tell("n1", memory)
    assert (machines.memory("n1"), machines.changed) == (4096, False)
    machines.tell("n1", 3968)
    assert (machines.memory("n1"), machines.changed) == (3968, True)


def test_machines_of_a_predecessor_are_written_again(machines: Machines) -> None:
    machines.tell("n1", 4096)
    heir = Machines(Path("/nowhere"))
    heir.adopt(machines.export())
    assert (heir.memory("n1"), heir.changed) == (4096, True)


def test_machines_that_cannot_be_written_are_tried_again(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    machines = Machines(tmp_path / "state/machines.json")
    machines.tell("n1", 4096)
    with pytest.raises(OSError, match="state"):
        machines.save(lambda _: True)
    assert machines.changed


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"n1": "x"}', b'{"n1": -1}', b'{"n1": 1e30}', b"\xff\x00"])
def test_machines_file_that_is_damaged_is_named(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "machines.json"
    file.write_bytes(data)
    with pytest.raises(WwfastError, match="cannot read") as caught:
        read(file)
    assert str(file) in (caught.value.hint or "")
