"""Boots by Warewulf's dracut module: who boots so, what its kernel is told, and what it fetches."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.daemon import MAC, Serving, serving, tiny_site
from support.initramfs import initramfs
from support.patience import until
from support.planner import Fresh
from support.scripts import VARIABLES, render
from wwfast.api.service import Service
from wwfast.archive.artefact import RAW
from wwfast.boot import dracut
from wwfast.boot.loader.script import Scripts
from wwfast.boot.plan import Ask, BootPlan
from wwfast.boot.stages import Stage
from wwfast.boot.ways import Machine
from wwfast.config.checks import asset_key, asset_tag
from wwfast.config.settings import load
from wwfast.daemon.boot.identity import is_asset
from wwfast.errors import WwfastError
from wwfast.images.building import How
from wwfast.images.kernels.store import KernelStore
from wwfast.images.stage1 import programs
from wwfast.images.store import ImageStore
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Registry
from wwfast.paths import SHARE, Paths

BASE = "http://127.0.0.1:9873"
NODE: dict[str, Any] = {
    "image name": "tiny",
    "system overlay": ["motd"],
    "runtime overlay": ["motd"],
    "kernel": {"args": ["quiet", "wwinit.tmpfs.size=25%"]},
    "tags": {"IPXEMenuEntry": "dracut"},
    "network devices": {
        "default": {
            "device": "eth0",
            "hwaddr": MAC,
            "ipaddr": "10.0.0.11",
            "netmask": "255.255.0.0",
            "gateway": "10.0.0.1",
        },
        "ib": {"device": "ib0", "hwaddr": "52:54:00:00:00:02"},
        "bond": {"device": "bond0", "ipaddr": "10.1.0.11"},
        "spare": {"hwaddr": "52:54:00:00:00:03"},
    },
}
SERVER = f"wwinit.server={BASE} wwinit.uri={BASE}/provision/{MAC} init=/warewulf/run-init"
DHCP = f"rd.neednet=1 ifname=eth0:{MAC} ip=eth0:dhcp ifname=ib0:52:54:00:00:00:02 ip=ib0:dhcp"
STATIC = (
    f"rd.neednet=1 ifname=eth0:{MAC} ip=10.0.0.11::10.0.0.1:255.255.0.0::eth0:none "
    "ifname=ib0:52:54:00:00:00:02 ip=:::::ib0:on"
)


def write(paths: Paths, **changes: Any) -> None:
    paths.nodes_conf.write_text(json.dumps({"nodes": {"n1": NODE | changes}}))


def build(paths: Paths, **how: Any) -> None:
    Service(paths, lambda: load(paths), lambda: Registry(paths).snapshot()).build_image("tiny", How(**how))


@pytest.fixture
def site(paths: Paths) -> Paths:
    """A node that boots by dracut; its image has an initramfs with the module."""
    tiny_site(paths)
    (paths.chroots / "tiny/rootfs/boot/initramfs-6.1.0-1.img").write_bytes(initramfs("4.6.2"))
    write(paths)
    build(paths)
    return paths


def plan(paths: Paths, stage: Stage = Stage.IPXE, **ask: Any) -> BootPlan:
    snapshot = Registry(paths).snapshot()
    return Fresh(paths, load(paths)).plan(snapshot, snapshot.nodes["n1"], stage, Ask(MAC, **ask))


def node(paths: Paths, **changes: Any) -> Node:
    write(paths, **changes)
    return Registry(paths).snapshot().nodes["n1"]


@pytest.mark.parametrize(
    ("tags", "entry"),
    [
        ({}, ""),
        ({"IPXEMenuEntry": "dracut"}, "dracut"),
        ({"IPXEMenuEntry": "dracut_static"}, "dracut_static"),
        ({"IPXEMenuEntry": "initrd"}, ""),
        ({"IPXEMenuEntry": "initrd", "GrubMenuEntry": "dracut"}, ""),
        ({"GrubMenuEntry": "dracut"}, "dracut"),
        ({"GrubMenuEntry": "single-stage"}, ""),
    ],
)
def test_dracut_is_chosen_by_the_tags_that_sites_have(paths: Paths, tags: dict[str, str], entry: str) -> None:
    assert dracut.entry(node(paths, tags=tags)) == entry
    profile = {"nodeprofiles": {"default": {"tags": tags}}, "nodes": {"n1": {"profiles": ["default"]}}}
    paths.nodes_conf.write_text(json.dumps(profile))
    assert dracut.entry(Registry(paths).snapshot().nodes["n1"]) == entry


@pytest.mark.parametrize(
    ("root", "word"),
    [
        ("", "wwinit"),
        ("tmpfs", "wwinit"),
        ("initramfs", "wwinit"),
        ("UNDEF", "wwinit"),
        ("/dev/disk/by-partlabel/rootfs", "wwinit:/dev/disk/by-partlabel/rootfs"),
        ("LABEL=root", "wwinit:LABEL=root"),
    ],
)
def test_dracut_kernel_is_told_what_the_modules_read(paths: Paths, root: str, word: str) -> None:
    """Modules before 4.6.2 know the plain word alone."""
    own = f"root={word} {SERVER} quiet wwinit.tmpfs.size=25%"
    made = node(paths, root=root)
    assert dracut.arguments(made, MAC, BASE, static=False) == f"{DHCP} {own}"
    assert dracut.arguments(made, MAC, BASE, static=True) == f"{STATIC} {own}"


def test_dracut_script_fetches_kernel_and_initramfs_alone(site: Paths) -> None:
    made = plan(site)
    lines = (made.text or "").splitlines()
    assert [line.split(" || ")[0] for line in lines if line.startswith(("kernel", "${get}", "initrd"))] == [
        "kernel --name kernel ${base}/kernel/${hwaddr}?${params}",
        "${get} --name initramfs ${base}/initramfs/${hwaddr}?${params}${form}",
    ]
    assert "imgargs kernel initrd=initramfs ${runtime} wwid=${hwaddr} ${arguments} || goto failed" in lines
    at = {method: lines.index(f":{method}") for method in dracut.ENTRIES}
    for method, network in (("dracut", DHCP), ("dracut_static", STATIC)):
        said = f"set arguments {network} root=wwinit {SERVER} quiet wwinit.tmpfs.size=25%"
        assert lines[at[method] + 1 : at[method] + 4] == ["set get initrd", "set form ||", said]
    assert [line.split()[1] for line in lines if line.startswith("item ")] == [*dracut.ENTRIES, "shell"]
    assert "set method dracut" in lines
    assert made.way is not None
    assert made.way.why.startswith("in two stages by dracut: needs ")
    assert "tag IPXEMenuEntry is dracut; initramfs-6.1.0-1.img has Warewulf's module 4.6.2 to 4.6.5" in made.way.why
    assert f"echo The image comes {made.way.why}" in lines


def test_dracut_by_the_tag_of_grub_boots_without_a_menu(site: Paths) -> None:
    write(site, tags={"GrubMenuEntry": "dracut"})
    lines = (plan(site).text or "").splitlines()
    assert not [line for line in lines if line.startswith(("item", "choose", ":menu"))]
    assert "initrd --name initramfs ${base}/initramfs/${hwaddr}?${params} || goto failed" in lines
    told = f"{DHCP} root=wwinit {SERVER} quiet wwinit.tmpfs.size=25%"
    assert f"imgargs kernel initrd=initramfs ${{runtime}} wwid=${{hwaddr}} {told} || goto failed" in lines


def test_dracut_arguments_that_ipxe_would_run_are_refused(site: Paths) -> None:
    known = Registry(site).snapshot().nodes["n1"]
    with pytest.raises(WwfastError, match="which iPXE would run"):
        render(Scripts(site), "default", VARIABLES | dracut.variables(known, MAC, "http://x || reboot"))


def test_dracut_initramfs_is_served_as_it_is(site: Paths) -> None:
    """Also when the tree has another one by now, until the image is built again."""
    file = site.chroots / "tiny/rootfs/boot/initramfs-6.1.0-1.img"
    was = file.read_bytes()
    made = plan(site, Stage.INITRAMFS, compress="gz").artefact
    assert made is not None
    assert (made.name, made.format) == ("initramfs-6.1.0-1.img", RAW)
    assert Path(made.extents[0].path).read_bytes() == was
    file.write_bytes(initramfs("4.7.0"))
    again = plan(site, Stage.INITRAMFS).artefact
    assert again == made
    build(site)
    newer = plan(site, Stage.INITRAMFS).artefact
    assert newer is not None
    assert Path(newer.extents[0].path).read_bytes() == file.read_bytes()
    assert "4.7.0 or later" in str(plan(site).way)


def test_dracut_initramfs_of_the_same_content_is_on_the_disk_once(site: Paths) -> None:
    def kept() -> Path:
        build = ImageStore(site).get("tiny").build
        assert build is not None
        return next((build.path / "initramfs").iterdir())

    first = kept()
    (site.chroots / "tiny/rootfs/etc/new").write_text("new")
    build(site)
    assert kept() != first
    assert kept().samefile(first)
    assert ImageStore(site).get("tiny").build.damage() is None  # type: ignore[union-attr]
    first.write_bytes(b"other")
    assert "is damaged" in str(ImageStore(site).get("tiny").build.damage())  # type: ignore[union-attr]


def test_dracut_build_follows_an_initramfs_that_is_not_in_the_image_that_nodes_get(site: Paths) -> None:
    """Warewulf's own list of what is left out has /boot."""
    root = site.chroots / "tiny/rootfs"
    (root / "etc/warewulf").mkdir()
    (root / "etc/warewulf/excludes").write_text("/boot/\n")
    build(site)
    (root / "boot/initramfs-6.1.0-1.img").write_bytes(initramfs("4.7.0"))
    build(site)
    assert "4.7.0 or later" in str(plan(site).way)
    (root / "boot/initramfs-6.1.0-1.img").unlink()
    build(site)
    assert "has no initramfs for kernel 6.1.0-1" in plan(site).reason


def test_dracut_initramfs_is_kept_where_the_image_has_the_module(paths: Paths) -> None:
    """Whoever sets the tag then has nothing to build; who has neither gives no room to what dracut never made."""
    tiny_site(paths)
    root = paths.chroots / "tiny/rootfs"
    (root / "boot/initramfs-6.1.0-1.img").write_bytes(initramfs("4.6.2"))
    write(paths, tags={})
    build(paths, force=True)
    found = ImageStore(paths).get("tiny").build
    assert found is not None
    assert found.info.initramfs is None
    write(paths)
    assert "was built without its own initramfs: wwfast image build tiny" in plan(paths).reason
    write(paths, tags={})
    (root / "usr/lib/dracut/modules.d/90wwinit").mkdir(parents=True)
    build(paths)
    write(paths)
    assert not plan(paths).reason


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("", "initramfs-6.1.0-1.img of image tiny is without Warewulf's module"),
        ("4.5.3", "has the module of Warewulf 4.5.3 to 4.5.6: it would lose"),
        ("4.5.7", "has the module of Warewulf 4.5.7 or 4.5.8: it would lose"),
        ("4.6.0", "has the module of Warewulf 4.6.0 or 4.6.1: it would lose"),
    ],
)
def test_dracut_module_that_cannot_boot_is_refused_on_the_console(site: Paths, version: str, says: str) -> None:
    (site.chroots / "tiny/rootfs/boot/initramfs-6.1.0-1.img").write_bytes(initramfs(version))
    build(site)
    made = plan(site)
    assert made.sent == "message.ipxe"
    assert says in made.reason
    assert says in (made.text or "")
    assert "dracut --force --no-hostonly --add wwinit --kver 6.1.0-1" in made.reason


def test_dracut_with_a_rescue_initramfs_alone_is_refused(site: Paths) -> None:
    boot = site.chroots / "tiny/rootfs/boot"
    (boot / "initramfs-6.1.0-1.img").rename(boot / "initramfs-0-rescue-6.1.0-1.img")
    build(site)
    assert "image tiny has no initramfs for kernel 6.1.0-1 in /boot" in plan(site).reason
    assert plan(site, Stage.INITRAMFS).status == 404


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"root": "squashfs"}, "root squashfs of node n1 comes by wwfast's own stage-1"),
        ({"kernel": {"override": "apart"}}, "node n1 has a kernel that is kept apart from its image"),
    ],
)
def test_dracut_refuses_what_the_module_does_not_do(site: Paths, changes: dict[str, Any], says: str) -> None:
    KernelStore(site).import_("tiny", "apart")
    write(site, **changes)
    assert says in plan(site).reason


def test_dracut_needs_twice_the_image_for_half_the_memory_of_a_tmpfs(site: Paths) -> None:
    write(site, kernel={"args": []})
    snapshot = Registry(site).snapshot()
    refused = plan(site, machine=Machine(64))
    assert refused.unfit
    assert "which has 64 MiB of memory: in two stages by dracut it needs" in refused.reason
    assert not plan(site, machine=Machine(512)).reason
    assert snapshot.nodes["n1"].root == ""


def test_dracut_needs_a_runtime_overlay_that_can_be_made(site: Paths) -> None:
    """Most modules die without: better said before 500 MB are loaded."""
    write(site, **{"runtime overlay": ["gone"]})
    assert "gone" in plan(site).reason


KEYS = [
    ("A 12", "A 12", True),  # iPXE and dmidecode
    ("A 12", "A_12", True),  # wwclient, and modules 4.5.7
    ("A_12", " A 12 ", True),
    ("A 12", "A\t12\n", True),
    ("A12", "A 12", False),
    ("A12", "a12", False),
    ("A12", "", False),
    ("A12", "Unknown", False),
    ("Unknown", "", True),
    ("Not Specified", "Unknown", True),
    ("Unknown", "A12", False),
]


@pytest.mark.parametrize(("wanted", "told", "same"), KEYS)
def test_dracut_asset_key_is_the_same_whoever_tells_it(wanted: str, told: str, same: bool) -> None:
    assert is_asset(wanted, told) is same
    assert asset_tag(asset_tag(wanted)) == asset_tag(wanted)


NO_KEYS = ("Unknown", "Not Specified", " _ ")


@pytest.mark.parametrize(("wanted", "keeps"), [("A 12", True), ("UNDEF", True), *((key, False) for key in NO_KEYS)])
def test_dracut_asset_key_that_every_machine_has_is_refused(wanted: str, keeps: bool) -> None:
    assert (asset_key(wanted) == "") is keeps


ROUTES = [
    (f"/initramfs/{MAC}", 200),
    (f"/provision/{MAC}?stage=initramfs", 200),
    (f"/initramfs?wwid={MAC}", 200),
    (f"/initramfs/{MAC}?compress=gz", 200),
    ("/initramfs/52:54:00:00:00:99", 400),
    ("/provision/52:54:00:00:00:99?stage=initramfs", 400),
    *((f"/{route}/{MAC}?compress=gz", 200) for route in ("system", "image", "runtime", "container")),
    *((f"/provision/{MAC}?stage={stage}&compress=gz", 200) for stage in ("system", "image", "container", "runtime")),
    (f"/provision/{MAC}?stage=kmods&compress=gz", 404),
    (f"/provision/{MAC}?stage=none", 400),
    (f"/image/{MAC}?compress=lz4", 404),
    (f"/image/{MAC}?image=other@1", 404),
]


@pytest.fixture
def server(site: Paths) -> Any:
    with serving(site) as running:
        yield running


def test_dracut_routes_answer_with_a_file_or_with_nothing_at_all(server: Serving) -> None:
    """What stands in the body of an error is glued in front of the image: curl's module does not look at the status."""
    for path, status in ROUTES:
        got, body, headers = server.get(path, headers={"User-Agent": "curl/8.5.0"})
        assert (got, int(headers["content-length"])) == (status, len(body)), path
        assert bool(body) == (status == 200), path


def test_dracut_initramfs_route_tells_the_status_table(server: Serving) -> None:
    _, body, _ = server.get(f"/initramfs/{MAC}")
    assert body == initramfs("4.6.2")
    assert server.status("n1")["nodes"]["n1"]["sent"] == "initramfs-6.1.0-1.img"


def test_dracut_first_system_overlay_ends_no_turn(site: Paths) -> None:
    """Its image is still to come: a node that lost its place here would stand behind all that begin to boot."""
    file = site.chroots / "tiny/rootfs/boot/initramfs-6.1.0-1.img"
    file.write_bytes(initramfs("4.6.2") + bytes(2 << 20))  # what is small waits for no turn
    build(site)
    curl, ipxe = ({"User-Agent": name} for name in ("curl/8.5.0", "iPXE/1.21.1"))
    with serving(site) as server:
        scheduler = server.daemon.scheduler
        assert scheduler is not None
        server.get(f"/initramfs/{MAC}?image=tiny", headers=ipxe)
        early = re.search(r'"\$base(/system/\S+)" "\$EARLY"', programs.INIT.read_text())
        assert early is not None, "stage-1 that prepares a disk"
        ours = early[1].replace("$wwid", MAC).replace("$query", "image=tiny")
        for path in (f"/system/{MAC}?compress=gz", f"/provision/{MAC}?stage=system&compress=gz", ours):
            assert server.get(path, headers=curl)[0] == 200
            assert MAC in scheduler.tickets
        assert server.get(f"/system/{MAC}?compress=gz&image=tiny", headers=curl)[0] == 200  # stage-1, after its image
        until(lambda: MAC not in scheduler.tickets)  # once the last byte is known to be there


def test_dracut_image_is_of_the_build_that_the_boot_began_with(site: Paths) -> None:
    """Its kernel is, and another build may be without the modules of that."""
    curl = {"User-Agent": "curl/8.5.0"}
    ask = (f"/provision/{MAC}?stage=image&compress=gz", f"/image/{MAC}?compress=gz")
    with serving(site) as server:
        assert server.get(f"/ipxe/{MAC}")[1].startswith(b"#!ipxe")
        old = server.get(ask[0], headers=curl)[1]
        (site.chroots / "tiny/rootfs/etc/new").write_text("of another build")
        build(site)
        assert server.get(f"/image/{MAC}?compress=gz", method="HEAD")[0] == 200
        for path in ask:
            assert server.get(path, headers=curl)[1] == old
        assert server.get(f"/runtime/{MAC}?compress=gz", headers=curl)[0] == 200
        new = server.get(ask[1], headers=curl)[1]
        assert new != old, "the boot is over"
        assert server.get(f"/ipxe/{MAC}")[0] == 200
        assert server.get(ask[1], headers=curl)[1] == new


def test_dracut_by_a_script_of_the_site_has_its_arguments_once(site: Paths) -> None:
    """Warewulf's own script, with a change, has them all in it."""
    place = site.etc / "ipxe/site.ipxe"
    place.parent.mkdir()
    place.write_text("#!ipxe\nimgargs kernel root=wwinit:tmpfs {{ .KernelArgs }} # {{ .Tags.IPXEMenuEntry }}\n")
    write(site, **{"ipxe template": "site"})
    made = plan(site)
    assert made.text == "#!ipxe\nimgargs kernel root=wwinit:tmpfs quiet wwinit.tmpfs.size=25% # dracut\n"
    assert "by dracut" in str(made.way)


def test_dracut_by_a_copy_of_our_script_that_the_site_has_changed(site: Paths) -> None:
    ours = plan(site).text
    place = site.etc / "ipxe/default.ipxe.j2"
    place.parent.mkdir()
    place.write_text((SHARE / "ipxe/default.ipxe.j2").read_text() + "echo of the site\n")
    theirs = plan(site)
    assert theirs.text == f"{ours}echo of the site\n", theirs.reason
