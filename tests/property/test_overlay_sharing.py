"""What is shared between nodes is what each would have rendered alone, whatever templates do with names and scopes.

Templates are made at random from loops, macros, assignments that shadow names of the node, calls, blocks, namespaces
and conditional reads. A service that serves all nodes, through edits of single fields, must give each node the very
bytes that its templates make when they are run for this node and nothing is kept.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.overlays import OPEN, Site, body
from wwfast.archive import newc
from wwfast.config.settings import load
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import Paths

SEEDS = range(int(os.environ.get("WWFAST_SEEDS", "8")))
ROUNDS, EDITS = 12, 3
NAMES = ("n1", "n2", "n3")

# Names of the context that templates set for themselves, and names of their own.
CONTEXT = ("id", "hostname", "tags", "kernel", "this_node", "comment", "resources", "network_devices", "ipaddr", "ipmi")
OWN = ("n", "node", "x")
# What many nodes agree on comes often: a template that reads a name of the node shares nothing.
COMMON = (
    ("tags", "a"), ("tags", "rack"), ("tags", "new"), ("kernel", "version"), ("kernel", "args"), ("resources", "r"),
    ("resources", "r", "flag"), ("resources", "s"), ("this_node", "tags", "a"), ("this_node", "kernel"), ("tags",),
    ("this_node", "resources", "s"), ("disks", "/dev/sda", "partitions"), ("ipaddr",), ("image_name",), ("resources",),
    ("settings", "warewulf", "port"), ("cluster_name",), ("container_name",), ("overlay",),
)  # fmt: skip
OWNED = (
    ("id",), ("hostname",), ("comment",), ("ipmi", "username"), ("ipmi", "tags"), ("this_node", "id"), ("this_node",),
    ("network_devices", "d0", "tags"), ("network_devices", "d0", "primary"), ("this_node", "primary", "device"),
)  # fmt: skip
MEMBERS = (("id",), ("tags", "a"), ("comment",), ("resources", "r"), ("kernel", "args"), ("primary", "device"), ())
# What was mistaken once.
KNOWN = (
    "{% for this_node in all_nodes %}{{ this_node.id }}{% endfor %}{{ this_node.tags.a }}",
    "{% for hostname in all_nodes %}{{ hostname.tags.a }}{% endfor %}{{ hostname }}",
    "{% for tags in all_nodes %}{{ tags.id }}{% endfor %}{{ tags.a }}",
    "{% if 0 %}{% set all_nodes = [] %}{% endif %}{% for n in all_nodes %}{{ n.comment }}{% endfor %}",
    "{% for n in all_nodes %}{% if not loop.last %}{{ loop.nextitem.comment }}{% endif %}{% endfor %}",
    "{% for n in all_nodes %}{% set l = loop %}{% if not l.first %}{{ l['previtem'].tags.a }}{% endif %}{% endfor %}",
    "{% macro m(this_node) %}{{ this_node }}{% endmacro %}{{ m(1) }}{{ this_node.tags.a }}",
    "{% macro m() %}{{ caller(1) }}{% endmacro %}{% call(tags) m() %}{{ tags }}{% endcall %}{{ tags.a }}",
    "{% set kernel %}x{% endset %}{{ kernel }}{% block b %}{{ kernel }}{% endblock %}",
    "{{ resources.s is defined }}",
    "{{ resources.r }}{{ this_node.resources }}",
    "{% for n in all_nodes %}{{ n.resources.r }}{% endfor %}",
    "{{ network_devices.d0.tags }}{{ ipmi.tags }}",
    "{% for n in all_nodes %}{{ n.network_devices }}{{ n.primary.device }}{% endfor %}",
)
# What is printed stays open, and what decides does not: where the one becomes the other.
OPENED = (
    "{% for name, dev in network_devices.items() if dev.device %}{{ name }}{{ dev.tags.z | default('-') }}{% endfor %}",
    "{% macro m() %}{{ comment }}{% endmacro %}{% if m() == 'one' %}yes{% endif %}{{ m() | upper }}{{ m() }}",
    "{% set x %}{{ comment }}{% endset %}{% if x == 'one' %}yes{% endif %}{{ comment }}",
    "{% filter upper %}{{ comment }}{% endfilter %}{{ ipmi.username }}",
    "{% macro m() %}{{ comment }}{% endmacro %}{% set x %}{{ m() }}{% endset %}{{ x | length }}",
    "{% if tags.new is defined and tags.new %}a{% else %}b{% endif %}{{ tags.a }}",
    "{{ tags.items() | list }}{{ resources.r }}{{ ipmi.tags.values() | list }}",
    "{% set ns = namespace(t=tags) %}{{ ns.t.a }}{% set ns.t = kernel %}{{ ns.t.version }}",
    "{% for k, v in resources.items() %}{{ k }}{{ v }}{% endfor %}",
    "{{ [tags, ipmi.tags] | map('dictsort') | list }}{{ [kernel.args, [tags]] }}",
    "{% macro m(d) %}{{ caller(d) }}{% endmacro %}{% call(d) m(tags) %}{{ d.a }}{% endcall %}",
    "{{ kernel.args + ['x'] }}{{ kernel.args[0] | default('no') }}{{ kernel.args | length }}{{ kernel.args[-1:] }}",
    "{% for x in [1, 2] %}{{ tags.a ~ loop.index }}{{ x ~ comment }}{% endfor %}",
    "{{ ipmi.username if tags.a == '1' else comment }}",
    "{% if resources.r == {'n': 1, 'flag': True} %}same{% endif %}{{ resources.r is mapping }}{{ not resources.s }}",
    "{{ this_node.network_devices.d0.tags.y | default('') }}{{ 'b' in ipmi.tags }}{{ 'new' in tags }}",
    "{% do file('x-' ~ tags.a) %}{{ comment }}{{ id }}{% do file('y') %}{{ tags.rack }}",
    "{% set f = file('x') %}{{ f ~ comment }}",
    "{% for k in tags %}{{ loop.index }}{{ tags[k] }}{% endfor %}{% if tags %}t{% endif %}{{ tags == {'a': '1'} }}",
    "{{ (comment ~ id) | md5 }}{{ comment.upper() }}{{ comment.partition('n')[2] }}{{ tags.get('new', 'none') }}",
    "{% if (comment if tags.a else id) %}x{{ comment or id }}{% endif %}",
    "{{ comment }}{{ resources.s.nothing | default('-') if resources.s is mapping }}",
    "{{ 100 // (tags.a | int(1) or 1) }}{{ tags | tojson }}{{ [tags] | tojson }}{{ disks | to_yaml }}",
)
VALUES = ("1", "one", "")


class Maker:
    """Templates that never fail, so that what differs is what was read."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.macros = 0
        self.targets: list[str] = []  # names that were set somewhere

    def template(self) -> str:
        return "".join(self.statement(0) for _ in range(self.rng.randint(1, 2)))

    def body(self, depth: int) -> str:
        return "".join(self.statement(depth + 1) for _ in range(1 + (self.rng.random() < 0.3)))

    def name(self) -> str:
        self.targets.append(self.rng.choice(self.rng.choice((CONTEXT, OWN, ("this_node", "hostname")))))
        return self.targets[-1]

    def path(self) -> tuple[str, ...]:
        if self.targets and self.rng.random() < 0.5:
            return (self.rng.choice(self.targets), *self.rng.choice(MEMBERS))
        return self.rng.choice(COMMON if self.rng.random() < 0.95 else OWNED)

    def chain(self, path: tuple[str, ...]) -> tuple[str, str]:
        """The chain as it is written, and the condition under which it can be."""
        said, guards = path[0], [f"{path[0]} is defined"]
        for word in path[1:]:
            plain = word.isidentifier() and self.rng.random() < 0.7
            said += f".{word}" if plain else f"[{word!r}]" if self.rng.random() < 0.8 else f"['' ~ {word!r}]"
            guards.append(f"{said} is defined")
        return said, " and ".join(guards)

    def value(self) -> str:
        """An expression that is always defined."""
        said, guard = self.chain(self.path())
        return self.rng.choice((f"({said} if {guard} else '-')", f"({said} if {guard} else '-')", "'c'"))

    def show(self, depth: int) -> str:
        said, guard = self.chain(self.path())
        end = self.rng.choice(
            ("", "", " | string | length", " is defined", " is none", " == 'one'", " | string | upper")
        )
        return f"{{% if {guard} %}}{{{{ {said}{end} }}}};{{% endif %}}"

    def statement(self, depth: int) -> str:
        kinds = ["show"] * 4 + ["set", "keys", "functions"]
        kinds += (
            ["loop", "loop", "macro", "when", "with_", "capture", "space", "call", "recursive"] if depth < 3 else []
        )
        kinds += ["block"] if depth == 0 else []
        made: str = getattr(self, self.rng.choice(kinds))(depth)
        return made

    def set(self, depth: int) -> str:
        return f"{{% set {self.name()} = {self.value()} %}}"

    def keys(self, depth: int) -> str:
        return (
            self.rng.choice(
                (
                    "{% if tags is mapping %}{% for k, v in tags.items() %}{{ k }}={{ v }},{% endfor %}{% endif %}",
                    "{% if tags is mapping %}{{ tags.get('a') }}{{ tags | dictsort }}{% endif %}",
                    "{% set k = 'ra' ~ 'ck' %}{% if tags is mapping %}{{ tags[k] | default('no') }}{% endif %}",
                    "{{ all_nodes | length if all_nodes is sequence }}",
                    "{{ all_nodes | map(attribute='comment') | join(',') }}",
                    "{{ all_nodes | groupby('comment') | map('first') | join(',') }}",
                    "{{ all_nodes | selectattr('comment', 'equalto', 'one') | map(attribute='id') | join(',') }}",
                    "{% set first = all_nodes[0] %}{{ first.comment }}",
                    "{{ (all_nodes | last).tags }}",
                )
            )
            if self.rng.random() < 0.9
            else "{{ include('note') }}"
        )

    def functions(self, depth: int) -> str:
        return self.rng.choice(
            (
                "{{ ignition_json() | length }}",
                "{% set f = ignition_json %}{{ f() | length }}",
                "{{ '%s/%s' | format(" + self.value() + ", " + self.value() + ") }}",
                "{{ '{0}'.format(" + self.value() + ") }}",
                "{{ "
                + self.value()
                + " | string | regex_replace('[0-9]', "
                + self.value()
                + " | string | truncate(3)) }}",
                "{{ [" + self.value() + "] | map('string') | join(" + self.value() + " | string) }}",
            )
        )

    def loop(self, depth: int) -> str:
        over = self.rng.choice(("all_nodes", "all_nodes", "all_nodes", f"[{self.value()}, {self.value()}]", "range(2)"))
        target = self.name()
        end = self.rng.choice(("", "", f" if {target} is defined and {target}.comment is defined"))
        beside = self.rng.choice(
            (
                "",
                "",
                "{{ loop.index }}/{{ loop.length }}",
                "{% if not loop.last %}{{ loop.nextitem.comment | default('-') }}{% endif %}",
                "{% set l = loop %}{% if not l.first %}{{ l.previtem }}{% endif %}",
                f"{{{{ loop.changed({target}) }}}}",
                "{% if not loop.first %}{{ (loop | attr('previtem')).id | default('-') }}{% endif %}",
            )
        )
        other = f"{{% else %}}{self.body(depth)}" if self.rng.random() < 0.2 else ""
        return f"{{% for {target} in {over}{end} %}}{self.body(depth)}{beside}{other}{{% endfor %}}"

    def recursive(self, depth: int) -> str:
        target = self.name()
        again = "{{ loop([this_node, " + self.value() + "]) if loop.depth < 2 }}"
        return f"{{% for {target} in all_nodes recursive %}}{self.body(3)}{again}{{% endfor %}}"

    def when(self, depth: int) -> str:
        said, guard = self.chain(self.path())
        return f"{{% if {guard} and {said} == 'one' %}}{self.body(depth)}{{% else %}}{self.body(depth)}{{% endif %}}"

    def macro(self, depth: int) -> str:
        self.macros += 1
        name = self.rng.choice((f"m{self.macros}", f"m{self.macros}", "hostname", "x"))
        one, two = self.rng.sample((*CONTEXT, *OWN), 2)
        calls = "".join(f"{{{{ {name}({self.value()}) }}}}" for _ in range(self.rng.randint(1, 2)))
        return f"{{% macro {name}({one}, {two}={self.value()}) %}}{self.body(depth)}{{% endmacro %}}{calls}"

    def call(self, depth: int) -> str:
        self.macros += 1
        name, inner = f"m{self.macros}", self.name()
        macro = f"{{% macro {name}() %}}[{{{{ caller({self.value()}) }}}}]{{% endmacro %}}"
        return f"{macro}{{% call({inner}) {name}() %}}{self.body(depth)}{{% endcall %}}"

    def with_(self, depth: int) -> str:
        return f"{{% with {self.name()} = {self.value()} %}}{self.body(depth)}{{% endwith %}}"

    def capture(self, depth: int) -> str:
        name = self.name()
        return self.rng.choice(
            (
                f"{{% set {name} %}}{self.body(depth)}{{% endset %}}{{{{ {name} }}}}",
                f"{{% filter upper %}}{self.body(depth)}{{% endfilter %}}",
            )
        )

    def space(self, depth: int) -> str:
        inside = f"{{% set ns.v = {self.value()} %}}{self.body(depth)}"
        return f"{{% set ns = namespace(v=1) %}}{{% for q in all_nodes %}}{inside}{{% endfor %}}{{{{ ns.v }}}}"

    def block(self, depth: int) -> str:
        self.macros += 1
        again = f"{{{{ self.b{self.macros}() }}}}" if self.rng.random() < 0.5 else ""
        return f"{{% block b{self.macros} %}}{self.body(depth)}{{% endblock %}}{again}"


def nodes(rng: random.Random) -> dict[str, dict[str, Any]]:
    """Nodes that differ in few things, so that much is shared."""
    base: dict[str, Any] = {
        "system overlay": ["s"],
        "runtime overlay": ["r"],
        "comment": "one",
        "tags": {"a": "1", "rack": "r1"},
        "kernel": {"version": "6.1", "args": ["quiet"]},
        "ipmi": {"username": "admin", "tags": {"v": "7", "b": "2"}},
        "resources": {"r": {"flag": True, "n": 1}, "s": "one"},
        "network devices": {"d0": {"device": "eth0", "tags": {"z": "1", "y": "2"}}, "d1": {"device": "eth1"}},
        "disks": {"/dev/sda": {"partitions": {"b": {"number": "1"}, "a": {"number": "2"}}}},
    }
    made = {name: copy.deepcopy(base) for name in NAMES}
    for _ in range(2):
        edit(rng, made)
    return made


def edit(rng: random.Random, all_of_them: dict[str, dict[str, Any]]) -> None:
    """Change one field of one node."""
    node = all_of_them[rng.choice(NAMES)]
    kind = rng.randrange(8)
    if kind == 0:
        node["comment"] = rng.choice(VALUES)
    elif kind == 1:
        node["tags"] = {**node["tags"], rng.choice(("a", "rack", "new")): rng.choice(VALUES)}
    elif kind == 2:
        node["resources"]["r"] = rng.choice(
            ({"n": 1, "flag": True}, {"flag": 1, "n": 1}, {"flag": True, "n": 1.0}, None)
        )
    elif kind == 3:
        node["resources"].pop("s", None)
        node["resources"].update(rng.choice(({}, {"s": None}, {"s": "one"}, {"s": [1]}, {"s": [True]})))
    elif kind == 4:
        node["kernel"] = {"version": rng.choice(("6.1", "6.2")), "args": rng.choice(([], ["quiet"], ["a", "b"]))}
    elif kind == 5:
        node["network devices"]["d0"]["tags"] = rng.choice(({"y": "2", "z": "1"}, {"z": "1", "y": "2"}, {}))
    elif kind == 6:
        node["primary network"] = rng.choice(("d0", "d1"))
    else:
        node["ipmi"]["username"] = rng.choice(VALUES)


def served(site: Site, service: OverlayService, name: str) -> dict[str, bytes]:
    raw = [body(service.artefact(site.snapshot, site.node(name), context, "raw")) for context in ("system", "runtime")]
    assert service.failures == {}
    return {os.fsdecode(entry.name): entry.data for each in raw for entry in newc.entries(each)}


def fresh(site: Site, names: Sequence[str], cache: Path) -> dict[str, dict[str, bytes]]:
    """What each node's templates make by themselves, in a service that knows nothing yet."""
    paths = site.paths.with_(cache=cache)
    service = OverlayService(paths, load(paths))
    try:
        return {
            name: {
                output.path: output.content
                for overlay in ("s", "r")
                for output in service.render(site.snapshot, site.node(name), overlay, f"{overlay}.j2")[1]
            }
            for name in names
        }
    finally:
        service.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_overlay_what_is_shared_is_what_each_node_renders_alone(tmp_path: Path, seed: int) -> None:
    for number in range(ROUNDS):
        rng = random.Random(seed * ROUNDS + number)
        place = tmp_path / str(number)
        play(rng, Paths.at(place), place, {"s": Maker(rng).template(), "r": Maker(rng).template()})


@pytest.mark.parametrize("source", [*KNOWN, *OPENED])
def test_overlay_scopes_and_kinds_are_told_apart(tmp_path: Path, source: str) -> None:
    for seed in range(3):
        place = tmp_path / str(seed)
        play(random.Random(seed), Paths.at(place), place, {"s": source, "r": "{{ tags.a }}"}, edits=8)


def play(rng: random.Random, paths: Paths, place: Path, sources: dict[str, str], edits: int = EDITS) -> None:
    state = nodes(rng)
    site = Site(paths, nodes=json.dumps({"nodes": state}))
    (paths.etc / "note").write_text("note\n")
    for name, source in sources.items():
        site.put(name, f"{name}.j2", source)
    for step in range(edits + 1):
        own = fresh(site, NAMES, place / f"cache-{step}")
        for name in rng.sample(NAMES, len(NAMES)):
            shared = served(site, site.service, name)
            for path in (path for path, content in own[name].items() if shared.get(path) != content):
                pytest.fail(f"{name}, edit {step}: {sources}\n  {path}: {shared.get(path)!r}\n  {own[name][path]!r}")
        edit(rng, state)
        site.nodes(json.dumps({"nodes": state}))
        if rng.random() < 0.3:
            site.service.close()
            OPEN.remove(site.service)
            site.new_service()
    site.service.close()
    OPEN.remove(site.service)
