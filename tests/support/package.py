"""A Debian package made on the spot, to install inside images."""

from __future__ import annotations

from pathlib import Path

from wwfast.system.run import run

NAME = "wwfast-probe"
FILE, CONTENT = "/opt/probe/file", "packaged\n"
INSTALLED_BY = "/opt/installed-by"  # written by its postinst: who it ran as, and the devices it saw

CONTROL = f"Package: {NAME}\nVersion: 1\nArchitecture: all\nMaintainer: Test <t@example.org>\nDescription: probe\n"
POSTINST = f'#!/bin/sh\nset -e\n[ "$1" = configure ]\nid >{INSTALLED_BY}\nls /dev >>{INSTALLED_BY}\n'


def package(place: Path) -> Path:
    """Build it below `place`; the .deb."""
    tree = place / "package"
    for name, content in (("DEBIAN/control", CONTROL), ("DEBIAN/postinst", POSTINST), (FILE.lstrip("/"), CONTENT)):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    (tree / "DEBIAN/postinst").chmod(0o755)
    made = place / "probe.deb"
    run(["dpkg-deb", "--root-owner-group", "--build", tree, made], package="dpkg")
    return made
