"""Open files of artefacts: what was removed or replaced is not held open for long, what is in use always is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from wwfast.net.http.files import FileCache


def held(folder: Path) -> list[str]:
    """Files of `folder` that this process has open, removed ones too."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            found.append(str(entry.readlink()))
    return [name for name in found if name.startswith(f"{folder}/")]


def test_http_removed_builds_are_not_held_open(tmp_path: Path) -> None:
    cache = FileCache()
    kept = [tmp_path / f"kept{number}" for number in range(3)]
    for file in kept:
        file.write_bytes(b"kept")
        cache.open(str(file)).release()
    for number in range(200):
        build = tmp_path / f"build{number}"
        build.write_bytes(b"build")
        cache.open(str(build)).release()
        os.link(build, tmp_path / "another name")  # builds share files: what is gone is the path
        build.unlink()
        (tmp_path / "another name").unlink()
        assert len(held(tmp_path)) <= 12
    assert {str(file) for file in kept} <= set(held(tmp_path))


def test_http_a_removed_file_stays_open_for_whom_it_was_opened(tmp_path: Path) -> None:
    cache = FileCache()
    first = tmp_path / "first"
    first.write_bytes(b"under way")
    transfer = cache.open(str(first))
    first.unlink()
    for number in range(20):
        other = tmp_path / f"other{number}"
        other.touch()
        cache.open(str(other)).release()
    assert os.pread(transfer.fd, 100, 0) == b"under way"
    transfer.release()
    assert f"{first} (deleted)" not in held(tmp_path)
