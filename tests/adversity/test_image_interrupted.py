"""Ctrl-C, SIGTERM and a hangup in the middle of an import or a build: nothing is left, and the image is as it was."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from support.oci import facts, small_tree, tar_of
from support.patience import until
from wwfast.images.sources.importing import import_image
from wwfast.images.sources.options import Options
from wwfast.images.store import ImageStore
from wwfast.paths import Paths
from wwfast.system.run import start


@pytest.mark.parametrize("how", [(), ("--update",)], ids=["replace", "update"])
def test_image_is_imported_from_a_pipe(paths: Paths, tmp_path: Path, how: tuple[str, ...]) -> None:
    tree = small_tree(tmp_path / "tree")
    import_image(paths, str(tree), "old", Options())
    (tree / "etc/new").write_text("new")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(tar_of(tree)))
    writer.start()
    made = import_image(paths, str(pipe), "old", Options(), update=bool(how), force=not how)
    writer.join()
    assert facts(made.rootfs) == facts(tree)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("how", ["--force", "--update"])
def test_image_import_interrupted_leaves_nothing_behind(
    paths: Paths, tmp_path: Path, number: signal.Signals, how: str
) -> None:
    tree = small_tree(tmp_path / "tree")
    import_image(paths, str(tree), "old", Options())
    before = facts(ImageStore(paths).get("old").rootfs)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = ["image", "import", how, str(pipe), "old"]
    begin = "import signal; signal.signal(2, signal.default_int_handler); from wwfast.cli.main import main; main()"
    process = start([sys.executable, "-c", begin, "--root", paths.root, *words], tied=True)
    with pipe.open("wb", buffering=0) as out:  # which the writer keeps open: the import waits for more
        out.write(tar_of(tree)[:400_000])
        until(lambda: list(paths.chroots.glob(".*/archive/etc")), 20.0)
        process.send_signal(number)
        until(lambda: process.poll() is not None, 20.0)
    assert process.returncode != 0
    assert [entry.name for entry in paths.chroots.iterdir()] == ["old"]
    assert facts(ImageStore(paths).get("old").rootfs) == before
    import_image(paths, str(tree), "old", Options(), force=True)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_image_build_interrupted_waits_for_no_other_program_and_leaves_none_running(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    import_image(paths, str(small_tree(tmp_path / "tree")), "old", Options())
    (tmp_path / "bin").mkdir()
    slow, noted = tmp_path / "bin/mksquashfs", tmp_path / "pid"
    slow.write_text(f'#!/bin/sh\necho begun > "$2"\necho $$ > {noted}.new\nmv {noted}.new {noted}\nexec sleep 7777\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    begin = "import signal; signal.signal(2, signal.default_int_handler); from wwfast.cli.main import main; main()"
    words = ["--root", paths.root, "image", "build", "--format", "squashfs", "old"]
    process = start([sys.executable, "-c", begin, *words], tied=True)
    try:
        until(noted.exists, 20.0)
        process.send_signal(number)
        until(lambda: process.poll() is not None, 20.0)
        until(lambda: gone(int(noted.read_text())), 20.0)
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert list((paths.images / "old").iterdir()) == []
