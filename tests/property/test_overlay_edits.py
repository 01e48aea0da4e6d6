"""After any edits a service that has lived through them gives each node what one that starts from nothing gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.overlays import Site, body
from wwfast.config.settings import load
from wwfast.errors import WwfastError
from wwfast.overlays.making.service import CONTEXTS, OverlayService
from wwfast.paths import Paths

NAMES = ("n1", "n2", "n3")
TEXTS = ("", "fixed", "{{ all_nodes | length }}", "{{ tags.rack | default('-') }}", "{{ id }} {{ tags }}",
         "{% for n in all_nodes %}{{ n.id }} {{ n.cluster_name }} {{ n.tags }}\n{% endfor %}",
         "{{ include('part') }} {{ id }}", "{{ include('part') }}", "{{ ipaddr }}", "{{ warewulf.port }} {{ comment }}",
         "{{ file('twin') }}{{ id }}", "{{ abort() }}", "{{ nothing }}")  # fmt: skip
LISTS = (["one"], ["two"], ["one", "two"], ["two", "one"], [])

few = st.sampled_from
entry = st.tuples(few(("rack", "comment", "cluster", "profiles", "system", "runtime", "absent")), st.integers(0, 4))
edits = st.one_of(
    st.tuples(st.just("node"), few(NAMES), entry),
    st.tuples(st.just("profile"), few(("p1", "p2")), entry),
    st.tuples(st.just("overlay"), few(("one", "two")), few(("a.j2", "b.j2", "twin", "d/c.j2")), few((None, *TEXTS))),
    st.tuples(st.just("part"), few(("y", "x"))),
    st.tuples(st.just("settings"), few(("9874", "9873")), few(("10.0.0.1/16", "10.0.0.2/16"))),
    st.tuples(st.just("ask"), few(NAMES), few(CONTEXTS)),
)
FIELDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "rack": lambda n: {"tags": {"rack": f"r{n}"}},
    "comment": lambda n: {"comment": f"c{n}"},
    "cluster": lambda n: {"cluster name": f"k{n}"},
    "profiles": lambda n: {"profiles": [["p1"], ["p2"], ["p1", "p2"], ["p2", "p1"], []][n]},
    "system": lambda n: {"system overlay": LISTS[n]},
    "runtime": lambda n: {"runtime overlay": LISTS[n]},
}


class World:
    """The files of a site, changed edit by edit."""

    def __init__(self, root: Path) -> None:
        self.trees: dict[str, dict[str, dict[str, Any]]] = {
            "nodeprofiles": {"p1": {"system overlay": ["one", "two"], "runtime overlay": ["two"]}, "p2": {}},
            "nodes": {name: {"profiles": ["p1"]} for name in NAMES},
        }
        self.site = Site(Paths.at(root), nodes=self.text())
        for overlay in ("one", "two"):
            self.site.put(overlay, "etc/a.j2", TEXTS[5])
            self.site.put(
                overlay, f"etc/d/{overlay}.j2", "{{ id }} {{ tags }} {{ warewulf.port }} {{ include('part') }}"
            )
        self.part("x")

    def text(self) -> str:
        return "".join(f"{section}: {dict(tree)!r}\n" for section, tree in self.trees.items())

    def part(self, text: str) -> None:
        (self.site.paths.etc / "part").write_text(text)

    def entry(self, section: str, name: str, change: tuple[str, int]) -> None:
        field, n = change
        tree = self.trees[section]
        if field == "absent" and section == "nodes":
            if tree.pop(name, None) is None:
                tree[name] = {"profiles": ["p1"]}
        elif field in FIELDS and (section == "nodes" or field != "profiles"):
            tree.setdefault(name, {}).update(FIELDS[field](n))
        self.site.nodes(self.text())

    def edit(self, what: tuple[Any, ...]) -> None:
        match what:
            case ("node", name, change):
                self.entry("nodes", name, change)
            case ("profile", name, change):
                self.entry("nodeprofiles", name, change)
            case ("overlay", overlay, path, None):
                (self.site.paths.site_overlays / overlay / "rootfs/etc" / path).unlink(missing_ok=True)
            case ("overlay", overlay, path, text):
                self.site.put(overlay, f"etc/{path}", text)
            case ("part", text):
                self.part(text)
            case ("settings", port, address):
                self.site.conf(f"ipaddr: {address}\nwarewulf: {{port: {port}}}\n")
                self.site.service.reconfigure(load(self.site.paths))
            case ("ask", name, context):
                if name in self.site.snapshot.nodes:
                    self.answer(self.site.service, name, context)

    def answer(self, service: OverlayService, name: str, context: str) -> object:
        """The contents of the archive, or why there is none."""
        known = service.failures
        service.failures = {}
        try:
            made = body(service.artefact(self.site.snapshot, self.site.snapshot.nodes[name], context, "raw"))
        except WwfastError as error:
            return error.message
        finally:
            failures, service.failures = service.failures, known
        return failures[name, context].message if (name, context) in failures else made

    def answers(self, service: OverlayService) -> dict[tuple[str, str], object]:
        return {
            (name, context): self.answer(service, name, context)
            for name in self.site.snapshot.nodes
            for context in CONTEXTS
        }

    def scratch(self) -> dict[tuple[str, str], object]:
        with tempfile.TemporaryDirectory() as empty:
            service = OverlayService(self.site.paths.with_(cache=Path(empty)), load(self.site.paths))
            try:
                return self.answers(service)
            finally:
                service.close()


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.lists(edits, min_size=1, max_size=3), min_size=1, max_size=6))
@example(steps=[[("part", "y")], [("settings", "9874", "10.0.0.1/16")]])
def test_overlay_edits_leave_nothing_stale(steps: list[list[tuple[Any, ...]]]) -> None:
    with tempfile.TemporaryDirectory() as work:
        world = World(Path(work))
        try:
            world.site.service.build(world.site.snapshot)
            for step in steps:
                for what in step:
                    world.edit(what)
                world.site.service.build(world.site.snapshot)
                assert world.answers(world.site.service) == world.scratch()
        finally:
            world.site.service.close()
