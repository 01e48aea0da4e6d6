"""What `wwfast doctor` says of nodes: each fault is made, and told with the nodes, the reason and what mends it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.healthy import RELEASE, Healthy, arm_image, elf, node, put
from wwfast.cli.main import main
from wwfast.images.kernels.store import KernelStore
from wwfast.paths import Paths

WWFAST = str(Path(sys.executable).with_name("wwfast"))
HEALTHY = "nothing found that would keep nodes from booting\n"


@pytest.fixture
def site(paths: Paths) -> Healthy:
    return Healthy(paths)


class Doctor:
    """`status`, and what was said as text and as JSON."""

    def __init__(self, site: Healthy, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        site.write()
        self.text, self.status = self._run(site, capsys, *words)
        said, status = self._run(site, capsys, *words, "--json")
        assert status == self.status
        self.findings: list[dict[str, Any]] = json.loads(said)

    @staticmethod
    def _run(site: Healthy, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, int]:
        with pytest.raises(SystemExit) as ended:
            main(["--root", str(site.paths.root), "doctor", *words])
        return capsys.readouterr().out, int(ended.value.code or 0)


def test_doctor_says_nothing_of_a_healthy_site(site: Healthy, capsys: pytest.CaptureFixture[str]) -> None:
    told = Doctor(site, capsys)
    assert (told.text, told.status, told.findings) == (HEALTHY, 0, [])


def test_doctor_takes_a_relative_root(
    site: Healthy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.paths.root)
    with pytest.raises(SystemExit) as ended:
        main(["--root", ".", "doctor"])
    assert (capsys.readouterr().out, ended.value.code or 0) == (HEALTHY, 0)


def _no_image(site: Healthy) -> None:
    site.entries["n2"]["image name"] = "gone"


def _image_unset(site: Healthy) -> None:
    del site.profiles["default"]["image name"]


def _image_not_built(site: Healthy) -> None:
    (site.paths.images / "deb/current").unlink()


def _no_such_build(site: Healthy) -> None:
    site.entries["n2"]["image name"] = "deb@20200101-000000"


def _no_kernel(site: Healthy) -> None:
    site.entries["n2"]["kernel"] = {"version": "5.14"}


def _no_kernel_apart(site: Healthy) -> None:
    site.entries["n2"]["kernel"] = {"override": "gone"}


def _no_modules(site: Healthy) -> None:
    (site.rootfs / f"usr/lib/modules/{RELEASE}/kernel/e1000.ko").unlink()


def _modules_unknown(site: Healthy) -> None:
    (site.rootfs / f"boot/config-{RELEASE}").unlink()
    (site.rootfs / f"usr/lib/modules/{RELEASE}").rename(site.rootfs / "usr/lib/modules/other")
    site.build()


def _other_machine(site: Healthy) -> None:
    put(site.rootfs / f"boot/vmlinuz-{RELEASE}", arm_image())
    site.build()


def _no_initrd(site: Healthy) -> None:
    config = site.rootfs / f"boot/config-{RELEASE}"
    config.write_text(config.read_text().replace("CONFIG_BLK_DEV_INITRD=y", "# CONFIG_BLK_DEV_INITRD is not set"))
    site.build()


def _kernel_without_zstd(site: Healthy) -> None:
    tree = site.paths.root / "other"
    put(tree / f"boot/vmlinuz-{RELEASE}", (site.rootfs / f"boot/vmlinuz-{RELEASE}").read_bytes())
    KernelStore(site.paths).import_(str(tree), "plain")
    site.entries["n2"]["kernel"] = {"override": "plain"}


def _kernel_apart_without_modules(site: Healthy) -> None:
    tree = site.paths.root / "other"
    for name in (f"vmlinuz-{RELEASE}", f"config-{RELEASE}"):
        put(tree / "boot" / name, (site.rootfs / "boot" / name).read_bytes())
    KernelStore(site.paths).import_(str(tree), "plain")
    site.entries["n2"]["kernel"] = {"override": "plain"}


def _no_shell(site: Healthy) -> None:
    (site.rootfs / "usr/bin/sh").unlink()


def _no_init_of_the_image(site: Healthy) -> None:
    (site.rootfs / "usr/sbin/init").unlink()


def _no_wwinit(site: Healthy) -> None:
    site.profiles["default"]["system overlay"] = ["hostname"]


def _no_overlay_at_all(site: Healthy) -> None:
    site.profiles["default"]["system overlay"] = []


def _rdinit(site: Healthy) -> None:
    site.entries["n2"]["kernel"] = {"args": ["quiet", "rdinit=/sbin/gone"]}


def _no_wwclient(site: Healthy) -> None:
    """With the DHCP of others, a boot loader gets no runtime overlay."""
    site.profiles["default"]["system overlay"] = ["wwinit"]
    site.conf |= {"dhcp": {"enabled": False}, "warewulf": {**site.conf.get("warewulf", {}), "secure": True}}


def _script_without_runtime(site: Healthy) -> None:
    site.profiles["default"]["system overlay"] = ["wwinit"]
    put(site.paths.etc / "ipxe/own.ipxe.j2", b"#!ipxe\nboot\n")
    site.entries["n2"]["ipxe template"] = "own"


def _no_curl(site: Healthy) -> None:
    (site.rootfs / "usr/bin/curl").unlink()


def _template_fails(site: Healthy) -> None:
    site.overlay("broken", "etc/t.j2", "{{ tags.rack }}\n")
    site.profiles["default"]["system overlay"].append("broken")
    site.entries["n1"]["tags"] = {"rack": "r1"}


def _runtime_template_fails(site: Healthy) -> None:
    site.overlay("broken", "etc/t.j2", "{{ 1 / 0 }}\n")
    site.entries["n2"]["runtime overlay"] = ["broken"]


def _no_overlay(site: Healthy) -> None:
    site.entries["n2"]["system overlay"] = ["wwinit", "gone"]


def _go_template(site: Healthy) -> None:
    site.overlay("old", "etc/motd.ww", "{{ .Id }}\n{{ .Nope }}\n")
    site.entries["n2"]["system overlay"] = ["wwinit", "old"]


def _file_over_directory(site: Healthy) -> None:
    site.overlay("over", "usr", "a file\n")
    site.entries["n2"]["system overlay"] = ["wwinit", "over"]


def _no_ipxe_template(site: Healthy) -> None:
    site.entries["n2"]["ipxe template"] = "gone"


def _ipxe_template_fails(site: Healthy) -> None:
    put(site.paths.etc / "ipxe/own.ipxe.j2", "#!ipxe\necho {{ tags.rack }}\n")
    site.profiles["default"]["ipxe template"] = "own"
    site.entries["n1"]["tags"] = {"rack": "r1"}


def _go_ipxe_template(site: Healthy) -> None:
    put(site.paths.etc / "ipxe/old.ipxe", "#!ipxe\necho {{ .Id }} {{ index .Tags 1 }}\n")
    site.entries["n2"]["ipxe template"] = "old"


def _ipxe_template_empty(site: Healthy) -> None:
    put(site.paths.etc / "ipxe/own.ipxe.j2", "")
    site.entries["n2"]["ipxe template"] = "own"


def _ipxe_template_of_no_script(site: Healthy) -> None:
    put(site.paths.etc / "ipxe/own.ipxe.j2", "\n#!ipxe\nexit\n")
    site.entries["n2"]["ipxe template"] = "own"


def _init_that_is_not_there(site: Healthy) -> None:
    site.entries["n2"]["init"] = "/nope"


def _no_address(site: Healthy) -> None:
    del site.entries["n2"]["network devices"]["default"]["ipaddr"]


def _no_hardware_address(site: Healthy) -> None:
    del site.entries["n2"]["network devices"]["default"]["hwaddr"]


def _nothing_to_discover(site: Healthy) -> None:
    site.entries["n2"] = {"profiles": ["default"], "discoverable": "true"}
    site.conf["dhcp"] = {"range start": "10.0.2.1", "range end": "10.0.2.9"}


def _hardware_address_twice(site: Healthy) -> None:
    site.entries["n2"]["network devices"]["default"]["hwaddr"] = "52:54:00:00:00:01"


def _hardware_address_of_many(site: Healthy) -> None:
    site.entries["n2"]["network devices"]["default"]["hwaddr"] = "01:00:5e:00:00:01"


def _hardware_address_malformed(site: Healthy) -> None:
    site.entries["n2"]["network devices"]["default"]["hwaddr"] = "52:54:00"


def _address_twice(site: Healthy) -> None:
    site.entries["n2"]["network devices"]["default"]["ipaddr"] = "10.0.1.1"


def _alone_in_its_network(site: Healthy) -> None:
    site.entries["n2"]["network devices"]["default"]["netmask"] = "255.255.255.255"


def _network_without_the_server(site: Healthy) -> None:
    site.entries["n2"]["network devices"]["default"] |= {"ipaddr": "10.0.0.130", "netmask": "255.255.255.128"}


def _other_network(site: Healthy) -> None:
    site.entries["n2"]["network devices"]["default"] |= {"ipaddr": "192.168.1.1", "netmask": "255.255.255.0"}


def _gateway_elsewhere(site: Healthy) -> None:
    _other_network(site)
    site.entries["n2"]["network devices"]["default"]["gateway"] = "192.168.2.254"


def _servers_ipv6(site: Healthy) -> None:
    site.conf["ipaddr6"] = "fd00::1/64"
    site.entries["n2"]["network devices"]["default"]["ipaddr6"] = "FD00:0::1"


def _unusable_entry(site: Healthy) -> None:
    site.entries["n2"]["network devices"]["default"]["ipaddr"] = "10.0.0.300"


def _unusable_profile(site: Healthy) -> None:
    site.profiles["bad"] = {"kernel": "quiet"}
    for name in ("n1", "n2"):
        site.entries[name]["profiles"] = ["default", "bad"]


def _arguments_too_long(site: Healthy) -> None:
    site.entries["n2"]["kernel"] = {"args": [f"a{number}={'x' * 1000}" for number in range(2)]}


def _never_built(site: Healthy) -> None:
    site.conf["warewulf"]["autobuild overlays"] = False


# fault: (level, who it concerns, why, what mends it)
FAULTS: dict[Callable[[Healthy], None], tuple[str, str, str, str]] = {
    _no_image: ("error", "n2", "there is no image gone", "wwfast image import"),
    _image_unset: ("error", "n[1-3]", "has no image", "wwfast node set 'n[1-3]' --image NAME"),
    _image_not_built: ("error", "n[1-3]", "image deb is not built", "wwfast image build deb"),
    _no_such_build: ("error", "n2", "image deb has no build 20200101-000000", "builds kept"),
    _no_kernel: ("error", "n2", "image deb has no kernel 5.14", "wwfast image kernels deb"),
    _no_kernel_apart: ("error", "n2", "there is no kernel gone", "wwfast kernel import"),
    _no_modules: ("error", "n[1-3]", f"kernel {RELEASE} has no modules in image deb", "wwfast image build deb"),
    _modules_unknown: ("warning", "n[1-3]", f"kernel {RELEASE} has no modules in image deb", "wwfast image build deb"),
    _other_machine: ("error", "n[1-3]", "is for arm64, and image deb for amd64", "wwfast kernel list"),
    _no_initrd: ("error", "n[1-3]", "CONFIG_BLK_DEV_INITRD is not built in", "wwfast image kernels deb"),
    _kernel_without_zstd: ("error", "n2", "not known to unpack zstd", "wwfast image build --format gz deb"),
    _kernel_apart_without_modules: ("error", "n2", f"kernel plain ({RELEASE}) has no modules", "wwfast kernel import"),
    _no_shell: ("error", "n[1-3]", "/init is a script for /bin/sh", "wwfast image exec deb"),
    _no_init_of_the_image: ("error", "n[1-3]", "image deb has no init", "--init"),
    _no_wwinit: ("error", "n[1-3]", "or in image deb is /init", "--system-overlays wwinit,hostname"),
    _no_overlay_at_all: (
        "error",
        "n[1-3]",
        "or in image deb is /init",
        "wwfast node set 'n[1-3]' --system-overlays wwinit",
    ),
    _rdinit: ("error", "n2", "is /sbin/gone", "correct `rdinit=`"),
    _no_wwclient: ("warning", "n[1-3]", "nothing brings its runtime overlays (hosts)", "wwinit,wwclient"),
    _script_without_runtime: ("warning", "n2", "its boot script does not fetch them", "wwinit,wwclient"),
    _no_curl: ("warning", "n[1-3]", "image deb has no curl", "install -y curl"),
    _template_fails: ("error", "n[2-3]", "overlay broken, etc/t.j2, line 1", "default("),
    _runtime_template_fails: ("error", "n2", "overlay broken, etc/t.j2, line 1: division by zero", ""),
    _no_overlay: ("error", "n2", "no overlay gone", "wwfast overlay create gone"),
    _go_template: ("error", "n2", "overlay old, etc/motd.ww, line 2, column 4: can't evaluate field Nope", "tags"),
    _file_over_directory: ("error", "n2", "/usr is a file in the overlays, but a directory in image deb", "rename"),
    _no_ipxe_template: ("error", "n2", "no iPXE template gone", "there are: default"),
    _ipxe_template_fails: ("error", "n[2-3]", "own.ipxe.j2:2: there is no such key", "default("),
    _go_ipxe_template: ("error", "n2", "old.ipxe:2:19: value has type int; should be string", ""),
    _ipxe_template_empty: ("error", "n2", "own does not begin with a line of `#!ipxe`", "ipxe/own.ipxe"),
    _ipxe_template_of_no_script: ("error", "n2", "own does not begin with a line of `#!ipxe`", "ipxe/own.ipxe"),
    _init_that_is_not_there: ("warning", "n2", "/nope is no program in image deb: /sbin/init is", "--init /sbin/init"),
    _no_address: ("error", "n2", "has no address, and DHCP has no range", "--ipaddr ADDRESS"),
    _no_hardware_address: ("error", "n2", "has no hardware address", "wwfast node set n2 --hwaddr MAC"),
    _nothing_to_discover: ("error", "n2", "has no network device", "--netname default"),
    _hardware_address_twice: ("error", "n2", "belong to n1 as well", "wwfast node set n2 --hwaddr MAC"),
    _hardware_address_of_many: ("error", "n2", "has no hardware address that a card can have", "n2 --hwaddr MAC"),
    _hardware_address_malformed: ("error", "n2", "has no hardware address that a card can have", "n2 --hwaddr MAC"),
    _address_twice: ("error", "n2", "10.0.1.1 also belongs to node n1: DHCP does not give it", "--ipaddr ADDRESS"),
    _alone_in_its_network: ("error", "n2", "255.255.255.255 and no gateway does not reach", "--netmask 255.255.0.0"),
    _network_without_the_server: ("error", "n2", "255.255.255.128 and no gateway does not reach", "--gateway ADDRESS"),
    _other_network: ("warning", "n2", "192.168.1.1 with netmask 255.255.255.0 and no gateway", "--gateway ADDRESS"),
    _gateway_elsewhere: ("warning", "n2", "its gateway 192.168.2.254 is not in the network", "--gateway ADDRESS"),
    _servers_ipv6: ("warning", "n2", "FD00:0::1 is this server's address", "--ipaddr6 ADDRESS"),
    _unusable_entry: ("error", "n2", "10.0.0.300", "wwfast node edit n2"),
    _unusable_profile: ("error", "n[1-2]", "its profile 'bad' is unusable", "wwfast profile edit bad"),
    _arguments_too_long: ("error", "n2", "has 2075 letters and may have 2047", "wwfast node set n2 --kernelargs"),
    _never_built: (
        "error",
        "n[1-3]",
        "the system overlays of node n[1-3] were never built",
        "wwfast overlay build 'n[1-3]'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__[1:])
def test_doctor_tells_what_keeps_nodes_from_booting(
    site: Healthy, fault: Callable[[Healthy], None], capsys: pytest.CaptureFixture[str]
) -> None:
    level, who, why, mends = FAULTS[fault]
    fault(site)
    told = Doctor(site, capsys)
    found = [it for it in told.findings if why in it["message"] and it["message"].startswith(f"{who}: ")]
    assert len(found) == 1, told.text
    assert (found[0]["level"], told.status) == (level, level == "error"), told.text
    assert mends in found[0]["fix"], told.text
    assert f"{level}: {who}: " in told.text
    # Nothing else is wrong: the same nodes once more at most, by another consequence.
    others = {name for it in told.findings for name in it["nodes"]} - set(found[0]["nodes"])
    assert not others, told.text


def test_doctor_asked_about_some_nodes_tells_of_those(site: Healthy, capsys: pytest.CaptureFixture[str]) -> None:
    site.entries["n2"]["ipxe template"] = "gone"
    assert Doctor(site, capsys, "n1", "n3").text == HEALTHY
    assert Doctor(site, capsys, "n[1-2]").status == 1
    assert [it["nodes"] for it in Doctor(site, capsys, "n*").findings] == [["n2"]]


def test_doctor_is_told_of_a_node_that_does_not_exist(site: Healthy, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(site.paths.root), "doctor", "n1", "n9"])
    assert ended.value.code == 2
    assert "no node 'n9'" in capsys.readouterr().err


def test_doctor_tells_alike_nodes_in_one_line(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    site = Healthy(paths, nodes=40)
    site.profiles["default"]["image name"] = "gone"
    told = Doctor(site, capsys)
    assert [it["message"] for it in told.findings] == ["n[1-40]: there is no image gone"]
    assert sorted(told.findings[0]["nodes"]) == sorted(site.entries)


def test_doctor_believes_an_init_of_the_image_or_of_another_overlay(
    site: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    site.profiles["default"] |= {"system overlay": ["mine"], "runtime overlay": []}
    script = site.overlay("mine", "init", "#!/bin/sh\n", 0o755)
    assert Doctor(site, capsys).text == HEALTHY
    script.chmod(0o644)  # the kernel would not start it
    assert Doctor(site, capsys).status == 1
    script.unlink()
    put(site.rootfs / "init", elf(), 0o755)
    assert Doctor(site, capsys).text == HEALTHY
    (site.rootfs / "init").unlink()
    site.overlay("mine", "begin.j2", "{{ file('init') }}#!/usr/bin/sh\n", 0o755)
    assert Doctor(site, capsys).text == HEALTHY


def test_doctor_asks_no_address_and_no_image_of_who_needs_none(
    site: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    del site.entries["n1"]["network devices"]["default"]["ipaddr"]
    site.entries["n2"] |= {"ipxe template": "localdisk", "image name": "", "system overlay": [], "runtime overlay": []}
    site.conf["dhcp"] = {"range start": "10.0.2.1", "range end": "10.0.2.9"}
    assert Doctor(site, capsys).text == HEALTHY
    site.conf["dhcp"] = {"enabled": False}
    assert Doctor(site, capsys).text == HEALTHY


def test_doctor_leaves_alone_who_comes_to_the_server_by_another_way(
    site: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a gateway, by another device, or behind a relay, which is the gateway of its network."""
    far = {"ipaddr": "192.168.1.1", "netmask": "255.255.255.0"}
    devices = [site.entries[name]["network devices"] for name in ("n1", "n2", "n3")]
    devices[0]["default"] |= {**far, "netmask": "255.255.255.255", "gateway": "10.0.0.2"}
    devices[1]["data"] = {**far, "ipaddr": "192.168.1.2", "hwaddr": "52:54:00:00:00:22"}
    assert Doctor(site, capsys).text == HEALTHY
    devices[2]["default"] |= {**far, "ipaddr": "192.168.1.3"}
    assert "unless a DHCP relay is in its network" in Doctor(site, capsys).text
    site.conf["wwfast"] = {"dhcp relays": ["10.0.0.3"]}
    assert Doctor(site, capsys).text == HEALTHY
    site.conf |= {"wwfast": {}, "dhcp": {"enabled": False}}
    assert Doctor(site, capsys).text == HEALTHY


def test_doctor_tells_of_a_range_that_is_too_small(site: Healthy, capsys: pytest.CaptureFixture[str]) -> None:
    for at in range(1, 6):
        site.entries[f"g{at}"] = node(20 + at)
        del site.entries[f"g{at}"]["network devices"]["default"]["ipaddr"]
    site.conf["dhcp"] = {"range start": "10.0.2.1", "range end": "10.0.2.4"}
    told = Doctor(site, capsys)
    assert told.status == 0
    assert "has 4 addresses, and 5 nodes" in told.text


def test_doctor_tells_of_names_that_mean_two_things(site: Healthy, capsys: pytest.CaptureFixture[str]) -> None:
    for at, name in enumerate(("N1", "n2-default", os.uname().nodename.partition(".")[0])):
        site.entries[name] = node(30 + at)
    told = Doctor(site, capsys)
    assert told.status == 0
    for said in ("n1: has a name that also means N1", "also means network default of n2", "also means this server"):
        assert said in told.text


def test_doctor_tells_of_nodes_without_the_host_keys_their_overlay_brings(
    site: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    site.entries["n2"]["system overlay"] = ["wwinit", "wwclient", "ssh.host_keys"]
    told = Doctor(site, capsys)
    assert told.findings[0]["nodes"] == ["n2"]
    assert "no SSH host keys" in told.text
    assert "wwfast configure ssh" in told.text


def _state(root: Path) -> dict[str, tuple[int, int]]:
    return {str(it): (it.lstat().st_mtime_ns, it.lstat().st_size) for it in sorted(root.rglob("*"))}


def test_doctor_writes_nothing_and_changes_nothing_that_nodes_get(
    site: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write()
    main_status = subprocess.run(  # what nodes were given last is in the cache
        [WWFAST, "--root", str(site.paths.root), "overlay", "build"], check=False, capture_output=True
    )
    assert main_status.returncode == 0, main_status.stderr
    site.overlay("hostname", "etc/motd.j2", "{{ id }} anew\n")
    site.write()
    before = _state(site.paths.root)
    with pytest.raises(SystemExit):
        main(["--root", str(site.paths.root), "doctor"])
    assert capsys.readouterr().out == HEALTHY
    assert _state(site.paths.root) == before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_doctor_works_where_nothing_can_be_written(site: Healthy) -> None:
    root = str(site.paths.root)
    readonly = f'mount --bind "{root}" "{root}" && mount -o remount,ro,bind "{root}" && ! touch "{root}/x"'
    script = f'{readonly} && {WWFAST} --root "{root}" doctor'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], check=False, capture_output=True, text=True)
    assert done.stdout == HEALTHY, done.stderr
    assert done.returncode == 0


def test_doctor_tells_of_caches_that_are_not_there_and_of_images_that_do_not_come_from_them(
    site: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
        site.conf["wwfast"] = {"caches": [{"url": url}]}
        told = Doctor(site, capsys)
    found = {finding["message"]: finding for finding in told.findings}
    assert told.status == 0, "nodes do without"
    assert found[f"cache {url} does not answer as one: Connection refused; its nodes fetch from others"]
    image = "image deb comes from this server whatever caches there are, in one stage"
    assert found[image]["fix"] == "wwfast image build --format tmpfs deb"
