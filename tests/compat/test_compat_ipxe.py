"""iPXE scripts of a Warewulf site: its menu by tag, and its own scripts that are not used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.scenes import scene
from support.scripts import VARIABLES, render
from wwfast.boot.loader.script import Scripts
from wwfast.doctor import site
from wwfast.paths import Paths


def script(paths: Paths, entry: str | None) -> list[str]:
    tags = {} if entry is None else {"IPXEMenuEntry": entry}
    return render(Scripts(paths), "default", VARIABLES | {"tags": tags}).splitlines()


def chosen(lines: list[str], method: str, *, failing: bool = False) -> tuple[list[str], str]:
    """What iPXE fetches when a method is chosen, by a walk from its label; and where it ends."""
    known: dict[str, str] = {"hwaddr": "MAC", "base": "", "params": ""}
    at, fetched = lines.index(f":{method}"), list[str]()
    while at < len(lines):
        words = lines[at].split()
        for name, value in known.items():
            words = [word.replace(f"${{{name}}}", value) for word in words]
        at += 1
        if words[:1] == ["set"]:
            known[words[1]] = "" if words[2] == "||" else words[2]
        elif words[:1] == ["goto"]:
            at = lines.index(f":{words[1]}")
        elif words[:1] in (["initrd"], ["imgextract"]):
            fetched.append(f"{words[0]} {words[2]} {words[3]}")
            if failing and words[0] == "imgextract":
                assert words[4:6] == ["||", "goto"]
                at = lines.index(f":{words[6]}")
        elif words[:1] == ["iseq"] and words[1] == words[2] and words[3:5] == ["&&", "goto"]:
            at = lines.index(f":{words[5]}")
        elif words[:1] in (["boot"], ["shell"], ["sleep"]):
            return fetched, words[0]
    return fetched, "end"


METHODS = {
    "initrd": ("initrd", "?&compress=zst"),
    "initrd_nocompress": ("initrd", "?"),
    "imgextract": ("imgextract", "?&compress=gz"),
}


@pytest.mark.parametrize("entry", [*METHODS, "shell"])
def test_compat_ipxe_menu_begins_with_what_the_tag_says(paths: Paths, entry: str) -> None:
    lines = script(paths, entry)
    assert f"set method {entry}" in lines
    assert "choose --default ${method} --timeout 2000 method && goto ${method} || goto menu" in lines
    assert [line.split()[1] for line in lines if line.startswith("item ")] == [*METHODS, "shell"]
    for method, (command, query) in METHODS.items():
        fetched, end = chosen(lines, method)
        assert fetched == [f"{command} {name} /{name}/MAC{query}" for name in ("image", "system", "runtime")]
        assert end == "boot"
    assert chosen(lines, "shell")[1] == "shell"


def test_compat_ipxe_that_cannot_unpack_leaves_it_to_the_kernel(paths: Paths) -> None:
    fetched, end = chosen(script(paths, "imgextract"), "imgextract", failing=True)
    assert [line.split()[0] for line in fetched] == ["imgextract", "initrd", "initrd", "initrd"]
    assert end == "boot"


def test_compat_ipxe_menu_entry_that_is_not_served_is_said_on_the_console(paths: Paths) -> None:
    lines = script(paths, "rm -rf")
    assert "echo IPXEMenuEntry: there is no rm -rf here, so it is initrd" in lines
    assert "set method initrd" in lines


def test_compat_ipxe_without_the_tag_boots_at_once(paths: Paths) -> None:
    """Two seconds of a menu that nobody looks at are lost in every boot: who wants it sets the tag, in a profile for
    all."""
    lines = script(paths, None)
    assert script(paths, "") == lines
    assert not [line for line in lines if line.startswith(("menu", "choose", "item"))]


NODES = """\
nodes:
  a: {}
  b: {ipxe template: site}
  c: {tags: {IPXEMenuEntry: drakut}}
  d: {tags: {IPXEMenuEntry: imgextract}}
  e: {ipxe template: localdisk}
  f: {tags: {IPXEMenuEntry: dracut_static}}
"""


def told(paths: Paths) -> list[tuple[tuple[str, ...], str]]:
    return [(it.nodes, it.message) for it in site.scripts(scene(paths, nodes=NODES))]


def installed(paths: Paths) -> Path:
    """/etc/warewulf/ipxe as a package leaves it."""
    folder = paths.etc / "ipxe"
    folder.mkdir()
    for name in ("default", "localdisk", "unconfigured"):
        (folder / f"{name}.ipxe").write_text("#!ipxe\necho {{ .Id }}\n")
        os.utime(folder / f"{name}.ipxe", (1_700_000_000, 1_700_000_000))
    return folder


def test_compat_ipxe_script_that_the_site_changed_and_no_node_gets_is_told(paths: Paths) -> None:
    folder = installed(paths)
    [(nodes, message)] = told(paths)
    assert nodes == ("c",)
    assert "IPXEMenuEntry=drakut" in message
    (folder / "default.ipxe").write_text("#!ipxe\nifopen net1\n")
    found = [(nodes, message) for nodes, message in told(paths) if "default.ipxe" in message]
    assert [nodes for nodes, _ in found] == [("a", "c", "d", "f")]
    assert "not by" in found[0][1]
    (folder / "default.ipxe.j2").write_text("#!ipxe\n")
    assert not [message for _, message in told(paths) if "default.ipxe" in message], "it is ported"
    (folder / "localdisk.ipxe").write_text("#!ipxe\nsanboot\n")
    assert [nodes for nodes, message in told(paths) if "localdisk.ipxe" in message] == [("e",)]


def test_compat_bond_slave_without_its_bond_is_told(paths: Paths) -> None:
    nodes = """\
nodes:
  a: {network devices: {m1: {type: bond-slave, tags: {master: bond0}}, m2: {type: Bond-slave}, m3: {}}}
  b: {network devices: {m1: {type: bond-slave, tags: {master: bond0}}}}
  c: {network devices: {m1: {tags: {type: bond-slave, master: bond0}}, m2: {tags: {type: bond-slave}}}}
"""
    [found] = site.members(scene(paths, nodes=nodes))
    assert found.nodes == ("a", "c")
    assert "device m2" in found.message
    assert "--netname m2 --nettagadd master=" in found.fix
