"""What both kinds of templates are tried on: a node with something in every place, and a text that none may tell."""

from __future__ import annotations

from support.overlays import Site
from wwfast.paths import Paths

SECRET = "s3cr3t-of-the-server"
NODES = """\
nodes:
  n1:
    system overlay: [o]
    kernel: {version: 6.1.0, args: [quiet]}
    ipmi: {username: admin, password: hunter2, tags: {vlan: "7"}}
    tags: {a: "1", q: "010"}
    network devices: {eth0: {device: eth0, ipaddr: 10.0.1.1, netmask: 255.255.0.0, tags: {DNS: 10.0.0.2}}}
    disks: {/dev/sda: {wipe_table: true, partitions: {root: {number: "1"}}}}
    filesystems: {/dev/x: {format: ext4, path: /, options: [-L, x]}}
    resources: {fstab: [{spec: "server:/home"}], deep: {flag: true, number: 3, half: 0.5, none: null}}
  n2: {}
"""


def tempting(paths: Paths) -> Site:
    """A site with the text beside what may be read, and links to it."""
    made = Site(paths, nodes=NODES)
    (paths.root / "etc/shadow").write_text(SECRET)
    (paths.root / "secret").write_text(SECRET)
    (paths.etc / "note").write_text("note\n")
    (paths.etc / "up").symlink_to("../shadow")
    (paths.etc / "absolute").symlink_to(paths.root / "secret")
    (paths.etc / "proc").symlink_to("/proc/self/environ")
    (paths.etc / "root").symlink_to("/")
    return made
