"""wwfast upgrade: what Warewulf 4.3 to 4.5 wrote, said as since 4.6; the expected files are written out."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.commands import Run, runner
from wwfast.config import former as settings
from wwfast.config import yaml
from wwfast.nodes import former
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

SECONDS = 20.0  # for 10,000 nodes on a busy machine; 2 to 3 s alone
MEMORY = 384  # MiB of data for 40,000 nodes; between 140 and 180 are needed


@pytest.fixture
def run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(paths, capsys)


# One entry as it was, as it is.
ENTRIES = {
    "the image": ("container name: el9", "image name: el9"),
    "an image under both names": ("container name: el8\nimage name: el9", "image name: el9"),
    "kernel keys side by side": (
        "kernel args: quiet ro\nkernel version: 5.14",
        "kernel:\n  version: 5.14\n  args: [quiet, ro]",
    ),
    "arguments as text": (
        "kernel: {args: 'quiet dyndbg=\"file a +p\"'}",
        "kernel: {args: [quiet, 'dyndbg=\"file a +p\"']}",
    ),
    "a kernel by path": ("kernel: {override: /boot/vmlinuz-5.14}", "kernel: {version: /boot/vmlinuz-5.14}"),
    "a kernel by version": ("kernel override: 5.14.0-70", "kernel: {version: 5.14.0-70}"),
    "a version beside an override": ("kernel: {override: 5.14, version: 6.1}", "kernel: {version: 6.1}"),
    "a BMC side by side": (
        "ipmi username: admin\nipmi ipaddr: 10.1.0.1\nipmi write: 'true'",
        "ipmi: {username: admin, ipaddr: 10.1.0.1, write: 'true'}",
    ),
    "a BMC in both forms": (
        "ipmi username: old\nipmi port: '623'\nipmi: {username: new}",
        "ipmi: {username: new, port: '623'}",
    ),
    "keys": ("keys: {rack: '7', row: a}\ntags: {row: b}", "tags: {row: b, rack: '7'}"),
    "tags that were taken out": (
        "tags: {a: x, b: y}\ntagsdel: [a]\nipmi: {tags: {c: z}, tagsdel: [c]}",
        "tags: {b: y}\nipmi: {tags: {}}",
    ),
    "overlays as text": (
        "runtime overlay: generic,site\nsystem overlay: wwinit",
        "runtime overlay: [generic, site]\nsystem overlay: [wwinit]",
    ),
    "dracut": ("ipxe template: dracut", "ipxe template: default\ntags: {IPXEMenuEntry: dracut}"),
    "a device with a prefix": (
        "network devices: {eth0: {ipcidr: 10.0.0.1/22, prefix: x}}",
        "network devices: {eth0: {ipaddr: 10.0.0.1, netmask: 255.255.252.0}}",
    ),
    "IPv6 of a device": (
        "network devices: {eth0: {ip6addr: 'fd00::1/64'}, eth1: {ipaddr6: 'fd00::2'}}",
        "network devices: {eth0: {ipaddr6: 'fd00::1', prefixlen6: '64'}, eth1: {ipaddr6: 'fd00::2'}}",
    ),
    "the primary device": (
        "network devices: {eth0: {primary: 'false'}, eth1: {default: 'true'}}",
        "network devices: {eth0: {}, eth1: {}}\nprimary network: eth1",
    ),
    "a primary network that was named": (
        "network devices: {eth0: {primary: 'true'}}\nprimary network: eth1",
        "network devices: {eth0: {}}\nprimary network: eth1",
    ),
    "a device with a netmask": (
        "network devices: {eth0: {ipcidr: 10.0.0.1/255.255.252.0}}",
        "network devices: {eth0: {ipaddr: 10.0.0.1, netmask: 255.255.252.0}}",
    ),
    "beside the new key, which says nothing": (
        "container name: a\nimage name:\nipmi port: '623'\nipmi: {port: }\nkeys: {row: a}\ntags: {row: }\n"
        "network devices: {a: {ipcidr: 10.0.0.1/24, ipaddr: '', netmask: }, b: {ipaddr6: 'fd00::1/64', prefixlen6: }}",
        "image name: a\nipmi: {port: '623'}\ntags: {row: a}\n"
        "network devices: {a: {ipaddr: 10.0.0.1, netmask: 255.255.255.0}, b: {ipaddr6: 'fd00::1', prefixlen6: '64'}}",
    ),
    "dracut, and tags that say nothing": (
        "ipxe template: dracut\ntags:\nkeys:",
        "ipxe template: default\ntags: {IPXEMenuEntry: dracut}",
    ),
    "what said nothing": ("disabled: 'false'\nid: n1\ncomment: c", "comment: c"),
    "4.6": (
        "image name: el9\nkernel: {args: [quiet], version: 6.1}\nruntime overlay: [hosts]\nsite: own",
        "image name: el9\nkernel: {args: [quiet], version: 6.1}\nruntime overlay: [hosts]\nsite: own",
    ),
}


def tree(text: str) -> yaml.Tree:
    return yaml.load(text.encode(), "test")


@pytest.mark.parametrize(("before", "after"), ENTRIES.values(), ids=ENTRIES)
def test_upgrade_of_an_entry(before: str, after: str) -> None:
    old = tree(before)
    made = former.Upgrade().entries({"nodeprofiles": {}, "nodes": {"n1": old}})
    assert made == {"nodeprofiles": {}, "nodes": {"n1": tree(after)}}
    assert old == tree(before), "the tree that was read is left alone"
    again = former.Upgrade()
    assert again.entries(made) == made
    assert not again.told, "what was upgraded needs no upgrade"


# What stands in the old form and in the new one, or where the new one cannot take it; what is told of it.
BOTH = {
    "container name: a\nimage name: b": "`container name: a` gave way to `image name: b`",
    "keys: {row: a, x: y}\ntags: {row: b}": "`keys: row: a` gave way to `tags: row: b`",
    "keys: {row: a}\ntags: [b]": "`keys: {'row': 'a'}` gave way to `tags: ['b']`",
    "ipxe template: dracut\ntags: [b]": "`ipxe template: dracut` gave way to `tags: ['b']`",
    "ipmi ipaddr: 10.1.0.1\nipmi: {ipaddr: 10.1.0.2}": "`ipmi ipaddr: 10.1.0.1` gave way to `ipmi: ipaddr: 10.1.0.2`",
    "ipmi ipaddr: 10.1.0.1\nipmi: x": "`ipmi ipaddr: 10.1.0.1` gave way to `ipmi: x`",
    "ipmi password: a\nipmi: {password: b}": "`ipmi password` gave way to `ipmi: password`",
    "kernel: {override: '5', version: '6'}": "`kernel: override: 5` gave way to `kernel: version: 6`",
    "network devices: {e: {ipcidr: 10.0.0.1/33}}": "`33` of `ipcidr: 10.0.0.1/33` is no netmask, and is gone",
    "network devices: {e: {ipcidr: 10.0.0.1/24, ipaddr: 10.0.0.2, netmask: 255.255.255.0}}": (
        "`ipcidr: 10.0.0.1/24` gave way to `ipaddr: 10.0.0.2`"
    ),
    "network devices: {e: {ipcidr: 10.0.0.1/24, netmask: 255.0.0.0}}": (
        "`ipcidr: 10.0.0.1/24` gave way to `netmask: 255.0.0.0`"
    ),
    "network devices: {e: {ipaddr6: 'fd00::1/64', prefixlen6: '48'}}": (
        "`ipaddr6: fd00::1/64` gave way to `prefixlen6: 48`"
    ),
    "network devices: {e: {primary: 'true'}}\nprimary network: f": "`primary: true` gave way to `primary network: f`",
}


@pytest.mark.parametrize(("before", "said"), BOTH.items(), ids=BOTH)
def test_upgrade_tells_of_everything_that_gives_way(before: str, said: str) -> None:
    run = former.Upgrade()
    made = run.entries({"nodeprofiles": {}, "nodes": {"n1": tree(before)}})
    (line,) = run.told
    assert line.startswith("node n1")
    assert line.endswith(said)
    again = former.Upgrade()
    assert (again.entries(made), again.told) == (made, [])


def test_upgrade_replaces_the_two_overlays_that_did_everything() -> None:
    run = former.Upgrade(replace_overlays=True)
    entry = tree("system overlay: [hosts, wwinit, site]\nruntime overlay: [generic, syncuser]")
    assert run.entry("nodes", "n1", entry) == {
        "system overlay": [
            *("hosts", "wwinit", "wwclient", "fstab", "hostname", "ssh.host_keys", "issue", "resolv", "udev.netname"),
            *("systemd.netname", "ifcfg", "ifupdown", "NetworkManager", "wicked", "ignition", "site"),
        ],
        "runtime overlay": ["hosts", "ssh.authorized_keys", "syncuser"],
    }


def test_upgrade_adds_defaults_where_nothing_is_said() -> None:
    sections = tree(
        """
nodeprofiles:
  default: {init: /bin/own, kernel: {args: [ro]}}
  net: {network devices: {eth0: {netmask: 255.0.0.0}, eth1: {}}}
nodes: {a: {}, b: {profiles: [net]}, c: ~}
"""
    )
    made = former.Upgrade(add_defaults=True).entries(sections)
    default = made["nodeprofiles"]["default"]
    assert (default["init"], default["root"], default["kernel"]) == ("/bin/own", "initramfs", {"args": ["ro"]})
    assert default["ipmi"] == {"template": "ipmitool.tmpl"}
    assert [line["file"] for line in default["resources"]["fstab"]] == ["/home", "/opt"]
    assert made["nodeprofiles"]["net"]["network devices"] == {
        "eth0": {"netmask": "255.0.0.0", "type": "ethernet"},
        "eth1": {"netmask": "255.255.255.0", "type": "ethernet"},
    }
    assert made["nodes"] == {"a": {"profiles": ["default"]}, "b": {"profiles": ["net"]}, "c": {"profiles": ["default"]}}


@pytest.mark.parametrize("old", sorted(former.OLD_KEYS | {"ipxe template", "profiles", "ipmi", "kernel"}))
@pytest.mark.parametrize(
    "new", ["image name", "tags", "ipmi", "kernel", "primary network", "network devices", "ipaddr6"]
)
def test_upgrade_takes_any_value_of_any_old_key(old: str, new: str) -> None:
    odd: list[yaml.Tree] = [None, "", "dracut", "a/b", [], ["a"], [{}], {}, {"a": None}, {"a": "b"}, {"a": {"b": "c"}}]
    for one in odd:
        for other in odd:
            device = {old: one, new: other}
            sections = {
                "nodeprofiles": {"default": device},
                "nodes": {"n1": {old: one, new: other}, "n2": {"network devices": {"e": device}}},
            }
            made = former.Upgrade(True, True, [{"file": "/home"}]).entries(sections)
            assert former.Upgrade().entries(made) == made


def test_upgrade_adds_nothing_to_a_default_profile_that_is_no_map() -> None:
    mounts = settings.mounts({"nfs": {"export paths": [{"path": "/home", "mount": "true"}]}})
    run = former.Upgrade(add_defaults=True, mounts=mounts)
    sections = {"nodeprofiles": {"default": "x"}, "nodes": {}}
    assert run.entries(sections) == sections
    assert run.told == ["profile default: is no map of keys, so nothing was filled in; it stays as it is"]


def test_upgrade_fills_null_devices_and_keeps_overlays_that_are_no_names() -> None:
    made = former.Upgrade(add_defaults=True, replace_overlays=True).entries(
        tree(
            "nodeprofiles: {p: {network devices: {eth0: , eth1: {type: }}}}\n"
            "nodes: {a: {system overlay: [{x: y}, wwinit]}}"
        )
    )
    both = {"type": "ethernet", "netmask": "255.255.255.0"}
    assert made["nodeprofiles"]["p"] == {"network devices": {"eth0": both, "eth1": both}}
    assert made["nodes"]["a"]["system overlay"][:2] == [{"x": "y"}, "wwinit"]


OLD = """\
WW_INTERNAL: 45
# our cluster
nodeprofiles:
  default:
    container name: el9 # tried in May
    asset key: nothing
    kernel: {args: quiet}
nodes:
  n1:
    profiles: [default]
    network devices:
      default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.1, primary: "true"}
  n2: # spare
    profiles: [default]
"""
NEW = """\
WW_INTERNAL: 45
# our cluster
nodeprofiles:
  default:
    image name: el9
    kernel: {args: [quiet]}
nodes:
  n1:
    profiles: [default]
    network devices:
      default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.1}
    primary network: default
  n2: # spare
    profiles: [default]
"""


def test_upgrade_nodes_in_place_and_back(paths: Paths, run: Run) -> None:
    paths.nodes_conf.write_text(OLD)
    status, out, _ = run("upgrade", "nodes", "--dry-run")
    assert status == 0
    assert "+    image name: el9" in out
    assert paths.nodes_conf.read_text() == OLD
    status, _, err = run("upgrade", "nodes", "--yes")
    assert status == 0
    assert "`asset key` had no effect in a profile and is gone" in err
    assert paths.nodes_conf.read_text() == NEW
    assert run("upgrade", "nodes")[1] == "no changes\n"
    assert run("undo", "--yes")[0] == 0
    assert paths.nodes_conf.read_text() == OLD


def test_upgrade_nodes_asks(paths: Paths, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.nodes_conf.write_text(OLD)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    status, out, _ = run("upgrade", "nodes")
    assert status == 0
    assert "upgraded" not in out
    assert paths.nodes_conf.read_text() == OLD
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "upgraded 2 entries" in run("upgrade", "nodes")[1]
    assert paths.nodes_conf.read_text() == NEW


def test_upgrade_nodes_from_and_to_other_files(paths: Paths, run: Run, tmp_path: Path) -> None:
    (tmp_path / "old").write_text(OLD)
    status, out, _ = run("upgrade", "nodes", "-i", tmp_path / "old", "-o", "-")
    assert (status, out) == (0, NEW)
    assert run("upgrade", "nodes", "-i", tmp_path / "old", "-o", tmp_path / "new", "--yes")[0] == 0
    assert (tmp_path / "new").read_text() == NEW
    assert not paths.nodes_conf.exists()


PRESENT = """\
nodes:
  m1:
    comment: another
  x1:
    comment: present
  x2:
    comment: present
"""
FORMER = """\
nodes:
  # the first
  m1:
    container name: z
"""


@pytest.fixture
def old(paths: Paths, tmp_path: Path) -> Path:
    """A file beside a nodes.conf that says something else."""
    paths.nodes_conf.write_text(PRESENT)
    (tmp_path / "old.conf").write_text(FORMER)
    return tmp_path / "old.conf"


def test_upgrade_nodes_from_another_file_shows_what_becomes_of_nodes_conf(paths: Paths, run: Run, old: Path) -> None:
    status, out, err = run("upgrade", "nodes", "-i", old, "--dry-run")
    assert status == 0
    removed = [line[1:] for line in out.splitlines() if line[0] == "-" and line[:3] != "---"]
    added = [line[1:] for line in out.splitlines() if line[0] == "+" and line[:3] != "+++"]
    assert removed == [line for line in PRESENT.splitlines() if line not in ("nodes:", "  m1:")]
    assert added == ["  # the first", "    image name: z"]
    assert f"node x[1-2] goes: it is not in {old}" in err
    assert paths.nodes_conf.read_text() == PRESENT


@pytest.mark.parametrize("target", [(), ("-o", "etc/../etc/warewulf/nodes.conf")], ids=["unsaid", "named"])
def test_upgrade_nodes_from_another_file_is_taken_back(
    paths: Paths, run: Run, old: Path, target: tuple[str, ...]
) -> None:
    before = sorted(paths.nodes_conf.parent.iterdir())
    words = [word if word == "-o" else f"{paths.root}/{word}" for word in target]
    status, out, _ = run("upgrade", "nodes", "-i", old, *words, "--yes")
    assert status == 0
    assert "`wwfast undo` takes it back" in out
    assert paths.nodes_conf.read_text() == FORMER.replace("container", "image")
    assert sorted(paths.nodes_conf.parent.iterdir()) == before, "the history has what was there"
    assert run("upgrade", "nodes", "-i", old)[1] == "no changes\n"
    assert f"upgrade nodes -i {old}" in run("undo", "--list")[1]
    assert run("undo", "--yes")[0] == 0
    assert paths.nodes_conf.read_text() == PRESENT


def test_upgrade_nodes_from_another_file_takes_the_place_of_one_that_cannot_be_read(
    paths: Paths, run: Run, old: Path
) -> None:
    paths.nodes_conf.write_bytes(b"a: [")
    assert run("upgrade", "nodes", "-i", old, "--yes")[0] == 0
    assert paths.nodes_conf.read_text() == FORMER.replace("container", "image")
    assert run("undo", "--yes")[0] == 0
    assert paths.nodes_conf.read_bytes() == b"a: ["


def test_upgrade_nodes_from_another_file_is_refused_where_nodes_conf_changes_meanwhile(
    paths: Paths, run: Run, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(io.StringIO):
        def readline(self, *args: int) -> str:
            paths.nodes_conf.write_text(PRESENT + "  x3: {}\n")
            return super().readline(*args)

    monkeypatch.setattr("sys.stdin", Slow("y\n"))
    status, _, err = run("upgrade", "nodes", "-i", old)
    assert (status, "was changed by someone else while you were asked" in err) == (1, True)
    assert paths.nodes_conf.read_text() == PRESENT + "  x3: {}\n"


def test_upgrade_nodes_from_nodes_conf_itself_is_in_place(paths: Paths, run: Run) -> None:
    paths.nodes_conf.write_text(OLD)
    assert "upgraded 2 entries" in run("upgrade", "nodes", "-i", paths.nodes_conf, "--yes")[1]
    assert run("undo", "--yes")[0] == 0
    assert paths.nodes_conf.read_text() == OLD


def test_upgrade_config_from_another_file_shows_what_becomes_of_the_one_that_is_there(
    paths: Paths, run: Run, tmp_path: Path
) -> None:
    paths.conf.write_text("ipaddr: 10.0.0.1\n")
    (tmp_path / "old.conf").write_text("WW_INTERNAL: 45\nnetmask: 255.255.0.0\n")
    out = run("upgrade", "config", "-i", tmp_path / "old.conf", "--dry-run")[1]
    assert "-ipaddr: 10.0.0.1\n+netmask: 255.255.0.0\n" in out
    assert "WW_INTERNAL" not in out


def test_upgrade_keeps_a_kernel_that_is_kept_apart() -> None:
    entry = {"kernel": {"override": "lts"}}
    assert former.Upgrade(kept={"lts"}.__contains__).entry("nodes", "n1", entry) == entry


def test_upgrade_carries_nfs_mounts_into_the_default_profile(paths: Paths, run: Run) -> None:
    paths.nodes_conf.write_text(OLD)
    paths.conf.write_text(
        """
nfs:
  export paths:
  - {path: /home, mount: true, mount options: "defaults,_netdev"}
  - {path: /opt, mount: false}
"""
    )
    assert run("upgrade", "nodes", "--yes")[0] == 0
    profile = yaml.load(paths.nodes_conf.read_bytes(), "nodes.conf")["nodeprofiles"]["default"]
    assert profile["resources"]["fstab"] == [
        {"spec": "warewulf:/home", "file": "/home", "vfstype": "nfs", "mntops": "defaults,_netdev"}
    ]


@pytest.mark.parametrize("said", ["~", "{}", "{resources: }", "{resources: {}}", "{resources: {fstab: }}"])
def test_upgrade_carries_nfs_mounts_wherever_nothing_is_said(paths: Paths, run: Run, said: str) -> None:
    paths.nodes_conf.write_text(f"nodeprofiles:\n  default: {said}\nnodes:\n  n1: {{}}\n")
    paths.conf.write_text("nfs:\n  export paths:\n  - path: /home\n    mount: true\n")
    assert run("upgrade", "nodes", "--yes")[0] == 0
    profile = yaml.load(paths.nodes_conf.read_bytes(), "nodes.conf")["nodeprofiles"]["default"]
    assert profile["resources"]["fstab"] == [{"spec": "warewulf:/home", "file": "/home", "vfstype": "nfs"}]


@pytest.mark.parametrize(("resources", "place"), [("{fstab: [{file: /x}]}", "resources: fstab"), ("[a]", "resources")])
def test_upgrade_tells_of_nfs_mounts_that_give_way(paths: Paths, run: Run, resources: str, place: str) -> None:
    paths.nodes_conf.write_text(f"nodeprofiles:\n  default:\n    resources: {resources}\nnodes: {{}}\n")
    paths.conf.write_text("nfs:\n  export paths:\n  - path: /home\n    mount: true\n")
    status, _, err = run("upgrade", "nodes", "--yes")
    assert status == 0
    assert f"profile default: the NFS mounts of /home in warewulf.conf gave way to `{place}`" in err


@pytest.mark.parametrize(
    "entry",
    [
        "container name: el9",
        "kernel: {args: quiet}",
        "runtime overlay: generic",
        "ipmi username: admin",
        "keys: {a: b}",
        "network devices: {eth0: {ipcidr: 10.0.0.1/24}}",
        "network devices: {eth0: {primary: 'true'}}",
    ],
)
def test_upgrade_is_named_by_whatever_tells_of_an_old_file(paths: Paths, run: Run, entry: str) -> None:
    paths.nodes_conf.write_text(yaml.dump({"nodes": {"n1": tree(entry)}}))
    _, _, err = run("node", "list", "n1")
    assert "wwfast upgrade nodes" in err
    _, out, _ = run("doctor", "n1")
    assert "\n    wwfast upgrade nodes\n" in out
    assert run("upgrade", "nodes", "--yes")[0] == 0
    assert not [it for it in Registry(paths).snapshot().problems if "upgrade" in it.message]


CONF = """\
WW_INTERNAL: 43
ipaddr: 10.0.0.254 # ours
ipv6net: fd00::fe/64
warewulf: {port: 9873, syslog: false, datastore: /usr/share}
tftp:
  tftproot: /srv/tftp
nfs:
  exports:
  - /home
paths:
  systemddir: /usr/lib/systemd/system
container mounts:
- source: /etc/hosts
  dest: /etc/hosts
"""


def test_upgrade_config_keeps_what_wwctl_lost(paths: Paths, run: Run) -> None:
    paths.conf.write_text(CONF)
    assert run("upgrade", "config", "--dry-run")[0] == 0
    assert paths.conf.read_text() == CONF
    status, out, _ = run("upgrade", "config", "--yes")
    assert status == 0
    assert f"mv {paths.conf}-old {paths.conf}" in out
    assert paths.conf.with_name(paths.conf.name + "-old").read_text() == CONF
    text = paths.conf.read_text()
    assert "ipaddr: 10.0.0.254 # ours\n" in text
    assert yaml.load(text.encode(), "") == {
        "ipaddr": "10.0.0.254",
        "warewulf": {"port": "9873"},
        "tftp": {"tftproot": "/srv/tftp"},
        "nfs": {"export paths": [{"path": "/home"}]},
        "paths": {"systemddir": "/usr/lib/systemd/system", "datadir": "/usr/share"},
        "ipaddr6": "fd00::fe",
        "prefixlen6": "64",
        "image mounts": [{"source": "/etc/hosts", "dest": "/etc/hosts"}],
    }
    assert run("upgrade", "config")[1] == "no changes\n"


# Of warewulf.conf: as it was, as it is, and how many lines are told.
CONFS = {
    "exports in one text": ("nfs: {exports: '/home, /opt'}", "nfs: {export paths: [{path: /home}, {path: /opt}]}", 0),
    "exports beside others": (
        "nfs: {exports: [/home, /opt, /opt], export paths: [{path: /home, export options: ro}]}",
        "nfs: {export paths: [{path: /home, export options: ro}, {path: /opt}]}",
        0,
    ),
    "exports that are none": ("nfs: {exports: {a: b}}", "{}", 1),
    "an export that is none": ("nfs: {exports: [home, /opt]}", "nfs: {export paths: [{path: /opt}]}", 1),
    "exports beside what is no list": (
        "nfs: {exports: [/opt], export paths: /home}",
        "nfs: {export paths: /home}",
        1,
    ),
    "mounts beside others": (
        "container mounts: [{source: /a}, {source: /c, dest: /b}]\nimage mounts: [{source: /b}]",
        "image mounts: [{source: /b}, {source: /a}]",
        1,
    ),
    "the same mounts twice": (
        "container mounts: [{source: /a}]\nimage mounts: [{source: /a}]",
        "image mounts: [{source: /a}]",
        0,
    ),
    "mounts that are none": ("container mounts: /a\nipaddr: 10.0.0.1", "ipaddr: 10.0.0.1", 1),
    "the length of a prefix": (
        "ipaddr6: 'fd00::1'\nipv6net: 'fd00::/64'",
        "ipaddr6: 'fd00::1'\nprefixlen6: '64'",
        0,
    ),
    "a length that is there": ("ipaddr6: 'fd00::1/64'\nipv6net: 'fd00::/64'", "ipaddr6: 'fd00::1/64'", 0),
    "another length": ("ipaddr6: 'fd00::1/56'\nipv6net: 'fd00::/64'", "ipaddr6: 'fd00::1/56'", 1),
    "another length by itself": (
        "ipaddr6: 'fd00::1'\nprefixlen6: '56'\nipv6net: 'fd00::/64'",
        "ipaddr6: 'fd00::1'\nprefixlen6: '56'",
        1,
    ),
    "another network": ("ipaddr6: 'fd01::1'\nipv6net: 'fd00::/64'", "ipaddr6: 'fd01::1'", 1),
    "a network that is none": ("ipv6net: x\nipaddr: 10.0.0.1", "ipaddr: 10.0.0.1", 1),
    "a data directory beside another": (
        "warewulf: {datastore: /a}\npaths: {datadir: /b}",
        "paths: {datadir: /b}",
        1,
    ),
    "a data directory beside nothing": ("warewulf: {datastore: /a}\npaths: {datadir: }", "paths: {datadir: /a}", 0),
    "a data directory beside what is no map": ("warewulf: {datastore: /a}\npaths: x", "paths: x", 1),
    "what says nothing": ("container mounts:\nipv6net:\nnfs: {exports: }\nipaddr: 10.0.0.1", "ipaddr: 10.0.0.1", 0),
}


@pytest.mark.parametrize(("before", "after", "lines"), CONFS.values(), ids=CONFS)
def test_upgrade_config_loses_nothing_untold(before: str, after: str, lines: int) -> None:
    made, told = settings.upgrade(tree(before))
    assert made == tree(after)
    assert len(told) == lines
    assert all(line.startswith("`") for line in told)
    assert settings.upgrade(made) == (made, [])


def test_upgrade_config_takes_any_value_of_any_old_key() -> None:
    odd: list[yaml.Tree] = [None, "", "a/b", [], ["a"], [{}], {}, {"a": "b"}]
    news = ("image mounts", "ipaddr6", "prefixlen6", "paths", "nfs", "warewulf")
    for old, new, one, other in itertools.product(settings.OLD_KEYS, news, odd, odd):
        outer = {old[-1]: one, "export paths": other} if len(old) > 1 else one
        made, _ = settings.upgrade({new: other, old[0]: outer})
        assert settings.upgrade(made)[0] == made


def test_upgrade_config_never_overwrites_a_former_file(paths: Paths, run: Run) -> None:
    for number in range(3):
        paths.conf.write_text(f"WW_INTERNAL: {number}\n")
        assert run("upgrade", "config", "--yes")[0] == 0
    kept = sorted(paths.conf.parent.glob(f"{paths.conf.name}-old*"))
    assert [path.read_text() for path in kept] == [f"WW_INTERNAL: {number}\n" for number in range(3)]


def test_upgrade_config_is_named_where_an_old_key_is_told(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    from wwfast.config.settings import load

    paths.conf.write_text(CONF)
    warnings = load(paths).warnings
    assert len(warnings) == 6
    assert all("wwfast upgrade config" in line for line in warnings)
    assert len(caplog.records) == 6


@pytest.mark.parametrize("what", ["nodes", "config"])
@pytest.mark.parametrize("bad", [b"- a\n", b"a: [", b"\xff\xfea", b"just text\n"])
def test_upgrade_refuses_what_is_no_such_file(paths: Paths, run: Run, what: str, bad: bytes) -> None:
    place = paths.nodes_conf if what == "nodes" else paths.conf
    place.write_bytes(bad)
    status, _, err = run("upgrade", what, "--yes")
    assert status == 1
    assert str(place) in err
    assert place.read_bytes() == bad


@pytest.mark.parametrize("words", ["nodes -i", "nodes --with-warewulfconf", "config -i"])
def test_upgrade_refuses_a_file_that_is_not_there(paths: Paths, run: Run, tmp_path: Path, words: str) -> None:
    paths.nodes_conf.write_text(OLD)
    status, _, err = run("upgrade", *words.split(), tmp_path / "nowhere", "--yes")
    assert status == 1
    assert f"there is no file {tmp_path}/nowhere" in err
    assert paths.nodes_conf.read_text() == OLD


def test_upgrade_of_ten_thousand_nodes(paths: Paths, run: Run) -> None:
    device = {"hwaddr": "52:54:00:00:00:01", "ipcidr": "10.0.0.1/16", "primary": "true"}
    nodes = {
        f"n{number:05d}": {"profiles": ["default"], "network devices": {"default": device}} for number in range(10_000)
    }
    paths.nodes_conf.write_text(yaml.dump({"nodeprofiles": {"default": {"container name": "x"}}, "nodes": nodes}))
    began = time.process_time()
    assert run("upgrade", "nodes", "--yes")[0] == 0
    assert time.process_time() - began < SECONDS
    assert len(Registry(paths).snapshot().nodes) == 10_000


@pytest.mark.slow
def test_upgrade_of_forty_thousand_nodes_is_bounded(paths: Paths) -> None:
    """Time in proportion to their number, and memory that a small server has: the kernel ends what takes more."""
    device = {"hwaddr": "52:54:00:00:00:01", "ipcidr": "10.0.0.1/16", "primary": "true"}
    entry = yaml.dump({"profiles": ["default"], "network devices": {"default": device}})
    text = "".join(f"    {line}\n" for line in entry.splitlines())
    nodes = "".join(f"  n{number:06d}:\n{text}" for number in range(40_000))
    paths.nodes_conf.write_text(f"nodeprofiles:\n  default:\n    container name: x\nnodes:\n{nodes}")
    words = ["prlimit", f"--data={MEMORY << 20}", f"--cpu={4 * SECONDS:.0f}"]
    words += [sys.executable, "-m", "wwfast", "--root", str(paths.root), "upgrade", "nodes", "--yes"]
    for said in ("upgraded 40001 entries", "no changes"):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stdout) == (0, True), done.stderr
    assert "ipcidr" not in paths.nodes_conf.read_text()


def test_upgrade_reads_mounts_of_nothing() -> None:
    for conf in (None, [], {"nfs": None}, {"nfs": {"export paths": ["x", {"mount": "true"}]}}):
        assert settings.mounts(conf) == []
