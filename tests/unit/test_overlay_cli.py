"""The overlay commands: what they print, what they change, and that bad input costs one line and a hint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wwfast.cli.main import main
from wwfast.paths import Paths

Run = Callable[..., tuple[int, str, str]]

NODES = """\
nodeprofiles:
  all: {system overlay: [hostname, base], runtime overlay: [live]}
nodes:
  n1: {profiles: [all]}
  n2: {profiles: [all]}
"""


@pytest.fixture
def site(paths: Paths) -> Path:
    """Two nodes and two site overlays; -> the directory of site overlays."""
    paths.conf.write_text("ipaddr: 10.0.0.1/16\n")
    paths.nodes_conf.write_text(NODES)
    for name, text in (("base/rootfs/etc/motd", "hello\n"), ("live/rootfs/etc/who.j2", "{{ id }}\n")):
        file = paths.site_overlays / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(0o644)
    return paths.site_overlays


@pytest.fixture
def run(site: Path, paths: Paths, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a command line; -> status, stdout, stderr."""

    def call(line: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(paths.root), "overlay", *line.split()])
        out, err = capfdbinary.readouterr()
        return int(caught.value.code or 0), out.decode(), err.decode()

    return call


def ok(done: tuple[int, str, str]) -> str:
    assert done[0] == 0, done
    return done[1]


def editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    program = tmp_path / "editor"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(program))


def test_overlay_list_shows_overlays_and_files(run: Run, site: Path) -> None:
    lines = {line.split()[0]: line.split()[1:] for line in ok(run("list")).splitlines()}
    assert lines["base"] == ["2", "true"]
    assert lines["hostname"][1] == "false"
    assert ok(run("ls base -p")).splitlines()[2].split() == ["base", "2", str(site / "base")]
    assert [line.split() for line in ok(run("list -a base")).splitlines()[2:]] == [
        ["base", "etc/", "true"],
        ["base", "etc/motd", "true"],
    ]
    assert ok(run("list -l base")).splitlines()[3].split() == ["0644", "0", "0", "base", "etc/motd", "true"]
    shown = json.loads(ok(run("list --json base")))["base"]
    assert shown["site"]
    assert [entry["path"] for entry in shown["entries"]] == ["etc", "etc/motd"]


def test_overlay_show_prints_a_file_as_it_is_or_as_a_node_gets_it(run: Run, site: Path) -> None:
    (site / "base/rootfs/etc/link").symlink_to("motd")
    (site / "live/rootfs/etc/never.j2").write_text("{{ abort() }}")
    assert ok(run("show base etc/motd")) == ok(run("cat base /etc/motd")) == "hello\n"
    assert ok(run("show base etc/link")) == "-> motd\n"
    assert ok(run("show live etc/who")) == "{{ id }}\n"
    assert ok(run("show -q --render n2 live etc/who.j2")) == "n2\n"
    assert ok(run("show -r n1 live etc/who.j2")).splitlines() == [
        "backupFile: true",
        "writeFile: true",
        "Filename: /etc/who (mode 0644)",
        "n1",
    ]
    assert "aborted" in run("show -r n1 live etc/never.j2")[2]


def test_overlay_create_import_mkdir_delete(run: Run, site: Path, tmp_path: Path) -> None:
    source = tmp_path / "tool.sh"
    source.write_text("echo hi\n")
    source.chmod(0o750)
    ok(run("create tools"))
    ok(run(f"import --parents tools {source} usr/local/bin/"))
    there = site / "tools/rootfs/usr/local/bin/tool.sh"
    assert (there.read_text(), there.stat().st_mode & 0o777) == ("echo hi\n", 0o750)
    source.write_text("echo ho\n")
    assert run(f"import tools {source} usr/local/bin/")[0] == 2
    ok(run(f"cp --overwrite tools {source} usr/local/bin/"))
    assert there.read_text() == "echo ho\n"
    ok(run("mkdir -m 0700 tools var/lib/tools"))
    assert (site / "tools/rootfs/var/lib/tools").stat().st_mode & 0o777 == 0o700
    assert run("delete tools")[0] == 2
    ok(run("rm --parents tools usr/local/bin/tool.sh"))
    assert not (site / "tools/rootfs/usr").exists()
    ok(run("delete tools"))
    assert not (site / "tools").exists(), "there were only directories left"
    ok(run("create tools"))
    ok(run(f"import --parents tools {source} usr/local/bin/"))
    ok(run("delete --force tools"))
    assert not (site / "tools").exists()


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_overlay_what_nodes_get_depends_on_no_umask(run: Run, site: Path, tmp_path: Path, umask: int) -> None:
    source = tmp_path / "x.conf"
    source.write_text("x\n")
    source.chmod(0o644)
    before = os.umask(umask)
    try:
        ok(run("create fresh"))
        ok(run(f"import --parents fresh {source} /etc/site/x.conf"))
        ok(run("mkdir fresh /var/lib/x --mode 0775"))
        ok(run(f"import hostname {source} etc/x.conf"))
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(site)): path.stat().st_mode & 0o7777
        for name in ("fresh", "hostname")
        for path in [site / name, *(site / name).rglob("*")]
    }
    asked = {"fresh/rootfs/var/lib/x": 0o775}
    files = {path: 0o644 for path in modes if (site / path).is_file()}
    assert modes == dict.fromkeys(modes, 493) | files | asked
    assert len(files) == 3


def test_overlay_import_reads_a_pipe_to_its_end(
    run: Run, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"pool time.example\n")
    os.close(writing)
    ok(run(f"import --parents base /dev/fd/{reading} /etc/chrony.conf"))
    os.close(reading)
    made = site / "base/rootfs/etc/chrony.conf"
    assert (made.read_text(), made.stat().st_mode & 0o777) == ("pool time.example\n", 0o644)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fifo.write_bytes, b"from a fifo\n")
        ok(run(f"import --overwrite base {fifo} /etc/chrony.conf"))
    assert made.read_text() == "from a fifo\n"
    for line, said in (
        ("import base /dev/null", "has no name of its own"),
        ("import base /dev/null etc/", "name the file"),
        (f"import base {tmp_path} etc/x", "Is a directory"),
        (f"import base {tmp_path}/none etc/x", "No such file"),
    ):
        status, _, err = run(line)
        assert status in (1, 2), line
        assert said in err
    assert not (site / "base/rootfs/etc/x").exists()


def test_overlay_import_goes_to_the_path_that_was_said(
    run: Run, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the file and the directories above it are on this server; the content is what they lead to."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("content")
    (tmp_path / "dir").symlink_to("real")
    (tmp_path / "link").symlink_to("dir/file")
    monkeypatch.chdir(tmp_path)
    for said, path in (
        (f"{tmp_path}/link", "link"),
        (f"{tmp_path}/dir/file", "dir/file"),
        ("./real/../link", "link"),
        ("link", "link"),
    ):
        ok(run(f"import -p -o base {said}"))
        made = site / f"base/rootfs{tmp_path}/{path}"
        assert (made.is_symlink(), made.read_text()) == (False, "content"), said
        made.unlink()


def test_overlay_modes_never_go_through_a_link_out_of_the_overlay(run: Run, site: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o711)
    (outside / "file").write_text("x")
    (outside / "file").chmod(0o600)
    root = site / "base/rootfs"
    (root / "out").symlink_to(outside)
    (root / "link").symlink_to(outside / "file")
    for line in (
        "chmod base link 0777",
        "chmod base out 0777",
        "mkdir --mode 0777 base out",
        "mkdir base out/inner",
        "chmod base out/file 0777",
        "import base /etc/passwd out/passwd",
    ):
        status, _, err = run(line)
        assert status == 2, (line, err)
        assert "symbolic link" in err
    assert outside.stat().st_mode & 0o7777 == 0o711
    assert (outside / "file").stat().st_mode & 0o7777 == 0o600
    assert [path.name for path in outside.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "directory"])
def test_overlay_nothing_but_files_of_it_is_read(
    run: Run, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What a link leads to is the server's own, and never comes into an editor, an overlay or on a screen."""
    secret, entry = tmp_path / "secret.j2", site / "base/rootfs/etc/it.j2"
    if kind == "link":
        secret.write_text("{{ id }} {{ of_this_server }}\n")
        if os.geteuid() == 0:
            os.chown(secret, 7, 7)
    make = {"pipe": os.mkfifo, "directory": Path.mkdir}.get(kind, lambda it: it.symlink_to(secret))
    make(entry)
    before = entry.lstat().st_ino, entry.lstat().st_mode
    editor(monkeypatch, tmp_path, f'echo "$1" >>{tmp_path}/opened; echo x >>"$1"')
    for line in ("edit base etc/it.j2", "edit base etc/it", "edit -m 0600 base etc/it", "info base etc/it"):
        status, out, err = run(line)
        assert (status, "of_this_server" in out, "etc/it.j2 is a" in err) == (2, False, True), (line, out, err)
    shown = run("show base etc/it")
    assert shown[1] == (f"-> {secret}\n" if entry.is_symlink() else ""), shown
    assert not (tmp_path / "opened").exists()
    assert (entry.lstat().st_ino, entry.lstat().st_mode) == before
    if kind == "link":  # what replaces it takes nothing of the file that it leads to
        (tmp_path / "plain").write_text("x")
        ok(run(f"import --overwrite base {tmp_path}/plain etc/it.j2"))
        assert (entry.read_text(), entry.lstat().st_uid) == ("x", os.geteuid())
        assert "of_this_server" in secret.read_text()


def test_overlay_chmod_and_chown_change_what_nodes_get(run: Run, site: Path) -> None:
    ok(run("chmod base etc/motd 0600"))
    assert (site / "base/rootfs/etc/motd").stat().st_mode & 0o777 == 0o600
    own = f"{os.getuid()}:{os.getgid()}" if os.getuid() else "12:34"
    ok(run(f"chown base etc/motd {own}"))
    st = (site / "base/rootfs/etc/motd").stat()
    assert f"{st.st_uid}:{st.st_gid}" == own
    ok(run(f"import --overwrite base {__file__} etc/motd"))
    st = (site / "base/rootfs/etc/motd").stat()
    assert (f"{st.st_uid}:{st.st_gid}", st.st_size) == (own, Path(__file__).stat().st_size)
    if os.getuid() == 0:
        ok(run("chown base etc/motd :5"))
        assert (site / "base/rootfs/etc/motd").stat().st_gid == 5
        ok(run("chown base etc/motd 7:"))
        st = (site / "base/rootfs/etc/motd").stat()
        assert (st.st_uid, st.st_gid) == (7, 5)


def test_overlay_edit_writes_what_the_editor_leaves(
    run: Run, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = site / "base/rootfs/etc/motd"
    editor(monkeypatch, tmp_path, 'echo more >> "$1"')
    ok(run("edit base etc/motd"))
    assert file.read_text() == "hello\nmore\n"
    ok(run("edit --parents -m 0640 base etc/new/file"))
    new = site / "base/rootfs/etc/new/file"
    assert (new.read_text(), new.stat().st_mode & 0o777) == ("more\n", 0o640)
    assert run("edit base no/parents")[0] == 1
    editor(monkeypatch, tmp_path, "exit 0")
    assert "nothing changed" in ok(run("edit base etc/motd"))
    editor(monkeypatch, tmp_path, 'echo lost >> "$1"; exit 3')
    status, _, err = run("edit base etc/motd")
    assert status == 1
    assert "exit status 3; nothing was changed" in err
    assert file.read_text() == "hello\nmore\n"


@pytest.mark.parametrize(
    "mode", ["0_7_7_7", "+644", "-0", "0o644", "\uff14\uff14\uff14", "0999", "17777", "\u00b2", "''"]
)
def test_overlay_modes_are_octal_digits_alone(run: Run, site: Path, mode: str) -> None:
    before = tree(site)
    for line in (f"chmod base etc/motd -- {mode}", f"mkdir -m {mode} base etc/new", f"edit -m {mode} base etc/motd"):
        status, _, err = run(line)
        assert (status, "is not an octal mode" in err) == (2, True), (line, err)
    assert tree(site) == before


@pytest.mark.parametrize(
    "owner", ["1:\u00b2", "\uff14", "4294967295:7", "7:4294967295", "4294967296", "1_0", "+1", "1:-1", "1:2:3", ":"]
)
def test_overlay_owners_are_numbers_that_a_file_can_have(run: Run, site: Path, owner: str) -> None:
    status, _, err = run(f"chown base etc/motd -- {owner}")
    assert (status, "is not UID[:GID]" in err) == (2, True), err
    if os.geteuid() == 0:
        ok(run("chown base etc/motd 4294967294:4294967294"))
        assert (site / "base/rootfs/etc/motd").stat().st_gid == 4294967294


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in root.rglob("*")
    }


@pytest.mark.parametrize(
    "line",
    [
        "chmod hostname etc/hostname.j2 0600",
        "chown hostname etc/hostname 3:4",
        "mkdir hostname srv",
        "edit hostname etc/hostname",
        "import --parents hostname /etc/passwd",
        "delete hostname etc/hostname.j2",
    ],
)
def test_overlay_change_of_a_shipped_one_copies_it_to_the_site_first(
    run: Run, site: Path, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    if "chown" in line and os.geteuid() != 0:
        pytest.skip("needs root")
    editor(monkeypatch, tmp_path, 'echo more >> "$1"')
    shipped = paths.distribution_overlays / "hostname"
    before = tree(shipped)
    said = ok(run(line))
    assert tree(shipped) == before
    assert (site / "hostname/rootfs").is_dir()
    assert "delete" in line or "copied to the site overlays" in said
    assert ok(run("list hostname")).split()[-1] == "true"
    assert "hostname" in ok(run("diff"))


def test_overlay_edit_keeps_what_was_written_where_the_file_changed_meanwhile(
    run: Run, site: Path, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    motd = site / "base/rootfs/etc/motd"
    editor(monkeypatch, tmp_path, f'echo mine >"$1"; echo theirs >{motd}')
    status, _, said = run("edit base etc/motd")
    assert (status, motd.read_text()) == (1, "theirs\n")
    [kept] = (paths.state / "edited").iterdir()
    assert f"what you wrote is in {kept}" in said
    assert kept.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("-m 0999 base etc/motd", 2),
        ("base none/new", 1),
        ("-p base etc/motd/new", 1),
        ("base etc", 2),
        ("base .", 2),
        ("base ../x", 2),
        (f"base etc/{'x' * 256}", 1),
        (f"-p base {'x' * 256}/new", 1),
    ],
)
def test_overlay_edit_refuses_before_the_editor_opens(
    run: Run, site: Path, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, status: int
) -> None:
    editor(monkeypatch, tmp_path, f'touch {tmp_path}/opened; echo mine >"$1"')
    before = tree(site)
    assert run(f"edit {line}")[0] == status
    assert not (tmp_path / "opened").exists()
    assert tree(site) == before


@pytest.mark.parametrize("name", ["new", "x" * 255, "\u00e9" * 127])
def test_overlay_edit_keeps_a_text_that_cannot_be_written(
    run: Run, site: Path, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever fails once the editor is closed; and a file may have any name that a disk takes."""
    etc = site / "base/rootfs/etc"
    editor(monkeypatch, tmp_path, f'echo mine >"$1"; mv {etc} {etc}.away; echo a file >{etc}')
    status, _, said = run(f"edit base etc/{name}")
    assert status == 1, said
    [kept] = (paths.state / "edited").iterdir()
    assert f"what you wrote is in {kept}" in said
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("mine\n", 0o600)
    editor(monkeypatch, tmp_path, 'echo mine >"$1"')
    etc.unlink()
    etc.mkdir()
    ok(run(f"edit base etc/{name}"))
    assert (etc / name).read_text() == "mine\n"


def test_overlay_edit_without_a_change_copies_nothing(
    run: Run, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(monkeypatch, tmp_path, "exit 0")
    ok(run("edit hostname etc/hostname"))
    assert not (site / "hostname").exists()
    assert ok(run("diff")) == ""


def test_overlay_diff_shows_lines_modes_and_files(run: Run, site: Path) -> None:
    ok(run("chmod hostname etc/hostname.j2 0600"))
    ok(run("mkdir hostname srv"))
    (site / "hostname/rootfs/etc/hostname.j2").write_text("{{ id }}.cluster\n")
    said = ok(run("diff hostname"))
    assert "etc/hostname.j2: file 0644 0:0 became file 0600" in said
    assert "srv: only here" in said
    assert "+{{ id }}.cluster" in said.splitlines()


def test_overlay_info_lists_what_a_template_reads(run: Run) -> None:
    said = ok(run("info hostname etc/hostname.j2"))
    assert "id" in {line.split()[0] for line in said.splitlines() if line.strip()}
    shown = json.loads(ok(run("vars --json hostname etc/hostname.j2")))
    assert shown["documentation"]
    assert shown["variables"]


def test_overlay_build_says_what_changed_and_dry_run_what_would(run: Run, site: Path, paths: Paths) -> None:
    assert "system: /etc/motd: new on 2 nodes, for example n1" in ok(run("build --dry-run"))
    assert not paths.overlay_cache.exists(), "it writes nothing"
    assert "4 of 4 overlay images changed" in ok(run("build"))
    assert "0 of 4" in ok(run("build"))
    assert ok(run("build -n")) == "nothing would change\n"
    (site / "live/rootfs/etc/who.j2").write_text("{% if id == 'n2' %}!{% endif %}{{ id }}\n")
    assert ok(run("build -n")) == "runtime: /etc/who: changed on 1 node, for example n2\n"
    assert ok(run("build -n --diff n2")).splitlines()[-2:] == ["-n2", "+!n2"]
    assert ok(run("build -n n1")) == "nothing would change\n"
    assert "0 of 2" in ok(run("build --system"))
    assert "1 of 4" in ok(run("build --workers 1"))


def test_overlay_build_with_go_templates_of_a_warewulf_site(run: Run, site: Path, paths: Paths) -> None:
    """The site's copy is run; the shipped one stands in when the command or warewulf.conf asks for it."""
    file = site / "hostname/rootfs/etc/hostname.ww"
    file.parent.mkdir(parents=True)
    file.write_text("{{.Id}}{{.Nope}}\n")
    status, _, err = run("build")
    assert status == 1
    assert "overlay hostname, etc/hostname.ww, line 1, column 10, node n1: can't evaluate field Nope" in err
    assert "2 of 4" in ok(run("build --ignore-go-templates")), "the runtime overlays were right already"
    file.write_text("{{.Id}}.site\n")
    assert "2 of 4" in ok(run("build"))
    assert "2 of 4" in ok(run("build --ignore-go-templates"))
    paths.conf.write_text("ipaddr: 10.0.0.1/16\nwwfast: {ignore go templates: true}\n")
    assert "0 of 4" in ok(run("build"))


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("list nothere", 1, "no overlay nothere"),
        ("list ../etc", 2, "is not a name for an overlay"),
        ("show base etc/nothere", 1, "overlay base has no etc/nothere"),
        ("show base ../../../passwd", 2, "leaves the overlay"),
        ("show base etc", 1, "is a directory"),
        ("show -r n9 live etc/who.j2", 1, "no node n9"),
        ("show base", 2, "Missing argument"),
        ("create base", 2, "exists already"),
        ("create a/b", 2, "is not a name for an overlay"),
        ("create o:p", 2, "so no node could have this overlay"),
        ("create .hid", 2, "so no node could have this overlay"),
        ("create -- -o", 2, "so no node could have this overlay"),
        ("import base /nothere", 1, "cannot read /nothere: No such file"),
        ("import base /etc/passwd usr/share/x", 1, "has no directory usr/share"),
        ("mkdir base etc/motd/x", 1, "cannot make etc/motd/x"),
        ("chmod base etc/motd 99", 2, "not an octal mode"),
        ("chmod base etc/nothere 0644", 1, "has no etc/nothere"),
        ("chown base etc/motd root", 2, "is not UID[:GID]"),
        ("chown base etc/nothere 0", 1, "has no etc/nothere"),
        ("delete hostname", 2, "it stays"),
        ("delete base", 2, "is used by 2 nodes"),
        ("delete base etc", 2, "not empty"),
        ("delete base .", 2, "the whole overlay"),
        ("info base etc/nothere", 1, "has no etc/nothere"),
        ("diff base", 1, "no shipped overlay base"),
        ("build n9", 1, "no node 'n9'"),
        ("build --workers x", 2, "not a valid integer"),
        ("build n[1-", 2, "n[1-"),
    ],
)
def test_overlay_commands_refuse_in_two_lines(run: Run, site: Path, line: str, status: int, said: str) -> None:
    before = tree(site)
    code, out, err = run(line)
    assert (code, said in err) == (status, True), (code, out, err)
    words = [each for each in err.splitlines() if each and not each.startswith(("Usage:", "Try "))]
    assert 1 <= len(words) <= 2
    assert "Traceback" not in err
    assert tree(site) == before


def test_overlay_build_error_names_node_file_and_line(run: Run, site: Path) -> None:
    (site / "live/rootfs/etc/who.j2").write_text("first\n{{ nothere }}\n")
    status, out, err = run("build")
    assert status == 1
    assert "2 of 4 overlay images changed" in out
    assert "2 failed, for example runtime of n1: overlay live, etc/who.j2, line 2, node n1" in err
    assert "'nothere' is undefined" in err


@pytest.mark.parametrize("patterns", ["", "n[1-3]", "n3"])
def test_overlay_build_does_not_pass_over_nodes_that_cannot_be_used(run: Run, paths: Paths, patterns: str) -> None:
    paths.nodes_conf.write_text(NODES + "  n3: {kernel: {args: quiet}}\n")
    status, out, err = run(f"build {patterns}")
    assert (status, "error: 1 of the nodes left out, for example node n3: " in err) == (1, True), err
    assert ("2 nodes: " in out) == (patterns != "n3")
    ok(run("build n1"))


def test_overlay_build_of_the_host_says_which_command_does_that(run: Run) -> None:
    for flag in ("-H", "--host"):
        status, _, err = run(f"build {flag}")
        assert (status, "wwfast configure hostfile" in err) == (2, True), err


def test_overlay_build_looks_once_more_at_what_it_watches_from_now_on(run: Run, site: Path, paths: Paths) -> None:
    """By one worker, after a build that failed: what it made was not taken in, and it says what is shared only once."""
    (paths.chroots / "img/rootfs/var/lib").mkdir(parents=True)
    paths.nodes_conf.write_text(
        NODES.replace("all: {", "all: {image name: img, ").replace("[hostname", "[wwinit, hostname")
    )
    (site / "live/rootfs/etc/note").write_text("first\n")
    ok(run("build n1"))
    (site / "live/rootfs/var").mkdir()
    (site / "live/rootfs/var/lib").write_text("a file\n")
    status, _, err = run("build n1")
    assert (status, "/var/lib is a file in the overlays, but a directory in image img" in err) == (1, True)
    (site / "live/rootfs/etc/note").write_text("later\n")
    (site / "live/rootfs/var/lib").unlink()
    (site / "live/rootfs/var").rmdir()
    assert "1 nodes: 1 of 2 overlay images changed" in ok(run("build n1"))
