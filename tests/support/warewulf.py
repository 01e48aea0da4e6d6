"""Sites of Warewulf as it leaves them on a disk, written by us after what is known of its files; nobody's data."""

from __future__ import annotations

import gzip
from pathlib import Path

from wwfast.archive import newc
from wwfast.archive.newc import Entry
from wwfast.paths import Paths

CONF_45 = """\
WW_INTERNAL: 45
# our cluster
ipaddr: 10.0.0.1 # the head
netmask: 255.255.255.0
network: 10.0.0.0
warewulf:
  port: 9873
  secure: false
  update interval: 60
  autobuild overlays: true
  host overlay: true
  syslog: false
dhcp:
  enabled: true
  range start: 10.0.0.100
  range end: 10.0.0.199
  systemd name: isc-dhcp-server
tftp:
  enabled: true
  systemd name: tftpd-hpa
nfs:
  enabled: true
  export paths:
  - path: /home
    export options: rw,sync
    mount options: defaults
    mount: true
container mounts:
- source: /etc/resolv.conf
  dest: /etc/resolv.conf
  readonly: true
"""
NODES_45 = """\
WW_INTERNAL: 45
nodeprofiles:
  # all of them
  default:
    comment: of everybody
    container name: el9
    runtime overlay: [generic, motd]
    system overlay: [wwinit]
    kernel:
      args: quiet crashkernel=no console=ttyS0
    network devices:
      default:
        netmask: 255.255.255.0
nodes:
  n1: # the first
    profiles: [default]
    network devices:
      default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.11, primary: "true"}
  n2:
    profiles: [default]
    ipmi ipaddr: 10.9.0.2
    keys: {rack: "7"}
    network devices:
      default: {hwaddr: "52:54:00:00:00:02", ipaddr: 10.0.0.12}
"""
CONF_46 = """\
ipaddr: 10.0.0.1
netmask: 255.255.255.0
network: 10.0.0.0
warewulf: {port: 9873, secure: false, systemd name: warewulfd}
dhcp: {enabled: true, range start: 10.0.0.100, range end: 10.0.0.199, systemd name: dhcpd}
tftp: {enabled: true}
nfs: {enabled: false}
"""
NODES_46 = """\
nodeprofiles:
  default:
    image name: el9
    system overlay: [hostname]
    runtime overlay: [hosts, motd]
    kernel: {args: [quiet]}
nodes:
  n1:
    profiles: [default]
    network devices:
      default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.11, netmask: 255.255.255.0}
"""
# What stands in a site's overlays; those of Warewulf's packages before 4.6 are stand-ins for the real ones.
MOTD = {"etc/motd.ww": "this is {{ .Id }}\n", "etc/site.conf": "static\n"}
PACKAGED = {
    "wwinit": {"warewulf/config.ww": "WWIPADDR={{ $.Ipaddr }}\n", "etc/hostname.ww": "{{ .Id }}\n", "init": "exit\n"},
    "generic": {
        "etc/hosts.ww": "{{ range $node := .AllNodes }}{{ $node.Id.Get }}\n{{ end }}",
        "etc/scheduler.conf": "the site's own\n",
    },
    "host": {"etc/hosts.ww": "{{ range $node := .AllNodes }}{{ $node.Id.Get }}\n{{ end }}"},
}  # fmt: skip


def write(root: Path, conf: str, nodes: str, **overlays: dict[str, str]) -> Paths:
    """A site below `root`: the two files, one image and overlays (by name, files by path)."""
    paths = Paths.at(root)
    paths.etc.mkdir(parents=True, exist_ok=True)
    paths.conf.write_text(conf)
    paths.nodes_conf.write_text(nodes)
    paths.nodes_conf.chmod(0o640)
    image(paths)
    for name, files in overlays.items():
        overlay(paths, name, files)
    return paths


def old(root: Path) -> Paths:
    """A site of 4.5, with its daemons' units."""
    paths = write(root, CONF_45, NODES_45, motd=MOTD, **PACKAGED)
    for unit in ("warewulfd.service", "isc-dhcp-server.service", "tftpd-hpa.service"):
        enable(root, unit)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    return paths


def new(root: Path) -> Paths:
    """A site of 4.6 or 4.7."""
    return write(root, CONF_46, NODES_46, motd=MOTD)


def enable(root: Path, unit: str) -> None:
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")


def image(paths: Paths, name: str = "el9") -> Path:
    """A tree with what is looked for in one; its kernel is no kernel."""
    root = paths.warewulf_chroots / name / "rootfs"
    for folder in ("boot", "etc", "usr/bin", "usr/lib/modules/6.1.0-1"):
        (root / folder).mkdir(parents=True)
    for link in ("bin", "lib"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "boot/vmlinuz-6.1.0-1").write_bytes(b"kernel" * 1000)
    (root / "boot/config-6.1.0-1").write_text("CONFIG_RD_ZSTD=y\n")
    for tool in ("curl", "tar", "sh"):
        (root / "usr/bin" / tool).write_text("#!\n")
    (root / "etc/os-release").write_text("ID=el9\n")
    return root


def overlay(paths: Paths, name: str, files: dict[str, str]) -> Path:
    rootfs = paths.warewulf_overlays / name / "rootfs"
    for path, text in files.items():
        (rootfs / path).parent.mkdir(parents=True, exist_ok=True)
        (rootfs / path).write_text(text)
    return rootfs


def built(folder: Path, node: str, context: str, files: dict[str, str], *, packed: bool = False) -> Path:
    """What Warewulf builds for a node: newc as GNU cpio writes it, in blocks of 512 bytes, plain or by gzip."""
    entries = [Entry(b".", 0o40755, 0, 0, 0), Entry(b"etc", 0o40755, 0, 0, 0)]
    entries += [Entry(path.encode(), 0o100644, 0, 0, 0, text.encode()) for path, text in sorted(files.items())]
    raw = newc.archive(entries)
    raw += bytes(-len(raw) % 512)
    (folder / node).mkdir(parents=True, exist_ok=True)
    target = folder / node / f"__{context.upper()}__.img{'.gz' * packed}"
    target.write_bytes(gzip.compress(raw) if packed else raw)
    return target


def state(root: Path) -> dict[str, tuple[str, bytes, int]]:
    """Every path of a site, its own content and mode: all but what wwfast keeps for itself."""
    found: dict[str, tuple[str, bytes, int]] = {}
    for each in sorted(root.rglob("*")):
        name = str(each.relative_to(root))
        if name.startswith(("var/lib/wwfast", "var/cache", "run")):
            continue
        if each.is_symlink():
            found[name] = ("link", str(each.readlink()).encode(), 0)
        else:
            data = each.read_bytes() if each.is_file() else b""
            found[name] = ("file" if each.is_file() else "dir", data, each.stat().st_mode & 0o7777)
    return found
