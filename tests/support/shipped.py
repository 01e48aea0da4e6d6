"""Rendering shipped overlays for nodes of a test: what a node would get, path by path."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.overlays import body
from wwfast.config import settings, yaml
from wwfast.nodes.registry import Registry
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import SHARE, Paths

SHIPPED = sorted(path.name for path in (SHARE / "overlays").iterdir() if path.is_dir())
CONF = """\
ipaddr: 10.0.0.1/16
warewulf: {port: 9873, secure: true, update interval: 60}
nfs: {enabled: true, export paths: [{path: /home}, {path: /opt, export options: ro}]}
"""

IB = "80:00:02:08:fe:80:00:00:00:00:00:00:00:11:22:33:44:55:66:77"

NODES: dict[str, dict[str, Any]] = {
    "minimal": {"network devices": {"default": {"hwaddr": "52:54:00:00:00:01"}}},
    "nodev": {},
    "static": {
        "network devices": {
            "default": {
                "device": "eth0",
                "hwaddr": "52-54-00-00-00-02",
                "ipaddr": "10.0.1.2",
                "netmask": "255.255.0.0",
                "gateway": "10.0.0.1",
                "mtu": "9000",
                "tags": {"DNS1": "10.0.0.1", "DNS2": "10.0.0.2", "DNSSEARCH": "cluster.example;example"},
            }
        }
    },
    "ipv6": {
        "network devices": {
            "default": {
                "device": "eth0",
                "hwaddr": "52:54:00:00:00:03",
                "ipaddr6": "fd00:1::3",
                "prefixlen6": "64",
                "gateway6": "fd00:1::1",
                "tags": {"DNS": "fd00:1::1", "route1": "fd00:2::/64,fd00:1::fe"},
            }
        }
    },
    "full": {
        "image name": "img",
        "cluster name": "rack1",
        "primary network": "lan",
        "init": "/sbin/init",
        "root": "tmpfs",
        "kernel": {"version": "6.1.0", "args": ["quiet"]},
        "ipmi": {
            "ipaddr": "10.1.1.4",
            "netmask": "255.255.0.0",
            "username": "admin",
            "password": 'it\'s "$HOME"',
            "write": "true",
            "tags": {"vlan": "7", "bit-rate": "115.2"},
        },
        "network devices": {
            "lan": {
                "device": "eth0",
                "hwaddr": "52:54:00:00:00:04",
                "ipaddr": "10.0.1.4",
                "netmask": "255.255.0.0",
                "gateway": "10.0.0.1",
                "ipaddr6": "fd00:1::4",
                "prefixlen6": "64",
                "gateway6": "fd00:1::1",
                "tags": {
                    "DNS1": "10.0.0.1",
                    "DNS2": "fd00:1::1",
                    "DNSSEARCH": "cluster.example example",
                    "route1": "10.9.0.0/16,10.0.0.9",
                    "route2": "fd00:9::/64,fd00:1::9",
                },
            },
            "tagged": {
                "type": "vlan",
                "device": "eth0.100",
                "ipaddr": "10.100.1.4",
                "netmask": "255.255.255.0",
            },
            "storage": {
                "type": "vlan",
                "device": "store",
                "ipaddr": "10.101.1.4",
                "netmask": "255.255.255.0",
                "mtu": "1400",
                "tags": {"parent_device": "bond0", "vlan_id": "101"},
            },
            "bond": {
                "type": "bond",
                "device": "bond0",
                "hwaddr": "52:54:00:00:00:05",
                "ipaddr": "10.3.1.4",
                "netmask": "255.255.255.0",
                "tags": {"mode": "802.3ad", "miimon": "50", "xmit_hash_policy": "layer3+4"},
            },
            "one": {"device": "eth1", "hwaddr": "52:54:00:00:00:05", "tags": {"master": "bond0"}},
            "two": {"device": "eth2", "hwaddr": "52:54:00:00:00:06", "tags": {"master": "bond0"}},
            "fabric": {
                "type": "infiniband",
                "device": "ib0",
                "hwaddr": IB,
                "ipaddr": "10.4.1.4",
                "netmask": "255.255.0.0",
                "mtu": "65520",
            },
            "later": {
                "device": "eth3",
                "hwaddr": "52:54:00:00:00:07",
                "onboot": "no",
                "ipaddr": "10.5.1.4",
                "netmask": "255.255.255.0",
            },
        },
        "tags": {"localtime": "Europe/Berlin", "ntp_servers": "10.0.0.1, 10.0.0.2", "PasswordlessRoot": "true"},
        "disks": {
            "/dev/vda": {
                "wipe_table": "true",
                "partitions": {"scratch": {"number": "1", "size_mib": "1024", "should_exist": "true"}},
            }
        },
        "filesystems": {
            "/dev/disk/by-partlabel/scratch": {
                "format": "ext4",
                "path": "/scratch space",
                "mount_options": "noatime,nofail",
            },
            "/dev/disk/by-partlabel/swap": {"format": "swap"},
        },
        "resources": {
            "fstab": [
                {"spec": "warewulf:/home", "file": "/home", "mntops": "defaults,nofail"},
                {"spec": "warewulf:/my data", "file": "/my data", "vfstype": "nfs4", "freq": 0, "passno": 0},
            ],
            "localusers": [{"name": "ada", "uid": 2001, "gecos": "Ada L."}],
            "localgroups": [{"name": "users2", "gid": 2002, "members": ["ada", "root"]}],
        },
    },
    "odd": {
        "comment": "%s {{ 7*7 }} $(touch /tmp/x) `id` \\ ' \" é",
        "root": "/dev/disk/by-label/it's",
        "network devices": {
            "with space": {
                "device": "enp0s3",
                "hwaddr": "52:54:00:00:00:08",
                "tags": {"DNSX": "no number", "routeless": "x"},
            },
        },
        "tags": {"any": '"; rm -rf / #', "localtime": ""},
        "filesystems": {"/dev/a b": {"path": "/"}, "/dev/c": {"path": "/c"}},
    },
}

# Devices of a bond, by every way to say so.
BONDS: dict[str, dict[str, Any]] = {
    name: {"ipaddr": "10.0.1.1", "netmask": "255.255.0.0", **device}
    for name, device in {
        "bond": {"type": "Bond", "device": "bond0", "tags": {"mode": "active-backup"}},
        "bond of infiniband": {
            "type": "Bond",
            "device": "bond0",
            "mtu": "2044",
            "tags": {"type": "infiniband", "mode": "active-backup"},
        },
        "infiniband member": {"type": "infiniband", "device": "ib0", "hwaddr": IB, "tags": {"master": "bond0"}},
        "bond-slave": {
            "type": "bond-slave",
            "device": "eth1",
            "hwaddr": "52:54:00:00:00:01",
            "tags": {"master": "bond0"},
        },
        "bond-slave of none": {"type": "bond-slave", "device": "eth2", "hwaddr": "52:54:00:00:00:02"},
        "vlan": {"type": "vlan", "device": "eth0.100"},
    }.items()
}


@dataclass(frozen=True)
class File:
    mode: int
    data: bytes
    link: str | None = None
    directory: bool = False

    @property
    def text(self) -> str:
        return self.data.decode()


def lay(
    paths: Paths, overlays: list[str], nodes: dict[str, dict[str, Any]] | None = None, conf: str = CONF
) -> dict[str, dict[str, File]]:
    """node -> path -> what the node gets there from these overlays."""
    wanted = NODES if nodes is None else nodes
    paths.conf.write_text(conf)
    for name in {node["image name"] for node in wanted.values() if "image name" in node}:
        (paths.chroots / name / "rootfs").mkdir(parents=True, exist_ok=True)
    document = {
        "nodeprofiles": {},
        "nodes": {name: {**node, "system overlay": overlays} for name, node in wanted.items()},
    }
    paths.nodes_conf.write_text(yaml.dump(document))
    snapshot = Registry(paths).snapshot()
    service = OverlayService(paths, settings.load(paths))
    try:
        return {name: unpack(service, snapshot, snapshot.nodes[name]) for name in wanted}
    finally:
        service.close()


def unpack(service: OverlayService, snapshot: Any, node: Any) -> dict[str, File]:
    data = body(service.artefact(snapshot, node, "system", "tar"))
    found: dict[str, File] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            reader = archive.extractfile(member) if member.isreg() else None
            found[member.name.removeprefix("./")] = File(
                member.mode,
                reader.read() if reader else b"",
                member.linkname if member.issym() else None,
                member.isdir(),
            )
    return found


def write(files: dict[str, File], root: Path) -> None:
    """Lay the files of a node below a directory."""
    for path, file in files.items():
        target = root / path
        if file.directory:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.link is not None:
            target.unlink(missing_ok=True)
            target.symlink_to(file.link)
        else:
            target.write_bytes(file.data)
            target.chmod(file.mode)
