"""Unfinished work is swept, locks are private, and what fails or changes nothing leaves nothing."""

from __future__ import annotations

import inspect
import io
import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from support.everycommand import in_child
from wwfast.cli.main import main
from wwfast.errors import WwfastError
from wwfast.paths import Paths
from wwfast.system import locks, work
from wwfast.system import run as program

NODES = "nodes:\n  n1: {comment: a}\n"


def run(paths: Paths, *words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["--root", str(paths.root), *words])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_a_command_sweeps_what_a_killed_one_left_and_no_file_of_an_editor(paths: Paths) -> None:
    paths.nodes_conf.write_text(NODES)
    own = (paths.etc / ".nodes.conf.swp", paths.etc / ".nodes.conf.rest", paths.etc / ".#nodes.conf")
    for file in own:
        file.write_text("an editor's")
    places = [place for place in paths.workplaces() if place != paths.etc / "keys"]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        if os.fork() == 0:  # a writer that is killed on the way
            work.begun(place, is_folder=True)[0].joinpath("secret").write_text("x")
            work.begun(place, is_folder=False)
            os._exit(0)
        os.wait()
    with work.file(paths.state) as (held, _):
        assert run(paths, "node", "set", "n1", "--comment", "b", "--yes") == 0
        assert list(paths.root.rglob(work.PREFIX + "*")) == [held]
    assert all(file.exists() for file in own)


def test_nobody_else_can_hold_a_lock(paths: Paths) -> None:
    paths.nodes_conf.write_text(NODES)
    for place in paths.own:
        place.mkdir(parents=True)
        place.chmod(0o755)
    loose = paths.state / "nodes.lock"
    loose.touch(mode=0o644)
    assert run(paths, "node", "set", "n1", "--comment", "b", "--yes") == 0
    with locks.locked(paths.run / "images", "deb", "test"):
        found = [loose, paths.run / "images/deb.lock"]
        assert [stat.S_IMODE(file.stat().st_mode) for file in found] == [0o600, 0o600]
    assert [stat.S_IMODE(place.stat().st_mode) for place in (*paths.own, paths.run / "images")] == [0o700] * 4


@pytest.mark.parametrize(
    "line",
    [
        "chmod hosts etc/hosts.j2 0644",
        "mkdir hosts etc 0755",
        "mkdir hosts etc/hosts.j2/below",
        "import hosts /etc/hostname etc/none/x",
        "import hosts /nothere etc/x",
        "delete hosts etc",
    ],
)
def test_an_overlay_change_that_fails_or_changes_nothing_makes_no_copy(paths: Paths, line: str) -> None:
    run(paths, "overlay", *line.split())
    assert not paths.site_overlays.exists() or not list(paths.site_overlays.iterdir())


def test_node_edit_loses_no_concurrent_change(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.nodes_conf.write_text(NODES)
    editor = tmp_path / "editor"
    editor.write_text(
        f"#!/bin/sh\nsed -i 's/a/mine/' \"$1\"\necho '{NODES.replace(': a', ': theirs')}' > {paths.nodes_conf}\n"
    )
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    assert run(paths, "node", "edit", "n1", "--noheader", "--yes") == 1
    said = capsys.readouterr().err
    assert "n1 was changed by someone else meanwhile" in said
    assert "theirs" in paths.nodes_conf.read_text()
    [kept] = (paths.state / "edited").iterdir()
    assert f"what you wrote is in {kept}" in said
    assert "mine" in kept.read_text()
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_node_edit_keeps_a_text_that_is_refused(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.nodes_conf.write_text(NODES)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf 'n1:\\n  profiles: [nothere]\\n' >\"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    assert run(paths, "node", "edit", "n1", "--noheader", "--yes") == 1
    [kept] = (paths.state / "edited").iterdir()
    assert f"what you wrote is in {kept}" in capsys.readouterr().err
    assert "nothere" in kept.read_text()


@pytest.mark.parametrize(
    ("said", "second"), [("n", "exit 0"), ("", "exit 0"), ("y", "exit 1"), ("y", 'rm "$1"')],
    ids=["no", "no answer", "the editor fails", "the editor removes it"],
)  # fmt: skip
def test_node_edit_keeps_a_text_that_is_not_edited_again(
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str,
    second: str,
) -> None:
    paths.nodes_conf.write_text(NODES)
    editor = tmp_path / "editor"
    wrote = "echo 'n1: [an hour of work' >\"$1\""
    editor.write_text(f"#!/bin/sh\n[ -e {tmp_path}/once ] && {{ {second}; exit; }}\ntouch {tmp_path}/once\n{wrote}\n")
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{said}\n" if said else ""))
    assert run(paths, "node", "edit", "n1", "--noheader") == 1
    [kept] = (paths.state / "edited").iterdir()
    assert f"what you wrote is in {kept}" in capsys.readouterr().err
    assert kept.read_text() == "n1: [an hour of work\n"
    assert paths.nodes_conf.read_text() == NODES


def test_a_program_that_hangs_is_ended_and_named() -> None:
    assert inspect.signature(program.run).parameters["timeout"].default  # whoever says nothing gets a limit
    with pytest.raises(WwfastError, match=r"sleep did not finish within 0\.05 s: sleep 60"):
        program.run(["sleep", "60"], timeout=0.05)


@pytest.mark.root
def test_a_tree_of_somebody_who_is_not_root_is_removed_whatever_its_modes(tmp_path: Path) -> None:
    """Images unpacked without root hold directories that nobody may write into."""
    place = tmp_path / "own"
    place.mkdir()
    os.chown(place, 65534, 65534)
    for above in (tmp_path, *tmp_path.parents):
        if above.is_relative_to(Path(tempfile.gettempdir())) and above != Path(tempfile.gettempdir()):
            above.chmod(0o755)

    def as_somebody() -> bool:
        os.setgid(65534)
        os.setuid(65534)
        (place / "tree/closed").mkdir(parents=True)
        (place / "tree/closed/file").touch()
        (place / "tree/closed").chmod(0o555)
        (place / "tree").chmod(0o555)
        work.remove(place / "tree")
        return not (place / "tree").exists()

    assert in_child(as_somebody)
