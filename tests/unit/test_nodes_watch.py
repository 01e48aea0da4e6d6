"""inotify: writes in place and by rename are seen, other files are not."""

from __future__ import annotations

import select
from pathlib import Path

import pytest

from wwfast.errors import WwfastError
from wwfast.nodes.watch import EVENT, Watch, events


def changed(watch: Watch) -> set[Path]:
    assert select.select([watch], [], [], 5)[0]
    return watch.read()


def test_nodes_watch_sees_a_write_and_a_rename(tmp_path: Path) -> None:
    file, other = tmp_path / "nodes.conf", tmp_path / "other"
    file.write_text("a")
    watch = Watch([file], [])
    other.write_text("x")
    file.write_text("b")
    assert changed(watch) == {file}
    other.rename(file)
    assert changed(watch) == {file}
    assert watch.read() == set()
    watch.close()


def test_nodes_watch_follows_a_link_and_directories(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "real/nodes.conf").write_text("a")
    link = tmp_path / "etc/nodes.conf"
    link.symlink_to(tmp_path / "real/nodes.conf")
    images = tmp_path / "images"
    images.mkdir()
    watch = Watch([link], [images])
    (tmp_path / "real/nodes.conf").write_text("b")
    assert changed(watch) == {link}
    (images / "new").mkdir()
    assert changed(watch) == {images}
    watch.close()


def test_nodes_watch_names_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(WwfastError, match="nowhere: cannot be watched: No such file"):
        Watch([tmp_path / "nowhere/nodes.conf"])


def test_nodes_watch_events_are_parsed_one_by_one() -> None:
    data = EVENT.pack(1, 8, 0, 16) + b"nodes.conf".ljust(16, b"\0") + EVENT.pack(-1, 0x4000, 0, 0)
    assert list(events(data)) == [(1, 8, "nodes.conf"), (-1, 0x4000, "")]
