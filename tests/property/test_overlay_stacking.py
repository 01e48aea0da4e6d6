"""Stacking of overlays against a reference that writes files into a directory, step by step."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from support.overlays import Site, body, unpack
from wwfast.errors import WwfastError
from wwfast.paths import Paths

NODES = ("n1", "n2")


class Made(NamedTuple):
    """One entry of a generated overlay; `text` is content, target, or the template's source."""

    path: str
    kind: str
    text: str
    mode: int


# Few names, so that overlays meet: the templates read nothing, a tag, or the node, and so fall into all classes.
NAMES = ("a", "b", "a.wwbackup", "d/a", "d/b", "d/e/a")
SOURCES = {
    "cluster": "{{ all_nodes | length }} nodes",
    "variant": "rack {{ tags.rack | default('-') }}",
    "node": "I am {{ id }}",
    "quiet": "{{ nobackup() }}{{ id }}",
    "gone": "{{ abort() }}",
    "named": "dropped{{ file('b') }}b of {{ id }}{{ file('/new/dir/' ~ id) }}deep",
    "tagged": "{{ file('a') }}shared {{ tags.rack | default('-') }}",
    "linked": "{{ softlink('/to/' ~ id) }}",
}

entries = st.builds(
    Made,
    st.sampled_from(NAMES),
    st.sampled_from(["file", "link", "template"]),
    st.sampled_from(["one", "two", *SOURCES]),
    st.sampled_from([0o644, 0o600, 0o755]),
)
overlays = st.lists(st.lists(entries, max_size=4, unique_by=lambda it: it.path), min_size=1, max_size=4)


def rendered(source: str, node: str) -> list[tuple[str, str, str]] | None:
    """What the templates above give, written down by hand: (name, kind, text); "" is the unnamed output."""
    rack = {"n1": "r1", "n2": "-"}[node]
    return {
        "cluster": [("", "file", "2 nodes")],
        "variant": [("", "file", f"rack {rack}")],
        "node": [("", "file", f"I am {node}")],
        "quiet": [("", "file", node)],
        "gone": None,
        "named": [("b", "file", f"b of {node}"), (f"/new/dir/{node}", "file", "deep")],
        "tagged": [("a", "file", f"shared {rack}")],
        "linked": [("", "link", f"/to/{node}")],
    }.get(source, [("", "file", source)])


class Clash(Exception):
    pass


def reference(root: Path, stack: list[list[Made]], node: str) -> None:
    """The rules, executed on a real directory."""
    for overlay in stack:
        directories = {parent for it in overlay for parent in Path(it.path).parents if str(parent) != "."}
        steps: list[tuple[str, Made | None]] = [(str(it), None) for it in directories]
        steps += [(it.path + (".j2" if it.kind == "template" else ""), it) for it in overlay]
        for name, it in sorted(steps):
            if it is None:
                (root / name).mkdir(exist_ok=True)
            elif it.kind == "template":
                outputs = rendered(it.text, node)
                for output, kind, text in outputs or ():
                    relative = output.lstrip("/") if output.startswith("/") else str(Path(it.path).parent / output)
                    target = root / (relative if output else it.path)
                    if output.startswith("/"):
                        target.parent.mkdir(parents=True, exist_ok=True)
                    place(target, kind, text, it.mode, backup=it.text != "quiet", over_link=False)
            else:
                place(root / it.path, it.kind, it.text, it.mode, backup=it.kind == "link", over_link=True)


def place(target: Path, kind: str, text: str, mode: int, *, backup: bool, over_link: bool) -> None:
    there = os.path.lexists(target)
    if there and target.is_dir() and not target.is_symlink():
        raise Clash
    if kind == "link":
        if there and not over_link:
            if not target.is_symlink() or str(target.readlink()) != text:
                raise Clash
            return
        keep(target, backup)
        target.unlink(missing_ok=True)
        target.symlink_to(text)
        return
    if there and backup:
        keep(target, backup)
    if target.is_symlink() or not there:
        target.unlink(missing_ok=True)
        target.write_text(text)
        target.chmod(mode)
    else:
        target.write_text(text)  # the mode of an existing file is kept


def keep(target: Path, backup: bool) -> None:
    saved = target.with_name(target.name + ".wwbackup")
    if backup and os.path.lexists(target) and not os.path.lexists(saved):
        shutil.copy2(target, saved, follow_symlinks=False)


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    for path in root.rglob("*"):
        st_ = path.lstat()
        if stat.S_ISLNK(st_.st_mode):
            found[str(path.relative_to(root))] = (0, os.fsencode(path.readlink()))
        elif stat.S_ISREG(st_.st_mode):
            found[str(path.relative_to(root))] = (stat.S_IMODE(st_.st_mode), path.read_bytes())
    return found


@settings(max_examples=120, deadline=None)
@given(overlays)
def test_overlay_stacking_equals_a_directory(stack: list[list[Made]]) -> None:
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        names = ", ".join(f"o{at}" for at in range(len(stack)))
        config = (
            f"nodes:\n  n1: {{system overlay: [{names}], tags: {{rack: r1}}}}\n  n2: {{system overlay: [{names}]}}\n"
        )
        site = Site(Paths.at(root / "site"), nodes=config)
        try:
            for at, overlay in enumerate(stack):
                (site.paths.site_overlays / f"o{at}/rootfs").mkdir(parents=True)
                for it in overlay:
                    if it.kind == "link":
                        file = site.put(f"o{at}", it.path)
                        file.unlink()
                        file.symlink_to(it.text)
                    elif it.kind == "template":
                        site.put(f"o{at}", it.path + ".j2", SOURCES.get(it.text, it.text), it.mode)
                    else:
                        site.put(f"o{at}", it.path, it.text, it.mode)
            for node in NODES:
                expected = root / f"expected-{node}"
                expected.mkdir()
                try:
                    reference(expected, stack, node)
                except Clash:
                    expected = None  # type: ignore[assignment]
                try:
                    raw = body(site.ask(node))
                except WwfastError:
                    assert expected is None, "the reference has no objection"
                    continue
                assert expected is not None, "the reference objects"
                unpacked = root / f"unpacked-{node}"
                unpack(raw, unpacked)
                assert state(unpacked) == state(expected)
        finally:
            site.service.close()
