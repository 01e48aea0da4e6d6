"""What newc cannot carry: extended attributes, written into the image as two files.

`/warewulf/capabilities`: file capabilities, one `TEXT /PATH` a line, TEXT as setcap(8) takes it; the node's start
scripts restore them. `/warewulf/xattrs`: every attribute, in the form setfattr(1) restores from.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CAPABILITIES, XATTRS = b"warewulf/capabilities", b"warewulf/xattrs"
ACL = "system.posix_acl_"
SETCAP = ("usr/sbin/setcap", "sbin/setcap", "usr/bin/setcap")

# include/uapi/linux/capability.h, by number
_NAMES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct "
    "sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap "
    "mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)
NAMES = _NAMES.split()


def names(mask: int) -> str:
    known = [f"cap_{NAMES[bit]}" if bit < len(NAMES) else str(bit) for bit in range(64) if mask >> bit & 1]
    return ",".join(known)


def capability_text(value: bytes) -> str:
    """The text form of a `security.capability` attribute (struct vfs_cap_data, revisions 2 and 3).

    Capabilities with the same flags share a clause. Raises ValueError for another revision.
    """
    (magic,) = struct.unpack_from("<I", value)
    if magic >> 24 not in (2, 3) or len(value) < 20:
        raise ValueError(f"revision {magic >> 24} of file capabilities")
    low_p, low_i, high_p, high_i = struct.unpack_from("<4I", value, 4)
    permitted, inheritable = low_p | high_p << 32, low_i | high_i << 32
    effective = "e" if magic & 1 else ""
    clauses = [
        (permitted & inheritable, effective + "ip"),
        (permitted & ~inheritable, effective + "p"),
        (inheritable & ~permitted, effective + "i"),
    ]
    return " ".join(f"{names(mask)}={flags}" for mask, flags in clauses if mask) or "="


def quoted(name: bytes) -> bytes:
    """As getfattr(1) writes names: what would break its lines in octal."""
    return b"".join(bytes([c]) if 32 < c < 127 and c not in b"\\=#" else b"\\%03o" % c for c in name)


class Gathered(NamedTuple):
    """What both files hold, warnings, and the names that have a POSIX ACL."""

    capabilities: bytes
    attributes: bytes
    warnings: list[str]
    acls: list[bytes]


def gather(root: Path, paths: Sequence[bytes]) -> Gathered:
    """For the given names below `root`."""
    capabilities, attributes, warnings = [], [], []
    acls: list[bytes] = []
    base = os.fsencode(root)
    for path in paths:
        full = base + b"/" + path
        block = []
        for attribute in sorted(os.listxattr(full, follow_symlinks=False)):
            if attribute.startswith("trusted.overlay."):
                continue  # bookkeeping of the file system below, not the image's
            value = os.getxattr(full, attribute, follow_symlinks=False)
            block.append(b"%s=0x%s" % (attribute.encode(), value.hex().encode()))
            if attribute.startswith(ACL) and path not in acls[-1:]:
                acls.append(path)
            if attribute == "security.capability":
                try:
                    text = capability_text(value)
                except ValueError as error:
                    warnings.append(f"{os.fsdecode(path)}: {error} cannot be restored on nodes")
                    continue
                if b"\n" in path:
                    warnings.append(f"{os.fsdecode(path)!r}: its capability is not restored (a newline in its name)")
                else:
                    capabilities.append(b"%s /%s" % (text.encode(), path))
        if block:
            attributes.append(b"\n".join([b"# file: " + quoted(path), *block]) + b"\n")
    if capabilities and not any(os.path.lexists(root / program) for program in SETCAP):
        warnings.append(
            f"{len(capabilities)} files have capabilities but the image has no setcap to restore them at boot: "
            "install libcap2-bin (Debian, Ubuntu), libcap (Fedora, RHEL) or libcap-progs (SUSE) in it"
        )
    return Gathered(b"".join(line + b"\n" for line in capabilities), b"\n".join(attributes), warnings, acls)
