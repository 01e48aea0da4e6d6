"""What the shipped overlays put on nodes, entry by entry, is what it was: digests recorded once.

The order of entries in an archive and their inode numbers are not part of it: they follow from which part of the
archive an entry is in. `GOLDEN_RECORD=1` records anew, after a change of the overlays that is meant.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from support.overlays import OPEN, body
from support.shipped import CONF, NODES, SHIPPED
from wwfast.config import settings, yaml
from wwfast.nodes.registry import Registry
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import SHARE, Paths

GOLDEN = Path(__file__).parents[1] / "data/golden-overlays.json"
WHOLE = [name for name in SHIPPED if name not in ("ignition", "host", "debug")]
LISTS: dict[str, list[str]] = {
    **{name: [name] for name in SHIPPED},
    "whole": WHOLE,
    "reversed": WHOLE[::-1],
    "twice": ["wwinit", "hosts", "wwinit"],
    "runtime": ["hosts", "ssh.authorized_keys", "syncuser"],
    "none": [],
}
# The name of the machine that runs the tests, in /etc/hosts.
OWN_NAME = re.compile(rb" \S+ warewulf\n")
VOLATILE = re.compile(rb"(build.?time|BuildTime|build.?host|BuildHost)[^\n]*", re.I)


def laid(paths: Paths) -> None:
    """Files that the overlays read, and an image with links among its directories."""
    paths.etc.mkdir(parents=True, exist_ok=True)
    paths.conf.write_text(CONF)
    rootfs = paths.chroots / "img/rootfs"
    for name in ("usr/lib/systemd", "etc", "bin"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "lib").symlink_to("usr/lib")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n")
    (rootfs / "etc/group").write_text("root:x:0:\ndaemon:x:1:\n")
    for name, text in (
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::/home/ada:/bin/bash\n"),
        ("etc/group", "root:x:0:\nada:x:1000:\n"),
        ("root/.ssh/authorized_keys", "ssh-ed25519 AAAA admin@head\n"),
        ("etc/warewulf/keys/ssh_host_ed25519_key", "-----BEGIN-----\n"),
        ("etc/warewulf/keys/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAA\n"),
    ):
        (paths.root / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.root / name).write_text(text)


def found_in(raw: bytes) -> dict[str, list[Any]]:
    """Name -> its entries in order; read by nothing of ours."""
    found: dict[str, list[Any]] = {}
    at, names = 0, []
    while at < len(raw):
        fields = [int(raw[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = raw[at + 110 : at + 109 + fields[11]].decode()
        start = at + (110 + fields[11] + 3 & ~3)
        data = raw[start : start + fields[6]]
        at = start + (fields[6] + 3 & ~3)
        names.append(name)
        found.setdefault(name, []).append([fields[1], fields[2], fields[3], fields[5], data])
    assert names[-1] == "TRAILER!!!"
    assert names.count("TRAILER!!!") == 1
    return found


def digests(paths: Paths, overlays: list[str]) -> dict[str, str]:
    document = {
        "nodeprofiles": {},
        "nodes": {name: {**node, "system overlay": overlays} for name, node in NODES.items()},
    }
    paths.nodes_conf.write_text(yaml.dump(document))
    snapshot = Registry(paths).snapshot()
    service = OverlayService(paths, settings.load(paths))
    OPEN.append(service)
    made = {}
    for name in NODES:
        state = hashlib.sha256()
        for path, each in sorted(
            found_in(body(service.artefact(snapshot, snapshot.nodes[name], "system", "raw"))).items()
        ):
            for *facts, data in each:
                data = data.replace(os.fsencode(SHARE), b"SHARE").replace(os.fsencode(paths.root), b"ROOT")
                data = OWN_NAME.sub(b" vm warewulf\n", data)
                state.update(repr((path, facts, VOLATILE.sub(b"", data))).encode())
        made[name] = state.hexdigest()[:32]
    service.close()
    return made


@pytest.mark.parametrize("name", LISTS)
def test_overlay_entries_of_the_shipped_overlays_are_what_they_were(paths: Paths, name: str) -> None:
    laid(paths)
    found = digests(paths, LISTS[name])
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("GOLDEN_RECORD"):
        GOLDEN.write_text(json.dumps({**golden, name: found}, indent=1, sort_keys=True) + "\n")
        return
    assert found == golden[name]
