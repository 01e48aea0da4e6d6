"""A nodes.conf written by hand with every field there is: listed, edited, exported, and back the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from wwfast.cli.main import main
from wwfast.config.schema import Fields, Kind, fields
from wwfast.nodes.merge import SCHEMA
from wwfast.nodes.text.source import Source
from wwfast.paths import Paths

HAND = """\
# Cluster of the north wing. Ask before touching rack 3!
nodeprofiles:
  default:               # for everybody
    comment: "This profile is automatically included: yes"
    profiles: []
    cluster name: north
    groups: [compute, "010"]
    image name: rocky9
    ipxe template: default
    runtime overlay:
    - hosts
    - ssh.authorized_keys
    system overlay: [wwinit, wwclient, fstab]
    kernel:
      version: "5.14"
      args:
        - quiet          # less noise
        - crashkernel=no
      override: mainline
    ipmi: {username: root, password: 'pa ss: #1', interface: lanplus, port: 623, escapechar: "~",
           write: yes, template: ipmitool.tmpl, netmask: 255.255.0.0, gateway: 10.1.0.254}
    init: /sbin/init
    root: initramfs
    wwfast: {two stage: auto, upper: zram, cache: LABEL=cache, disk root: update}
    resources:
      fstab:
        - spec: warewulf:/home
          file: /home
          vfstype: nfs
          freq: 0
      flags: {debug: no, level: 3, "9": "9"}

nodes:
  # rack 1
  n1:
    discoverable: "false"
    asset key: 0042
    profiles:
      - default
    comment: >-
      first of
      its kind
    system overlay: [~fstab]
    ipmi:
      ipaddr: 10.1.0.1
      tags: {vlan: 7}
    network devices:
      default:
        type: ethernet
        onboot: true
        device: eth0
        hwaddr: 00:11:22:33:44:55
        ipaddr: 10.0.0.1
        netmask: 255.255.0.0
        gateway: 10.0.0.254
        ipaddr6: fd00::1
        prefixlen6: 64
        gateway6: fd00::254
        mtu: 9000
        tags:
          vlan: 010
    tags:
      on: off
    primary network: default
    disks:
      /dev/sda:
        wipe_table: yes
        partitions:
          root:
            number: 1
            size_mib: 4096
            start_mib: 1
            type_guid: 0FC63DAF-8483-4772-8E79-3D69D8477DE4
            guid: 01234567-89AB-CDEF-0123-456789ABCDEF
            wipe_partition_entry: false
            should_exist: true
            resize: no
    filesystems:
      /dev/disk/by-partlabel/root:
        format: ext4
        path: /
        wipe_filesystem: true
        label: root
        uuid: 00000000-0000-0000-0000-000000000001
        options: [-E, lazy_itable_init=1]
        mount_options: noatime,ro
  n2: {}
# the end
"""


def every(schema: Fields, tree: dict[str, object], above: str = "") -> set[str]:
    """Declared keys that the tree does not use, by path."""
    missing: set[str] = set()
    for key, spec in schema.items():
        value = tree.get(key)
        if spec.struct is not None:
            inner = value or {}
            assert isinstance(inner, dict)
            if spec.kind is Kind.STRUCTS:
                inner = next(iter(inner.values()), {})
            missing |= every(fields(spec.struct), inner, f"{above}{key}.")
        elif value is None:
            missing.add(above + key)
    return missing


def wwfast(paths: Paths, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["--root", str(paths.root), *words])
    out, err = capsys.readouterr()
    assert (caught.value.code or 0, err) == (0, "")
    return out


def test_nodes_conf_by_hand_has_every_field_and_comes_back(
    paths: Paths, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trees = Source.parse(HAND.encode(), "x").trees
    default, node = dict(trees["nodeprofiles"]["default"]), dict(trees["nodes"]["n1"])
    assert every(SCHEMA, default) & every(SCHEMA, node) == set()

    paths.nodes_conf.write_text(HAND)
    listed = wwfast(paths, capsys, "node", "list", "-a", "n1")
    assert [line.split(maxsplit=3)[1:] for line in listed.splitlines()[2:]] == [
        line.split(maxsplit=2) for line in EXPECTED.splitlines()
    ]

    wwfast(paths, capsys, "node", "set", "n1", "--mtu", "1500", "--partsize", "8192", "--diskname", "/dev/sda",
           "--partname", "root", "--kernelargs", "ro", "--tagadd", "new=1", "--yes")  # fmt: skip
    assert paths.nodes_conf.read_text() == HAND.replace("mtu: 9000", 'mtu: "1500"').replace(
        "size_mib: 4096", 'size_mib: "8192"'
    ).replace("      on: off\n", '      on: off\n      new: "1"\n').replace(
        "    system overlay: [~fstab]\n", "    system overlay: [~fstab]\n    kernel:\n      args:\n        - ro\n"
    )
    wwfast(paths, capsys, "undo", "--yes")
    assert paths.nodes_conf.read_text() == HAND

    nodes, profiles = wwfast(paths, capsys, "node", "export"), wwfast(paths, capsys, "profile", "export")
    (tmp_path / "nodes.yaml").write_text(nodes)
    (tmp_path / "profiles.yaml").write_text(profiles)
    paths.nodes_conf.unlink()
    for noun in ("profile", "node"):
        with pytest.raises(SystemExit):
            main(["--root", str(paths.root), noun, "import", str(tmp_path / f"{noun}s.yaml"), "--yes", "--force"])
    capsys.readouterr()
    back = Source.read(paths.nodes_conf).trees
    assert {name: dict(back[name]) for name in back} == {name: dict(trees[name]) for name in trees}
    assert wwfast(paths, capsys, "node", "list", "-a", "n1") == listed


EXPECTED = """\
Discoverable -- false
AssetKey -- 0042
Profiles -- default
Comment -- first of its kind
ClusterName default north
Groups default compute,010
ImageName default rocky9
Ipxe default default
RuntimeOverlay default hosts,ssh.authorized_keys
SystemOverlay default,n1 wwinit,wwclient,fstab,~fstab
Kernel.Version default 5.14
Kernel.Args default quiet,crashkernel=no
Kernel.Override default mainline
Ipmi.UserName default root
Ipmi.Password default pa ss: #1
Ipmi.Ipaddr -- 10.1.0.1
Ipmi.Gateway default 10.1.0.254
Ipmi.Netmask default 255.255.0.0
Ipmi.Port default 623
Ipmi.Interface default lanplus
Ipmi.EscapeChar default ~
Ipmi.Write default yes
Ipmi.Template default ipmitool.tmpl
Ipmi.Tags[vlan] -- 7
Init default /sbin/init
Root default initramfs
Wwfast.TwoStage default auto
Wwfast.Upper default zram
Wwfast.Cache default LABEL=cache
Wwfast.DiskRoot default update
NetDevs[default].Type -- ethernet
NetDevs[default].OnBoot -- true
NetDevs[default].Device -- eth0
NetDevs[default].Hwaddr -- 00:11:22:33:44:55
NetDevs[default].Ipaddr -- 10.0.0.1
NetDevs[default].Netmask -- 255.255.0.0
NetDevs[default].Gateway -- 10.0.0.254
NetDevs[default].Ipaddr6 -- fd00::1
NetDevs[default].PrefixLen6 -- 64
NetDevs[default].Gateway6 -- fd00::254
NetDevs[default].MTU -- 9000
NetDevs[default].Tags[vlan] -- 010
Tags[on] -- off
PrimaryNetDev -- default
Disks[/dev/sda].WipeTable -- true
Disks[/dev/sda].Partitions[root].Number -- 1
Disks[/dev/sda].Partitions[root].SizeMiB -- 4096
Disks[/dev/sda].Partitions[root].StartMiB -- 1
Disks[/dev/sda].Partitions[root].TypeGuid -- 0FC63DAF-8483-4772-8E79-3D69D8477DE4
Disks[/dev/sda].Partitions[root].Guid -- 01234567-89AB-CDEF-0123-456789ABCDEF
Disks[/dev/sda].Partitions[root].WipePartitionEntry -- false
Disks[/dev/sda].Partitions[root].ShouldExist -- true
Disks[/dev/sda].Partitions[root].Resize -- false
FileSystems[/dev/disk/by-partlabel/root].Format -- ext4
FileSystems[/dev/disk/by-partlabel/root].Path -- /
FileSystems[/dev/disk/by-partlabel/root].WipeFileSystem -- true
FileSystems[/dev/disk/by-partlabel/root].Label -- root
FileSystems[/dev/disk/by-partlabel/root].UUID -- 00000000-0000-0000-0000-000000000001
FileSystems[/dev/disk/by-partlabel/root].Options -- -E,lazy_itable_init=1
FileSystems[/dev/disk/by-partlabel/root].MountOptions -- noatime,ro
Resources[flags] default {"debug": "no", "level": 3, "9": "9"}
Resources[fstab] default [{"spec": "warewulf:/home", "file": "/home", "vfstype": "nfs", "freq": 0}]
"""
