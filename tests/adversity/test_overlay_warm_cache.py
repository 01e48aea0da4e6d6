"""What templates look at is watched, also where a server found their output in its cache and looked at nothing anew."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from support.daemon import MAC, NODES, Serving, overlay, serving, tiny_image, write_conf
from wwfast.daemon import following
from wwfast.images import building
from wwfast.overlays.files import sshkeys
from wwfast.paths import Paths

SOON = 2.0  # seconds in which a change has to reach the nodes


class Case(NamedTuple):
    """What a template reads, how it is before the server starts, what is changed then, and what nodes get after."""

    template: str
    before: Callable[[Paths], object]
    change: Callable[[Paths], object]
    was: str
    becomes: str


def nothing(_: Paths) -> None:
    pass


def write(name: str, text: str, *, at: str = "etc/warewulf") -> Callable[[Paths], None]:
    """The file with its parents, put there by a rename."""

    def run(paths: Paths) -> None:
        file = paths.root / at / name
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.new")
        fresh.write_text(text)
        fresh.rename(file)

    return run


def in_place(name: str, text: str, *, at: str = "etc/warewulf") -> Callable[[Paths], int]:
    return lambda paths: (paths.root / at / name).write_text(text)


def link(name: str, target: str, *, at: str = "etc/warewulf") -> Callable[[Paths], None]:
    """The link with its parents; what was there is replaced in one step."""

    def run(paths: Paths) -> None:
        place = paths.root / at / name
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f"{place.name}.new")
        fresh.symlink_to(target)
        fresh.rename(place)

    return run


def remove(name: str, *, at: str = "etc/warewulf") -> Callable[[Paths], None]:
    def run(paths: Paths) -> None:
        place = paths.root / at / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()

    return run


def move(name: str, to: str, *, at: str = "etc/warewulf") -> Callable[[Paths], object]:
    return lambda paths: (paths.root / at / name).rename(paths.root / at / to)


def all_of(*steps: Callable[[Paths], object]) -> Callable[[Paths], None]:
    def run(paths: Paths) -> None:
        for step in steps:
            step(paths)

    return run


NOTE = "{{ include('note') }}"
DEEP = "{{ include('a/b/c') }}"
HOST = "{{ include('/srv/site/info') }}"
ZONE = "{{ readlink('/etc/localtime') }}"
FROM = "{{ include_from('tiny', 'etc/extra') }}"
IMAGE = "var/lib/wwfast/chroots/tiny/rootfs"
UTC, BERLIN = "/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/Europe/Berlin"
zones = all_of(write(UTC[1:], "", at=""), write(BERLIN[1:], "", at=""))

CASES = {
    "a file is made": Case(NOTE, nothing, write("note", "new"), "", "new"),
    "a file is replaced": Case(NOTE, write("note", "old"), write("note", "new"), "old", "new"),
    "a file is written in place": Case(NOTE, write("note", "old"), in_place("note", "longer"), "old", "longer"),
    "a file is removed": Case(NOTE, write("note", "old"), remove("note"), "old", ""),
    "a file is moved away": Case(NOTE, write("note", "old"), move("note", "other"), "old", ""),
    "its parents are made": Case(DEEP, nothing, write("a/b/c", "new"), "", "new"),
    "one parent is there": Case(DEEP, write("a/x", ""), write("a/b/c", "new"), "", "new"),
    "its parent is replaced": Case(
        DEEP,
        all_of(write("a/b/c", "old"), write("a/b2/c", "new")),
        all_of(move("a/b", "a/b1"), move("a/b2", "a/b")),
        "old",
        "new",
    ),
    "a parent above is replaced": Case(
        DEEP,
        all_of(write("a/b/c", "old"), write("a2/b/c", "new")),
        all_of(move("a", "a1"), move("a2", "a")),
        "old",
        "new",
    ),
    "all above is removed": Case(DEEP, write("a/b/c", "old"), remove("a"), "old", ""),
    "a link is made": Case(NOTE, write("real", "new"), link("note", "real"), "", "new"),
    "a link is pointed elsewhere": Case(
        NOTE, all_of(write("x/1", "old"), write("y/1", "new"), link("note", "x/1")), link("note", "y/1"), "old", "new"
    ),
    "the target of a link is made": Case(NOTE, link("note", "far/away"), write("far/away", "new"), "", "new"),
    "the target of a link is replaced": Case(
        NOTE, all_of(write("far/away", "old"), link("note", "far/away")), write("far/away", "new"), "old", "new"
    ),
    "the target of a link is removed": Case(
        NOTE, all_of(write("far/away", "old"), link("note", "far/away")), remove("far/away"), "old", ""
    ),
    "a link in the middle is pointed elsewhere": Case(
        NOTE,
        all_of(write("v1/t", "old"), write("v2/t", "new"), link("at/now", "../v1"), link("note", "at/now/t")),
        link("at/now", "../v2"),
        "old",
        "new",
    ),
    "a directory is a link and pointed elsewhere": Case(
        DEEP,
        all_of(write("v1/b/c", "old"), write("v2/b/c", "new"), link("a", "v1")),
        link("a", "v2"),
        "old",
        "new",
    ),
    "a file elsewhere is made with its parents": Case(HOST, nothing, write("srv/site/info", "new", at=""), "", "new"),
    "a file elsewhere is replaced": Case(
        HOST, write("srv/site/info", "old", at=""), write("srv/site/info", "new", at=""), "old", "new"
    ),
    "a directory elsewhere is replaced": Case(
        HOST,
        all_of(write("srv/site/info", "old", at=""), write("srv/next/info", "new", at="")),
        all_of(move("srv/site", "srv/former", at=""), move("srv/next", "srv/site", at="")),
        "old",
        "new",
    ),
    "the time zone is set": Case(ZONE, zones, link("localtime", ".." + BERLIN, at="etc"), "", BERLIN),
    "the time zone is changed": Case(
        ZONE, all_of(zones, link("localtime", UTC, at="etc")), link("localtime", BERLIN, at="etc"), UTC, BERLIN
    ),
    "the time zone is changed behind a link": Case(
        ZONE,
        all_of(zones, link("zones/mine", UTC, at="srv"), link("localtime", "/srv/zones/mine", at="etc")),
        link("zones/mine", BERLIN, at="srv"),
        UTC,
        BERLIN,
    ),
    "a link that had to be there is made": Case(
        "{{ import_link('/etc/localtime') }}",
        all_of(zones, write("note", "x")),
        link("localtime", BERLIN, at="etc"),
        "",
        "-> " + BERLIN,
    ),
    "a file of the image is made": Case(FROM, nothing, write("etc/extra", "new", at=IMAGE), "", "new"),
    "a file of the image is replaced": Case(
        FROM, write("etc/extra", "old", at=IMAGE), write("etc/extra", "new", at=IMAGE), "old", "new"
    ),
    "a file of the image is removed": Case(
        FROM, write("etc/extra", "old", at=IMAGE), remove("etc/extra", at=IMAGE), "old", ""
    ),
    "a link of the image is pointed elsewhere": Case(
        FROM,
        all_of(
            write("opt/1/x", "old", at=IMAGE),
            write("opt/2/x", "new", at=IMAGE),
            link("etc/extra", "/opt/1/x", at=IMAGE),
        ),
        link("etc/extra", "/opt/2/x", at=IMAGE),
        "old",
        "new",
    ),
    "another image comes": Case(
        "{{ include_from('other', 'etc/extra') }}",
        nothing,
        all_of(
            write("etc/extra", "new", at="staged/rootfs"),
            lambda paths: (paths.root / "staged/rootfs/bin").mkdir(),
            write("bin/sh", "", at="staged/rootfs"),
            lambda paths: (paths.root / "staged").rename(paths.chroots / "other"),
        ),
        "",
        "new",
    ),
}


def motd(server: Serving, context: str = "runtime") -> tuple[str, str]:
    """What the node finds in etc/motd, and the ETag; "" when nothing is served."""
    status, data, headers = server.get(f"/{context}/{MAC}?format=tar")
    if status != 200:
        return "", ""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.getmember("etc/motd")
        if member.issym():
            return f"-> {member.linkname}", headers["etag"]
        return archive.extractfile(member).read().decode(), headers["etag"]  # type: ignore[union-attr]


def soon(server: Serving, becomes: str, former: str) -> None:
    end = time.monotonic() + SOON
    while (found := motd(server))[0] != becomes:
        assert time.monotonic() < end, f"{found[0]!r} is still served"
        time.sleep(0.02)
    assert found[1] != former


@pytest.fixture
def ready(paths: Paths) -> Paths:
    tiny_image(paths)
    building.build(paths, "tiny")
    write_conf(paths, wwfast={"include": ["/srv/site/info"]})
    paths.nodes_conf.write_text(NODES)
    return paths


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_http_overlays_of_a_warm_cache_follow_what_templates_look_at(ready: Paths, case: Case) -> None:
    overlay(ready, text=case.template)
    case.before(ready)
    with serving(ready) as server:
        assert motd(server)[0] == case.was
    with serving(ready) as server:
        found, etag = motd(server)
        assert found == case.was
        case.change(ready)
        soon(server, case.becomes, etag)


def test_http_overlays_of_a_warm_cache_follow_one_change_after_another(ready: Paths) -> None:
    """Each one in turn, so that what is watched has to keep up with what is there."""
    overlay(ready, text=DEEP)
    with serving(ready) as server:
        assert motd(server)[0] == ""
    with serving(ready) as server:
        former = motd(server)[1]
        for number, (change, becomes) in enumerate(
            [
                (write("a/x", ""), ""),
                (write("a/b/x", ""), ""),
                (write("a/b/c", "1"), "1"),
                (in_place("a/b/c", "22"), "22"),
                (remove("a"), ""),
                (link("a", "v1"), ""),
                (write("v1/b/c", "333"), "333"),
                (in_place("v1/b/c", "4444"), "4444"),
                (all_of(write("v2/b/c", "5"), link("a", "v2")), "5"),
                (in_place("v2/b/c", "66"), "66"),
                (in_place("v1/b/c", "not looked at"), "66"),
                (all_of(remove("a"), write("a/b/c", "7")), "7"),
            ]
        ):
            change(ready)
            end = time.monotonic() + SOON
            while (found := motd(server))[0] != becomes:
                assert time.monotonic() < end, (number, found)
                time.sleep(0.02)
            former = found[1]
        assert former


def test_http_keys_made_under_a_warm_server_reach_the_nodes(ready: Paths) -> None:
    """What `wwfast configure ssh` makes, and a server that was started before."""
    ready.nodes_conf.write_text(NODES.replace("[motd]", "[ssh.host_keys, ssh.authorized_keys]"))

    def names() -> set[str]:
        status, data, _ = server.get(f"/system/{MAC}?format=tar")
        assert status == 200
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {member.name for member in archive if member.isreg()}

    with serving(ready) as server:
        assert not [name for name in names() if name.endswith("_key")]
    with serving(ready) as server:
        names()
        assert sshkeys.make_host_keys(ready, ["ed25519"])
        end = time.monotonic() + SOON
        while "etc/ssh/ssh_host_ed25519_key" not in names():
            assert time.monotonic() < end
        sshkeys.make_login(ready, "ed25519")
        while "root/.ssh/authorized_keys" not in names():
            assert time.monotonic() < end + SOON


def test_overlay_directories_on_the_way_are_watched_for_names_only(ready: Paths) -> None:
    """A busy file beside them (root's history, a log) costs nothing: what is known stays known to be fresh."""
    overlay(ready, text=HOST)
    write("srv/site/info", "x", at="")(ready)
    busy = ready.root / "srv/busy"
    busy.write_text("")
    with serving(ready) as server:
        daemon = server.daemon
        snapshot = daemon.registry.snapshot()

        def known() -> bool:
            return daemon.overlays.peek(snapshot, snapshot.nodes["n1"], "runtime", "tar") is not None

        motd(server)
        motd(server)
        assert known()
        with busy.open("a") as file:
            file.write("a line\n")
        os.utime(busy)
        assert known()
        in_place("srv/site/info", "y", at="")(ready)
        assert not known()
        soon(server, "y", "")


def test_http_nodes_conf_behind_links_is_followed(ready: Paths) -> None:
    """A link on the way is pointed elsewhere, and at once the file behind it is edited."""
    overlay(ready, text="{{ comment }}")
    for version in ("v1", "v2"):
        write("nodes.conf", NODES.replace("  n1:\n", f"  n1:\n    comment: {version}\n"), at=f"srv/{version}")(ready)
    at = str(ready.root / "srv")
    link("now", "v1", at="srv")(ready)
    link("nodes.conf", f"{at}/now/nodes.conf")(ready)
    with serving(ready) as server:
        assert motd(server)[0] == "v1"
        link("now", "v2", at="srv")(ready)
        end = time.monotonic() + 3 * following.LOOK_SECONDS
        while motd(server)[0] != "v2":
            assert time.monotonic() < end
            time.sleep(0.02)
        link("nodes.conf", f"{at}/v1/nodes.conf")(ready)
        while motd(server)[0] != "v1":
            assert time.monotonic() < end
            time.sleep(0.02)
        write("nodes.conf", NODES.replace("  n1:\n", "  n1:\n    comment: v3\n"), at="srv/v1")(ready)
        while motd(server)[0] != "v3":
            assert time.monotonic() < end + 2 * following.LOOK_SECONDS
            time.sleep(0.02)


def test_http_nodes_conf_that_is_written_by_another_name_is_followed(ready: Paths) -> None:
    """A hard link, or a file that a container has mounted there: nothing happens in its directory."""
    overlay(ready, text="{{ comment }}")
    other = ready.root / "other.conf"
    other.hardlink_to(ready.nodes_conf)
    with serving(ready) as server:
        for version in ("v1", "v2"):
            other.write_text(NODES.replace("  n1:\n", f"  n1:\n    comment: {version}\n"))
            soon(server, version, "")
