"""Files that are written whole: in the order that a power cut at any moment allows; and what is kept in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wwfast.system import files, records


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What reaches the disk, as it happens: the name of the call, and of its file."""
    seen: list[tuple[str, str]] = []

    def noted(name: str, real: Callable[..., Any], named: Callable[..., str]) -> None:
        def call(*args: Any, **more: Any) -> Any:
            seen.append((name, named(*args)))
            return real(*args, **more)

        monkeypatch.setattr(os, name, call)

    noted("fsync", os.fsync, lambda fd: Path(f"/proc/self/fd/{fd}").resolve().name)
    noted("rename", os.rename, lambda old, new, **_: f"{Path(old).name} -> {Path(new).name}")
    return seen


@pytest.mark.parametrize("former", [None, b"old"])
def test_system_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_is_done(
    tmp_path: Path, calls: list[tuple[str, str]], former: bytes | None
) -> None:
    target = tmp_path / "target"
    if former is not None:
        target.write_bytes(former)
    files.replace(target, b"new")
    (first, fresh), (second, renamed), (third, place) = calls
    assert (first, second, third) == ("fsync", "rename", "fsync")
    assert (renamed, place) == (f"{fresh} -> target", tmp_path.name)
    assert target.read_bytes() == b"new"


def test_system_file_that_need_not_last_waits_for_no_disk(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    files.replace(tmp_path / "target", b"new", durable=False)
    assert [name for name, _ in calls] == ["rename"]


def test_system_part_of_a_file_ends_where_the_file_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789" * 200_000)
    parts = list(files.read_part(tmp_path / "file", 5, 3 << 20))
    assert b"".join(parts) == (b"0123456789" * 200_000)[5:]
    assert max(map(len, parts)) == files.PIECE
    assert b"".join(files.read_part(tmp_path / "file", 3, 4)) == b"3456"


class Kept(msgspec.Struct):
    names: dict[str, tuple[str, ...]]


@given(st.dictionaries(st.binary(), st.lists(st.binary() | st.just(b"\\udcff"))))
def test_records_hold_names_that_are_not_utf8_and_refuse_what_is_damaged(names: dict[bytes, list[bytes]]) -> None:
    kept = Kept({os.fsdecode(name): tuple(map(os.fsdecode, more)) for name, more in names.items()})
    data = records.encode(kept)
    assert records.decode(data, Kept) == kept
    for cut in (data[:-1], data.replace(b'"names"', b'"other"', 1), data[:-1] + b"\xff", data + b"\\udc"):
        with pytest.raises(msgspec.DecodeError):
            records.decode(cut, Kept)
