"""Folders of our own are nobody else's, and what fails names its place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from wwfast.system.folders import folder, naming, new_folder, tighten


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def test_folders_that_are_made_are_ours_alone_and_those_there_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    assert folder(tmp_path / "there/a/b") == tmp_path / "there/a/b"
    assert [mode(tmp_path / "there" / name) for name in ("", "a", "a/b")] == [0o755, 0o700, 0o700]
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=f"{tmp_path}/file"):
        folder(tmp_path / "file")


def test_folders_are_tightened_and_nothing_else_is(tmp_path: Path) -> None:
    for name, bits in (("open", 0o755), ("group", 0o2750), ("ours", 0o700), ("elsewhere", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(bits)
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o644)
    (tmp_path / "link").symlink_to("elsewhere")
    tighten(*(tmp_path / name for name in ("open", "group", "ours", "file", "link", "none")))
    modes = {name: mode(tmp_path / name) for name in ("open", "group", "ours", "file", "elsewhere")}
    assert modes == {"open": 0o700, "group": 0o2700, "ours": 0o700, "file": 0o644, "elsewhere": 0o755}


@pytest.mark.parametrize("was", [True, False])
def test_folder_that_was_made_for_what_failed_goes_again(tmp_path: Path, was: bool) -> None:
    place = tmp_path / "place"
    if was:
        place.mkdir()
    with pytest.raises(FileExistsError), new_folder(place):
        place.mkdir()
    assert place.exists() is was
    with new_folder(place):
        pass
    assert place.is_dir()


def test_what_fails_in_a_file_without_a_name_names_the_place(tmp_path: Path) -> None:
    for named in (None, "another"):
        with pytest.raises(OSError, match="No space") as failed, naming(tmp_path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), named)
        assert failed.value.filename == (named or str(tmp_path))
