"""The shipped overlays: every template for every kind of node, and what each is there for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest

from support.overlays import body
from support.shipped import NODES, SHIPPED, File, lay, write
from wwfast.archive import newc
from wwfast.config import settings, yaml
from wwfast.nodes.registry import Registry
from wwfast.overlays.files import model
from wwfast.overlays.making.service import OverlayService
from wwfast.overlays.templates import environment
from wwfast.overlays.templates.info import documentation
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import SHARE, Paths
from wwfast.system.run import run

ALL = """NetworkManager chrony debug fstab host hostname hosts ifcfg ifupdown ignition issue localtime mig mkfs mkswap
netplan resolv sfdisk ssh.authorized_keys ssh.host_keys syncuser systemd.mount systemd.netname systemd.networkd
systemd.service systemd.swap udev.netname wicked wwclient wwinit"""


def test_overlays_of_the_distribution_are_all_there() -> None:
    assert ALL.split() == SHIPPED


@pytest.mark.parametrize("overlay", SHIPPED)
def test_overlay_renders_for_every_kind_of_node(paths: Paths, overlay: str) -> None:
    for node, files in lay(paths, [overlay]).items():
        for path, file in files.items():
            if file.directory or file.link is not None:
                continue
            text = file.text
            assert "<nil>" not in text, (node, path)
            assert not path.endswith(".j2")
            if overlay != "debug":
                assert "{{" not in text, (node, path)
                assert not re.search(r"\bNone\b", text.replace("If-None-Match", "")), (node, path)
            assert not text.startswith("\n") or path == "etc/exports", (node, path, "begins with an empty line")
            assert text == "" or text.endswith("\n"), (node, path, "has no end of line")


def test_overlays_of_a_whole_set_stack_without_clash(paths: Paths) -> None:
    for files in lay(paths, [name for name in SHIPPED if name not in ("ignition", "host")]).values():
        assert not [path for path in files if path.endswith(".wwbackup")]
        assert files["etc/hostname"].text


@pytest.mark.parametrize("overlay", SHIPPED)
def test_overlay_says_what_it_is_for(paths: Paths, overlay: str) -> None:
    env = environment.make(Sources(paths, (), lambda image: None))
    texts: list[str] = []
    for item in model.find(paths, overlay).items():
        if item.template:
            general, variables = documentation(env, item.read().decode())
            texts += general
            assert all(variables.values())
    assert texts, f"no template of {overlay} has a comment wwdoc:"


def test_overlay_templates_that_say_the_same_for_all_look_at_no_node(paths: Paths) -> None:
    """A variable of a template with the name of a node's field would count as a look at that field: hosts would then be
    rendered for each node instead of once for all."""
    lay(paths, ["hosts", "ssh.authorized_keys", "ssh.host_keys", "wwclient"])
    snapshot = Registry(paths).snapshot()
    service = OverlayService(paths, settings.load(paths))
    try:
        one, other = (service.artefact(snapshot, snapshot.nodes[name], "system", "raw") for name in ("full", "static"))
    finally:
        service.close()
    own = next(each for each in one.extents if each not in other.extents or each == one.extents[-1])
    assert not {entry.name.decode() for entry in newc.entries(body(one)[-own.length :])} & {
        "etc/hosts", "root/.ssh/authorized_keys", "etc/ssh/ssh_host_keys", "etc/warewulf/warewulf.conf",
    }  # fmt: skip


def test_overlay_permissions_name_files_that_exist(paths: Paths) -> None:
    for overlay in SHIPPED:
        found = model.find(paths, overlay)
        known = {item.path for item in found.items()}
        assert set(found.permissions()) <= known, overlay


def one(paths: Paths, overlay: str, node: str) -> dict[str, File]:
    return lay(paths, [overlay], {node: NODES[node]})[node]


# ---- wwinit ------------------------------------------------------------------------------------------------------


def test_overlay_wwinit_keeps_every_odd_word_of_a_node(paths: Paths, tmp_path: Path) -> None:
    for node in ("full", "odd"):
        config = one(paths, "wwinit", node)["warewulf/config"]
        assert config.mode == 0o600
        script = tmp_path / "config"
        script.write_bytes(config.data)
        names = ("WWHOSTNAME", "WWROOT", "WWIPMI_PASSWORD")
        printed = "; ".join(f'printf "%s\\\\n" "${{{name}-}}"' for name in names)
        said = subprocess.run(["sh", "-c", f". {script}; {printed}"], capture_output=True, text=True, check=True)
        ipmi: dict[str, Any] = NODES[node].get("ipmi", {})
        assert said.stdout.splitlines() == [node, NODES[node].get("root", ""), ipmi.get("password", "")]


def test_overlay_wwinit_leaves_unset_addresses_of_the_bmc_empty(paths: Paths) -> None:
    text = one(paths, "wwinit", "full")["warewulf/config"].text
    assert "WWIPMI_GATEWAY=''" in text
    assert "WWIPMI_WRITE=false" in one(paths, "wwinit", "static")["warewulf/config"].text


def scripts(paths: Paths, root: Path, **wwinit: str) -> Path:
    """The files of wwinit and ignition below `root`, with scripts of wwinit.d as given."""
    write(one(paths, "wwinit", "static"), root)
    folder = root / "warewulf/wwinit.d"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in wwinit.items():
        (folder / name).write_text(text)
    return root


@pytest.mark.parametrize("shell", ["dash", "busybox sh"])
def test_overlay_wwinit_stops_at_a_script_that_fails(paths: Paths, tmp_path: Path, shell: str) -> None:
    root = scripts(
        paths,
        tmp_path / "node",
        **{"a10": "echo first $PREFIX\n", "a10.wwbackup": "exit 4\n", "b20": "exit 3\n", "c30": "echo never\n"},
    )
    (root / "run").mkdir()
    done = subprocess.run(
        [*shell.split(), root / "warewulf/run-wwinit.d"],
        env={"PREFIX": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert f"first {root}" in done.stdout
    assert "/warewulf/wwinit.d/b20 failed with exit status 3" in done.stdout
    assert "never" not in done.stdout


@pytest.mark.parametrize(
    ("place", "words", "said"),
    [
        ("dracut", "quiet", "the node reboots in 60 seconds"),
        ("dracut", "quiet wwinit.shell", "this is the shell of wwinit.shell"),
        ("stage-1", "quiet", ""),
        ("no initramfs", "quiet", ""),
    ],
)
def test_overlay_wwinit_that_fails_under_dracut_starts_the_node_anew(
    paths: Paths, tmp_path: Path, place: str, words: str, said: str
) -> None:
    root = scripts(
        paths,
        tmp_path / "node",
        a10="echo no disk > {why}; exit 3\n".format(why=tmp_path / "machine" / "run/wwinit.why"),
    )
    machine = tmp_path / "machine"
    text = (root / "warewulf/run-wwinit.d").read_text()
    for real in ("/proc/", "/run/", "/etc/", "/dev/console"):
        text = text.replace(f" {real}", f" {machine}{real}")
    text = text.replace("sleep 60", ":")
    assert not re.search(r"(?<![\w-])/(proc|etc|run|dev/console)\b", text.replace(str(machine), "x")), (
        "not this machine's"
    )
    for folder in ("proc/sys/kernel", "run/udev", "etc", "dev"):
        (machine / folder).mkdir(parents=True)
    (machine / "run/udev/control").touch()
    (machine / "dev/console").touch()
    (machine / "proc/cmdline").write_text(f"{words}\n")
    if place != "no initramfs":
        (machine / "etc/initrd-release").touch()
    env = {"PREFIX": str(root), "PATH": "/usr/bin:/bin", "WWTARGET": "/newroot" if place == "stage-1" else ""}
    done = subprocess.run(["sh", "-c", text], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert said in done.stderr
    assert ("BOOT STOPPED: preparing the node failed: no disk" in done.stderr) == bool(said)
    assert [path.read_text() for path in machine.glob("proc/sysrq-trigger")] == (["b\n"] if said else [])


def test_overlay_wwinit_names_the_program_for_disks_that_is_not_there(tmp_path: Path) -> None:
    text = (SHARE / "overlays/wwinit/rootfs/warewulf/disks.sh").read_text().replace("/run/", f"{tmp_path}/")
    for program in ("blkid", "wipefs", "cat", "head", "wc", "tail", "tr", "readlink"):
        command = ["/bin/sh", "-c", f"{text}\nfilesystem /dev/none ext4 '' '' '' ''"]
        done = subprocess.run(command, env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"wwinit: there is no {program} here to look at /dev/none: install the package")
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / program).symlink_to("/bin/true")


def test_overlay_wwinit_gives_tmpfs_the_size_of_the_kernel_argument() -> None:
    functions = functions_of_init("# Value of NAME=", "mounted() {").replace("/proc/cmdline", "$CMDLINE")
    functions += functions_of_init("mount_tmpfs() {", "mkdir -p /proc")
    script = f'{functions}\nmount() {{ echo "$@"; }}\nmount_tmpfs\n'
    for words, options in (
        ("quiet wwinit.tmpfs.size=25% x", "mode=0755,size=25%,mpol=interleave"),
        ("quiet", "mode=0755,mpol"),
    ):
        done = subprocess.run(
            ["sh", "-c", f'CMDLINE=$(mktemp); echo "{words}" > "$CMDLINE"; {script} rm "$CMDLINE"'],
            capture_output=True,
            text=True,
            check=True,
        )
        assert options in done.stdout


IPMITOOL = """#!/bin/sh
shift 2
echo "$*" >> {log}
case "$*" in
    'lan print 1')
        echo 'IP Address Source       : Static Address'
        echo 'IP Address              : 10.1.1.4'
        echo 'Subnet Mask             : 255.0.0.0'
        echo 'Default Gateway IP      : 10.1.0.1'
        echo '802.1q VLAN ID          : Disabled'
        ;;
    'user list 1')
        echo 'ID  Name             Callin  Link Auth  IPMI Msg   Channel Priv Limit'
        echo '2   admin            true    false      true       ADMINISTRATOR'
        ;;
    user\\ test*) exit 1 ;;
esac
"""


@pytest.mark.parametrize("shell", ["dash", "busybox sh"])
def test_overlay_wwinit_programs_only_what_differs_in_the_bmc(paths: Paths, tmp_path: Path, shell: str) -> None:
    """A BMC is out of reach of a test: what would be said to one is written down."""
    files = one(paths, "wwinit", "full")
    (tmp_path / "config").write_bytes(files["warewulf/config"].data)
    log = tmp_path / "log"
    tool = tmp_path / "bin/ipmitool"
    tool.parent.mkdir()
    tool.write_text(IPMITOOL.replace("{log}", str(log)).replace("\\\\", "\\"))
    tool.chmod(0o755)
    for name in ("modprobe", "mknod"):
        (tool.parent / name).write_text("#!/bin/sh\n")
        (tool.parent / name).chmod(0o755)
    script = files["warewulf/init.d/50-ipmi"].text.replace("/warewulf/config", str(tmp_path / "config"))
    done = subprocess.run(
        [*shell.split(), "-c", script],
        env={"PATH": f"{tool.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = log.read_text().splitlines()
    assert "lan set 1 vlan id 7" in said
    assert "lan set 1 netmask 255.255.0.0" in said
    assert not [line for line in said if "ipaddr" in line or "ipsrc" in line or "user set name" in line]
    password = NODES["full"]["ipmi"]["password"]
    assert f"user set password 2 {password}" in said
    assert "sol set non-volatile-bit-rate 115.2 1" in said


def functions_of_init(first: str, last: str) -> str:
    """The text of /init from one function to the line before another: without what would restart this machine."""
    text = (SHARE / "overlays/wwinit/rootfs/init").read_text()
    return text[text.index(first) : text.index(last)]


@pytest.mark.root
@pytest.mark.parametrize("tar", ["tar", "busybox"])
def test_overlay_wwinit_copies_the_image_into_a_tmpfs(tmp_path: Path, tar: str) -> None:
    root = tmp_path / "root"
    for folder in ("bin", "proc", "sys", "dev", "run", "newroot", "data", "usr/lib"):
        (root / folder).mkdir(parents=True)
    for program in {"busybox", tar}:
        where = shutil.which(program)
        assert where
        install(Path(where), root)
    for applet in ("sh", "mkdir", "mount", "tar", "cat", "ls"):
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    (root / "data/file").write_text("content")
    os.chown(root / "data/file", 1234, 4321)
    (root / "data/file").chmod(0o4750)
    os.link(root / "data/file", root / "data/hard")
    (root / "data/soft").symlink_to("file")
    (root / "lib-link").symlink_to("usr/lib")
    (root / "run/secret").write_text("not to be copied")
    os.mknod(root / "data/null", 0o20640, os.makedev(1, 3))
    functions = functions_of_init("# Copy the initramfs", "mkdir -p /proc").replace("/proc/cmdline", "/cmdline")
    functions += functions_of_init("# Value of NAME=", "mounted() {").replace("/proc/cmdline", "/cmdline")
    (root / "cmdline").write_text("quiet wwinit.tmpfs.size=64m\n")
    (root / "test.sh").write_text(f"{functions}\nmount_tmpfs || exit 3\ncopy_root || exit 4\n")
    look = f"""
        chroot {root} /bin/sh /test.sh || exit
        cd {root}/newroot
        stat -c '%n %F %a %u %g %h' data/file data/hard data/soft data/null lib-link run
        ls run newroot 2> /dev/null
        stat -f -c '%T %b %S' .
    """
    done = subprocess.run(["unshare", "--mount", "sh", "-c", look], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        "data/file regular file 4750 1234 4321 2",
        "data/hard regular file 4750 1234 4321 2",
        "data/soft symbolic link 777 0 0 1",
        "data/null character special file 640 0 0 1",
        "lib-link symbolic link 777 0 0 1",
    ]
    assert lines[5].startswith("run directory 755")
    assert lines[6] == "run:", "empty, and no newroot in itself"
    kind, blocks, size = lines[7].split()
    assert (kind, int(blocks) * int(size)) == ("tmpfs", 64 << 20)


def install(program: Path, root: Path) -> None:
    """A program and its libraries below `root`."""
    shutil.copy2(program, root / "bin" / program.name)
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+)", listed):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)


# ---- Names, users, keys ------------------------------------------------------------------------------------------


def test_overlay_hosts_names_every_device_of_every_node(paths: Paths) -> None:
    lines = lay(paths, ["hosts"])["minimal"]["etc/hosts"].text.splitlines()
    assert "10.0.1.4 full full-lan full-eth0" in lines
    assert "fd00:1::4 full full-lan full-eth0" in lines
    assert "10.3.1.4 full-bond full-bond0" in lines
    assert "fd00:1::3 ipv6 ipv6-default ipv6-eth0" in lines
    assert any(line.startswith("10.0.0.1 ") and line.endswith(" warewulf") for line in lines)


def test_overlay_ssh_keys_are_private_and_never_empty(paths: Paths) -> None:
    assert not [path for path, file in one(paths, "ssh.host_keys", "static").items() if not file.directory]
    keys = paths.etc / "keys"
    keys.mkdir()
    (keys / "ssh_host_ed25519_key").write_text("PRIVATE\n")
    (keys / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 PUBLIC\n")
    files = {path: file for path, file in one(paths, "ssh.host_keys", "static").items() if not file.directory}
    assert set(files) == {"etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub"}
    assert files["etc/ssh/ssh_host_ed25519_key"] == File(0o600, b"PRIVATE\n")
    assert files["etc/ssh/ssh_host_ed25519_key.pub"] == File(0o644, b"ssh-ed25519 PUBLIC\n")


def test_overlay_authorized_keys_are_the_servers(paths: Paths) -> None:
    (paths.root / "root/.ssh").mkdir(parents=True)
    (paths.root / "root/.ssh/authorized_keys").write_text("ssh-ed25519 ME\n")
    files = one(paths, "ssh.authorized_keys", "static")
    assert files["root/.ssh/authorized_keys"] == File(0o600, b"ssh-ed25519 ME\n")
    assert (files["root"].mode, files["root/.ssh"].mode) == (0o700, 0o700)


def test_overlay_syncuser_takes_the_first_line_of_a_name(paths: Paths) -> None:
    (paths.root / "etc/passwd").write_text("root:x:0:0:server:/root:/bin/sh\ngrace:x:1000:1000::/home/grace:/bin/sh\n")
    (paths.root / "etc/group").write_text("root:x:0:\ngrace:x:1000:\n")
    files = lay(paths, ["syncuser"])
    full = files["full"]["etc/passwd"].text.splitlines()
    assert full[0] == "root::0:0:root:/root:/bin/bash", "without a password, because the tag says so"
    assert full[1:] == ["grace:x:1000:1000::/home/grace:/bin/sh", "ada:x:2001:2001:Ada L.:/home/ada:/bin/bash"]
    assert files["full"]["etc/group"].text.splitlines()[1:] == [
        "grace:x:1000:",
        "ada:x:2001:",
        "users2:x:2002:ada,root",
    ]
    assert files["static"]["etc/passwd"].text.startswith("root:x:0:0:server")


def test_overlay_syncuser_never_writes_an_empty_file(paths: Paths) -> None:
    assert "etc/passwd" not in one(paths, "syncuser", "static")


def test_overlay_localtime_is_the_tag_or_the_servers(paths: Paths) -> None:
    assert one(paths, "localtime", "full")["etc/localtime"].link == "/usr/share/zoneinfo/Europe/Berlin"
    assert "etc/localtime" not in one(paths, "localtime", "static")


def test_overlay_resolv_collects_servers_and_domains(paths: Paths) -> None:
    text = one(paths, "resolv", "full")["etc/resolv.conf"].text
    assert text == "search cluster.example example\nnameserver 10.0.0.1\nnameserver fd00:1::1\n"
    assert "etc/resolv.conf" not in one(paths, "resolv", "minimal")


def test_overlay_chrony_uses_tags_or_the_server(paths: Paths) -> None:
    files = lay(paths, ["chrony"])
    assert files["minimal"]["etc/chrony.conf"].text.startswith("server 10.0.0.1 iburst\ndriftfile")
    assert files["full"]["etc/chrony/chrony.conf"].text.startswith("server 10.0.0.1 iburst\nserver 10.0.0.2 iburst\n")


# ---- Disks -------------------------------------------------------------------------------------------------------


def test_overlay_fstab_mounts_local_file_systems_with_their_options(paths: Paths) -> None:
    lines = one(paths, "fstab", "full")["etc/fstab"].text.splitlines()
    assert r"/dev/disk/by-partlabel/scratch /scratch\040space ext4 noauto,noatime,nofail 0 0" in lines
    assert "/dev/disk/by-partlabel/swap none swap noauto,defaults 0 0" in lines
    assert "warewulf:/home /home nfs defaults,nofail 0 0" in lines
    assert r"warewulf:/my\040data /my\040data nfs4 defaults 0 0" in lines
    assert one(paths, "fstab", "odd")["etc/fstab"].text.splitlines()[-1] == "/dev/c /c auto noauto,defaults 0 0"


def test_overlay_ignition_describes_disks_and_links_its_units(paths: Paths) -> None:
    files = one(paths, "ignition", "full")
    document = json.loads(files["warewulf/ignition.json"].text)
    partition = document["storage"]["disks"][0]["partitions"][0]
    assert (partition["label"], partition["sizeMiB"], "startMiB" in partition) == ("scratch", 1024, False)
    assert document["storage"]["filesystems"][0]["mountOptions"] == ["noatime", "nofail"]
    units = "etc/systemd/system"
    mount = r"scratch\x20space.mount"
    assert files[f"{units}/local-fs.target.wants/{mount}"].link == f"../{mount}"
    assert "Where=/scratch space" in files[f"{units}/{mount}"].text
    assert "warewulf/ignition.json" not in one(paths, "ignition", "static")


def test_overlay_ignition_does_nothing_where_the_disks_are_ready(tmp_path: Path) -> None:
    text = (SHARE / "overlays/ignition/rootfs/warewulf/wwinit.d/10-ignition.sh").read_text()
    ready, ignition = tmp_path / "ready", tmp_path / "ignition"
    ignition.write_text("#!/bin/sh\necho ran\n")
    ignition.chmod(0o755)
    (tmp_path / "warewulf").mkdir()
    (tmp_path / "warewulf/ignition.json").write_text("{}\n")
    script = text.replace("/run/wwinit.ready", str(ready)).replace("/usr/bin/ignition", str(ignition))
    said = []
    for _ in range(2):
        command = ["sh", "-c", script]
        done = subprocess.run(
            command, env={"PREFIX": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, check=True
        )
        said.append(done.stdout)
        ready.touch()
    assert said == [b"ran\n", b""]


def test_overlay_systemd_service_and_mig_are_units_of_what_the_node_says(paths: Paths) -> None:
    home = "etc/systemd/system"
    services = {
        "site-tuning": {"Type": "oneshot", "RemainAfterExit": "yes", "ExecStart": "/bin/true", "WantedBy": "a.target"},
        "minimal": {},
    }
    node = {"resources": {"systemd.service": services}, "tags": {"gpuMigProfiles": "2,2::1g.5gb"}}
    files = lay(paths, ["systemd.service", "mig"], {"n1": node})["n1"]
    tuning = files[f"{home}/site-tuning.service"].text
    assert "After=network-online.target\n" in tuning
    assert "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n" in tuning
    assert files[f"{home}/a.target.wants/site-tuning.service"].link == "../site-tuning.service"
    assert files[f"{home}/multi-user.target.wants/minimal.service"].link == "../minimal.service"
    assert [
        line for line in files[f"{home}/ww-nvidia-mig.service"].text.splitlines() if line.startswith("ExecStart=")
    ] == [
        "ExecStart=/usr/bin/nvidia-smi mig -cgi 2,2 -i 0 -C",
        "ExecStart=/usr/bin/nvidia-smi mig -cgi 1g.5gb -i 2 -C",
    ]
    assert files[f"{home}/multi-user.target.wants/ww-nvidia-mig.service"].link == "../ww-nvidia-mig.service"
    assert (
        "ExecStart=/usr/bin/nvidia-smi mig -cgi 2,2 -C\n"
        in one(paths, "mig", "nodev")[f"{home}/ww-nvidia-mig.service"].text
    )
    assert one(paths, "systemd.service", "nodev").get(f"{home}/ww-service") is None


@pytest.mark.parametrize("overlay", ["wwclient", "ignition", "systemd.mount", "systemd.swap"])
def test_overlay_links_of_units_point_to_units(paths: Paths, overlay: str) -> None:
    files = one(paths, overlay, "full")
    links = {path: file.link for path, file in files.items() if file.link is not None}
    assert links
    for path, target in links.items():
        assert str(Path(path).parent.parent / Path(str(target)).name) in files, "no unit is wanted that is not there"


# ---- Networks ----------------------------------------------------------------------------------------------------


def test_overlay_wicked_is_well_formed_and_covers_every_kind(paths: Paths) -> None:
    folder = "etc/wicked/ifconfig"
    texts: dict[str, str] = {}
    for node, files in lay(paths, ["wicked"]).items():
        for path, file in files.items():
            if path.endswith(".xml"):
                # wicked's prefixes are no XML namespaces: declare them for the parser.
                opening = '<interface xmlns:ipv4="4" xmlns:ipv6="6" '
                minidom.parseString(file.text.replace("<interface ", opening))
                texts[f"{node}/{Path(path).name}"] = file.text
    assert not [name for name in texts if name.startswith("nodev")]
    assert "<tag>101</tag>" in texts["full/ifcfg-storage.xml"]
    assert "<mode>802.3ad</mode>" in texts["full/ifcfg-bond.xml"]
    assert "<master>bond0</master>" in texts["full/ifcfg-one.xml"]
    assert "<local>fd00:1::3/64</local>" in texts["ipv6/ifcfg-default.xml"]
    assert "<mode>connected</mode>" in texts["full/ifcfg-fabric.xml"]
    assert folder + "/ifcfg-lan.xml" in lay(paths, ["wicked"])["full"]


def test_overlay_ifcfg_can_be_sourced_and_covers_every_kind(paths: Paths, tmp_path: Path) -> None:
    folder = "etc/sysconfig/network-scripts"
    for files in lay(paths, ["ifcfg"]).values():
        for path, file in files.items():
            if "/ifcfg-" in path:
                subprocess.run(["sh", "-euc", file.text], check=True, cwd=tmp_path)
    full = one(paths, "ifcfg", "full")
    assert "BONDING_OPTS='mode=802.3ad miimon=50" in full[f"{folder}/ifcfg-bond.conf"].text
    assert "MASTER=bond0\nSLAVE=yes\n" in full[f"{folder}/ifcfg-one.conf"].text
    assert "PHYSDEV=eth0\nVLAN_ID=100\n" in full[f"{folder}/ifcfg-tagged.conf"].text
    assert "CONNECTED_MODE=yes\n" in full[f"{folder}/ifcfg-fabric.conf"].text
    assert "ONBOOT=no\n" in full[f"{folder}/ifcfg-later.conf"].text
    assert full[f"{folder}/route-lan.conf"].text == "10.9.0.0/16 via 10.0.0.9\n"
    assert full[f"{folder}/route6-lan.conf"].text == "fd00:9::/64 via fd00:1::9\n"
    static = one(paths, "ifcfg", "static")[f"{folder}/ifcfg-default.conf"].text
    for line in ("HWADDR=52:54:00:00:00:02", "IPADDR=10.0.1.2", "PREFIX=16", "MTU=9000", "DNS2=10.0.0.2"):
        assert line in static.splitlines()
    assert "BOOTPROTO=none\n" in one(paths, "ifcfg", "minimal")[f"{folder}/ifcfg-default.conf"].text


@pytest.mark.parametrize(
    "overlay", ["resolv", "NetworkManager", "systemd.networkd", "ifcfg", "ifupdown", "netplan", "wicked"]
)
@pytest.mark.parametrize("tag", ["DNS", "DNS1", "DNS27"])
def test_overlay_every_network_takes_a_name_server_with_and_without_a_number(
    paths: Paths, overlay: str, tag: str
) -> None:
    device = {"device": "eth0", "ipaddr": "10.5.0.9", "netmask": "255.255.255.0", "tags": {"DNSSEARCH": "not.a.server"}}
    node = {"network devices": {"default": {**device, "tags": {**device["tags"], tag: "10.5.0.2"}}}}
    text = "".join(file.text for file in lay(paths, [overlay], {"n": node})["n"].values() if not file.directory)
    assert text.count("10.5.0.2") == (0 if overlay == "wicked" else 1)


def test_overlay_names_of_devices_go_by_hardware_address(paths: Paths) -> None:
    rules = one(paths, "udev.netname", "full")["etc/udev/rules.d/70-persistent-net.rules"].text
    assert 'ATTR{address}=="52:54:00:00:00:04", ATTR{type}=="1", NAME="eth0"' in rules
    assert 'ATTR{address}=="*00:11:22:33:44:55:66:77", ATTR{type}=="32", NAME="ib0"' in rules
    assert "bond0" not in rules
    assert "eth0.100" not in rules
    link = one(paths, "systemd.netname", "static")["etc/systemd/network/10-warewulf-default.link"].text
    assert link == "[Match]\nMACAddress=52:54:00:00:00:02\nType=ether\n\n[Link]\nName=eth0\n"


def test_overlay_secrets_are_readable_by_root_alone(paths: Paths) -> None:
    (paths.etc / "keys").mkdir()
    (paths.etc / "keys/ssh_host_rsa_key").write_text("SECRET-KEY\n")
    node = {**NODES["full"], "ipmi": {**NODES["full"]["ipmi"], "password": "SECRET-WORD"}}
    for overlay in SHIPPED:
        for path, file in lay(paths, [overlay], {"full": node})["full"].items():
            if b"SECRET" in file.data:
                assert file.mode & 0o077 == 0, (overlay, path)


def test_overlay_debug_shows_what_there_is(paths: Paths) -> None:
    text = one(paths, "debug", "full")["tstruct.md"].text
    block = text.split("```yaml\n")[1].split("```")[0]
    seen = yaml.load(block.encode(), "tstruct.md")
    assert isinstance(seen, dict)
    assert "network_devices.lan: primary true, ip_cidr 10.0.1.4/16" in text


def test_overlay_host_is_for_the_server(paths: Paths) -> None:
    (paths.root / "etc/hosts").write_text("127.0.0.1 localhost\n192.0.2.1 own\n# Do not edit after this line\nold\n")
    files = lay(paths, ["host"])["static"]
    hosts = files["etc/hosts"].text.splitlines()
    assert hosts[:3] == ["127.0.0.1 localhost", "192.0.2.1 own", "# Do not edit after this line"]
    assert "old" not in hosts
    assert "10.0.1.2 static static-default static-eth0" in hosts
    assert files["etc/exports"].text.splitlines() == [
        "/home 10.0.0.0/16(rw,sync,no_subtree_check)",
        "/opt 10.0.0.0/16(ro)",
    ]
    for shell, name in (("sh", "ssh_setup.sh"),):
        subprocess.run([shell, "-n"], input=files[f"etc/profile.d/{name}"].data, check=True)


def test_overlay_host_writes_what_an_external_dhcp_server_needs(paths: Paths) -> None:
    files = lay(paths, ["host"])["static"]
    dhcpd, dnsmasq = files["etc/dhcp/dhcpd.conf"].text, files["etc/dnsmasq.d/wwfast.conf"]
    assert dhcpd.count("{") == dhcpd.count("}")
    entry = dhcpd[dhcpd.index("host static-default") :].split("}")[0]
    assert [line.strip() for line in entry.splitlines()[1:]] == [
        "hardware ethernet 52:54:00:00:00:02;",
        "fixed-address 10.0.1.2;",
        'option host-name "static";',
    ]
    assert "80:00:02:08" not in dhcpd, "InfiniBand has no Ethernet address"
    script = "http://10.0.0.1:9873/ipxe/${mac:hexhyp}?assetkey=${asset:uristring}&uuid=${uuid}&memsize=${memsize}"
    binaries = {name for line in dnsmasq.text.splitlines() for name in re.findall(r"warewulf/([^,]+),,10", line)}
    assert binaries == {"undionly.kpxe", "ipxe-snponly-x86_64.efi", "arm64-snponly.efi"}
    for text in (dhcpd, dnsmasq.text):
        assert script in text
    write({"dnsmasq.conf": dnsmasq}, paths.root)
    run(["dnsmasq", "--test", f"--conf-file={paths.root / 'dnsmasq.conf'}"], package="dnsmasq-base")
