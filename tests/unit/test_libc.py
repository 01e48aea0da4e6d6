"""System calls that Python has none of: what fails says why, as Python's own do."""

from __future__ import annotations

from pathlib import Path

import pytest

from wwfast.system import libc


def test_libc_exchange_of_two_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    libc.exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["2", "1"]


def test_libc_failures_are_errors_of_the_system_with_their_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        libc.exchange(tmp_path / "a", tmp_path / "b")
