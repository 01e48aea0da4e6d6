"""Go templates that try to get out: what they can reach is data, by a closed list of types and names.

The walk starts at the top level and takes every step a template can take: fields, methods, elements. Nothing of a
template becomes a name in Python, so the compiled code is looked at, too.
"""

from __future__ import annotations

import ast
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from support.escapes import SECRET, tempting
from support.overlays import Site
from wwfast.config.settings import load
from wwfast.errors import WwfastError
from wwfast.overlays.files.images import Images
from wwfast.overlays.templates import data, environment
from wwfast.overlays.templates.go import data as godata
from wwfast.overlays.templates.go import ipxe, render, structs, values
from wwfast.overlays.templates.go.language import compiler
from wwfast.overlays.templates.go.language.functions import KINDS
from wwfast.overlays.templates.go.language.parser import parse
from wwfast.overlays.templates.go.library.builtin import REFUSED, SPRIG
from wwfast.overlays.templates.go.library.dates import Time
from wwfast.overlays.templates.go.library.site import Event, functions
from wwfast.overlays.templates.go.library.versions import Version
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths

DATA = (str, int, float, bool, type(None), list, dict)
OBJECTS = (values.Struct, values.Null, values.Flag, values.Address, values.Word, Time, Version, godata.Top,
           godata.NodeView, ipxe.Variables)  # fmt: skip
NAMES = {
    *dir(object),
    *dir(type),
    *dir(Path),
    *dir(values.Struct),
    *dir(godata.Top),
    *dir(godata.NodeView),
    "raw",
    "node",
    "__globals__",
    "__dict__",
    "__code__",
    "_data",
    "_facts",
    "reads",
    "names",
    "lookup",
    "member",
    "call",
    "MEMBERS",
    "text",
    "packed",
    "zone",
    "ns",
    "printed",
    "storage",
    "GO",
    "settings",
    "locations",
    "Settings",
    "Conf",
    "Wwfast",
}


@pytest.fixture
def site(paths: Paths) -> Site:
    return tempting(paths)


class Ready:
    """The engine of overlays, and the names of n1."""

    def __init__(self, site: Site) -> None:
        conf = load(site.paths)
        sources = Sources(site.paths, tuple(conf.wwfast.include), Images(site.paths).rootfs)
        env = environment.make(sources)
        self.engine = render.engine(env)
        cluster = data.Cluster(dict(site.snapshot.nodes), lambda image: "")
        self.names = data.Names(env.globals, env.reader, data.Server(conf.conf), cluster)
        self.names.begin(site.node())
        self.top = godata.Top(self.engine.data(self.names), {"overlay": "o", "build_source": "/o"})

    def run(self, source: str) -> str:
        program = render.Program(self.engine, source, "overlay o, etc/t.ww")
        facts = {"overlay": "o", "build_source": "/o"}
        outputs = program.outputs(self.names, facts, "n1", "etc/t")
        return "".join(f"{it.path}\n{it.content.decode(errors='replace')}" for it in outputs)


def walk(value: Any, known: set[str], seen: set[int], kept: list[Any]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    kept.append(value)
    assert isinstance(value, DATA) or type(value).__mro__[-2] is values.Object or isinstance(value, OBJECTS), value
    assert not callable(value)
    if isinstance(value, dict):
        for key, item in value.items():
            assert isinstance(key, str)
            walk(item, known, seen, kept)
    elif isinstance(value, list):
        for item in value:
            walk(item, known, seen, kept)
    elif isinstance(value, values.Object):
        for name in known:
            for step in (values.field, values.method):
                try:
                    found = step(value, name) if step is values.field else step(value, name, "2006")
                except WwfastError:
                    continue
                assert not name.startswith("_"), name
                walk(found, known, seen, kept)


def test_go_template_reaches_nothing_but_data(site: Site) -> None:
    ready = Ready(site)
    members = {name for each in vars(structs).values() for name in getattr(each, "MEMBERS", {})}
    known = {
        *NAMES,
        *members,
        *godata.KNOWN,
        *structs.NODE,
        "Format",
        "Unix",
        "String",
        "To4",
        "Bool",
        "BoolDefaultTrue",
    }
    kept: list[Any] = []
    walk(ready.top, known, set(), kept)
    assert len(kept) > 100
    walk(SPRIG["now"].call(), known, set(), [])
    walk(ipxe.Variables({"tags": {"a": "1"}, "network_devices": site.node().network_devices}), known, set(), [])


def test_go_template_changes_nothing_of_what_others_see(site: Site) -> None:
    ready = Ready(site)
    ready.run(
        '{{ $_ := set .Resources "new" 1 }}{{ $_ := unset .Resources.deep "flag" }}'
        '{{ $_ := set (index .Resources.fstab 0) "spec" "x" }}'
    )
    ready.run(
        '{{ $_ := set .ThisNode.Resources.deep "number" 4 }}'
        '{{ range .AllNodes }}{{ $_ := set .Resources "y" 1 }}{{ end }}'
    )
    assert ready.run("{{ toJson .Resources }}{{ toJson .ThisNode.Resources }}").count('"number":3') == 2
    assert site.node().resources == {
        "fstab": [{"spec": "server:/home"}], "deep": {"flag": True, "number": 3, "half": 0.5, "none": None},
    }  # fmt: skip


def test_go_template_becomes_no_name_in_python() -> None:
    """The code of a template names what the compiler made and what stands in the table, whatever the template says."""
    source = (
        "{{ define `import os` }}{{ .__class__ }}{{ end }}{{ $__builtins__ := `__import__` }}"
        "{{ $w := 1 }}{{ $run := $w }}"
        "{{ range $field, $show := .__dict__ }}{{ $field.mro }}{{ $show }}{{ end }}"
        "{{ template `import os` $__builtins__ }}"
        "{{ with $main := (printf `%s` .d) }}{{ $main.co_code }}{{ end }}{{ $.__globals__ | upper }}"
    )
    known = {**SPRIG, **functions(None)}  # type: ignore[arg-type]
    made = compiler.compiled(parse(source, known, REFUSED), source, "t", known)
    allowed = {"main", "run", "d", "w", "write", "show", "fail", *compiler.RUNTIME, *(f"f_{name}" for name in known)}

    def check(code: CodeType) -> None:
        for name in (*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars):
            assert name in allowed or (name[0] in "tvdsk" and name[1:2] == "_" and name[2:].isdigit()), name
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                check(constant)

    check(made.code)
    assert render.Engine(SPRIG).names["__builtins__"] == {}
    assert not {name for name in compiler.RUNTIME if name.startswith("_")}
    assert ast.parse("main")  # names are identifiers; those above are all there are


PATHS = (
    "/etc/shadow", "../shadow", "/etc/warewulf/../shadow", "up", "absolute", "proc", "root/secret", "root/etc/shadow",
    "/proc/self/environ", "/proc/self/root/secret", "//etc//shadow", "./../shadow", "note/../../shadow", "/secret",
    "/etc/passwd/../shadow", "/dev/stdin",
)  # fmt: skip
READERS = ("Include `P`", "IncludeBlock `P` `none`", "readlink `P`", "ImportLink `P`", "IncludeFrom `../..` `P`")
ATTACKS = (
    "{{ .__class__ }}",
    "{{ .Id.__class__ }}",
    "{{ .Tags.__class__ }}|{{ (dict).__class__ }}",
    "{{ (list).append }}",
    "{{ .Id.format .Id }}",
    "{{ printf `{0.__class__}` . }}",
    "{{ .Kernel.raw }}",
    "{{ .ThisNode.node }}",
    "{{ .names }}",
    "{{ call .Id }}",
    "{{ index . `Id` }}",
    "{{ index .Kernel `raw` }}",
    "{{ env `HOME` }}",
    "{{ expandenv `$HOME` }}",
    "{{ getHostByName `localhost` }}",
    "{{ genPrivateKey `rsa` }}",
    "{{ randAlpha 3 }}",
    "{{ file `../../made` }}",
    "{{ file `/../made` }}",
    "{{ file `..` }}",
    "{{ file `/` }}",
    "{{ file `/a/../../made` }}x",
    "{{ softlink `a\x00b` }}",
    "{{ dateInZone `2006` 0 `../../../etc/shadow` }}{{ fail `x` }}",
    "{{ repeat 1000000000 `x` }}",
    "{{ until 1000000000 }}",
    "{{ untilStep 0 100000000 1 }}",
    "{{ range 1000000000 }}{{ end }}",
    "{{ seq 1 1000000000 }}",
    "{{ indent 1000000000 `x` }}",
    "{{ replace `` (repeat 1000000 `x`) (repeat 1000000 `y`) }}",
    "{{ define `r` }}{{ template `r` }}{{ end }}{{ template `r` }}",
    "{{ $d := dict }}{{ $_ := set $d `d` $d }}{{ $d }}",
    "{{ $d := dict }}{{ $_ := set $d `d` $d }}{{ toJson $d }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ if 1 }}" * 3000 + "{{ end }}" * 3000,
    "{{ range . }}" * 30 + "{{ end }}" * 30,
    "{{ if 1 }}" + "{{ else if 1 }}" * 5000 + "{{ end }}",
    "{{ printf `%1000000000d` 1 }}{{ printf `%.1000000000f` 1.0 }}{{ .Nope }}",
    "{{ regexMatch `(?=a)` `a` | ternary (fail `x`) (fail `y`) }}",
    "{{ mustRegexMatch `" + "(" * 3000 + "a" + ")" * 3000 + "` `a` }}",
    "{{ mustRegexMatch `(((a{100}){100}){100})` `a` }}",
    "{{ fromJson (repeat 100000 `[`) | toJson }}{{ .Nope }}",
    "{{ sub `1` (mul 9223372036854775807 9223372036854775807) }}{{ .Nope }}",
    "{{ int (repeat 100000 `9`) }}{{ .Nope }}",
)


def test_go_template_attacks_are_refused(site: Site) -> None:
    ready = Ready(site)
    before = {path: path.lstat().st_mtime_ns for path in site.paths.root.rglob("*")}
    sources = [f"{{{{ {reader.replace('P', path)} }}}}" for reader in READERS for path in PATHS] + list(ATTACKS)
    for source in sources:
        try:
            text = ready.run(source)
        except WwfastError as error:
            text = error.message
            assert "overlay o, etc/t.ww" in text
            assert "hunter2" not in text
        else:
            allowed = ("readlink", "IncludeFrom", "IncludeBlock", "<no value>")
            assert any(word in source or word in text for word in allowed), (source[:80], text[:80])
        for word in (SECRET, "<class", "<function", "<slot", "<bound", "Traceback"):
            assert word not in text, source[:80]
    assert {path: path.lstat().st_mtime_ns for path in site.paths.root.rglob("*")} == before


def test_go_template_errors_hold_no_value(site: Site) -> None:
    """Of what a function was given only what stands in the template itself is told."""
    ready = Ready(site)
    secret = ".Ipmi.Password"
    failing = [
        f"{{{{ fail {secret} }}}}",
        f"{{{{ Include {secret} }}}}{{{{ Include (print `/` {secret}) }}}}",
        f"{{{{ eq {secret} 1 }}}}",
        f"{{{{ until {secret} }}}}",
        f"{{{{ index .Kernel.Args {secret} }}}}",
        f"{{{{ mustRegexFind (print `(` {secret}) `a` }}}}",
        f"{{{{ mustToDate `2006` {secret} }}}}",
        f"{{{{ mustFromJson {secret} }}}}",
        f"{{{{ file (print `/../` {secret}) }}}}",
        f"{{{{ (dict {secret} 1).x.y.z | lower }}}}",
        f"{{{{ mustDateModify {secret} now }}}}",
        f"{{{{ ImportLink (print `no` {secret}) }}}}",
        f"{{{{ urlParse (print `http://[` {secret}) }}}}",
        f"{{{{ UniqueField {secret} -1 `x` }}}}",
        f"{{{{ template `t` {secret} }}}}",
    ]
    for source in failing:
        with pytest.raises(WwfastError) as caught:
            ready.run(source)
        assert "hunter2" not in f"{caught.value.message} {caught.value.hint}", source
        assert ", line 1, column " in caught.value.message, source
        assert ", node n1" in caught.value.message or "parse" in source or "not defined" in caught.value.message, source


def test_go_template_functions_have_types() -> None:
    """By construction: each parameter has a kind, and what a function gives is data."""
    known = {**SPRIG, **functions(None)}  # type: ignore[arg-type]
    for name, function in known.items():
        assert {*function.parameters, *function.rest} <= KINDS.keys(), name
    assert Event("F", "x").kind == "F"
