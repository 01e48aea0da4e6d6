"""Writes the cases that recorder/ records: every function, the semantics, random templates (seeded) and site overlays.

    python cases.py | (cd recorder && TZ=UTC go run .) > recorded.json
    python cases.py booted | (cd recorder && TZ=UTC go run .) > booted/recorded.json

`booted` is a site of its own: the overlays for the nodes that tests/e2e/test_boot.py boots.

A case is a template and the node it is rendered for. What a case says is not decided here but by Go.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from wwfast.config.settings import load
from wwfast.nodes.registry import Registry
from wwfast.overlays.templates.go.library.builtin import SPRIG
from wwfast.overlays.templates.go.library.site import functions
from wwfast.overlays.templates.go.structs import SERVER
from wwfast.paths import Paths

HERE = Path(__file__).parent
FILES = {
    "motd": "welcome\nto all\n",
    "blocks": "one\ntwo # MARK here\nthree\n",
    "empty": "",
    "rocky-9:/etc/os": "Rocky\n",
}
# Their values depend on the time or on the order of a map in Go.
UNSTEADY = {"ago", "now", "keys", "values", "IgnitionJson", "ImportLink", "readlink", "abort"}
PER_FUNCTION = 14
RANDOM = 520
PATTERNS = 400

STRINGS = (
    '""', '"abc"', '"Hello World"', '"a,b,,c"', '"  x y\\t"', '"héllo wörld"', '"foo_bar-Baz"', '"10"', '"0x1F"',
    '"3.7"',
    '"true"', '"/etc/x/y.conf"', '"a\\nb\\n"', '"XMLHttpRequest2"', '","', '"a"', '"l+"', '"[a-z]+"',
    '"2006-01-02"', "`raw\\n`",
    '"日本語テキスト"', '.Id', '.Tags.list', '"-5"', '"010"', '"1h30m"', '"[1,{\\"a\\":null}]"', '"YWJj"', '"%d-%s"',
)  # fmt: skip
NUMBERS = ("0", "1", "2", "3", "-1", "5", "12", "1e1", "'a'", "(len .Id)")
FLOATS = ("0.5", "0.3", "1.0", "2.5e3", "-0.1")
ANY = (
    *STRINGS, *NUMBERS, *FLOATS, "true", "false", "nil", "(list)", '(list 1 "a" nil 2.5)', '(list "b" "a" "b")',
    "(dict)", '(dict "a" 1 "b" "x")', ".Tags.none", ".Tags", ".Profiles", ".Resources.deep", ".Resources.deep.list",
    "(until 4)", "(.Tags.list | splitList \",\")", "(add 1 2)", ".NetDevs.default.Ipaddr", ".Discoverable",
    '(list (dict "a" 1) (list 1 2))', "1.5", "100000000", "(index .NetDevs \"none\")", "1e21", "(div 7 2)",
    "(float64 3)",
)  # fmt: skip
MAPS = (
    "(dict)",
    '(dict "a" 1 "b" "x")',
    '(dict "a" (dict "b" (dict "c" 7)))',
    ".Resources.deep",
    '(dict "b" "" "z" 0)',
)
BOOLEANS = ("true", "false", '(eq .Id "c1")')
SAMPLES = {"s": STRINGS, "i": NUMBERS, "f": FLOATS, "a": ANY, "m": MAPS, "b": BOOLEANS}
NODES = ("c1", "c2", "d1", "e1")

# More than chance finds: of functions whose arguments have to fit each other, and of formats; one a line.
WRITTEN = (HERE / "functions.txt").read_text().splitlines()
# What the language means, one template a line, \u2424 for a new line and \u2409 for a tab in it.
SEMANTICS = [
    line.replace("\u2424", "\n").replace("\u2409", "\t") for line in (HERE / "semantics.txt").read_text().splitlines()
]


class Writer:
    """Random templates that are mostly right: names that exist, arguments that often fit."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.depth = 0
        self.variables: list[str] = []

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def text(self) -> str:
        return self.pick("\n", "  ", "line ", "# c\n", "a=", ";\n", "\t", "", "", "{ ", "}", "é ")

    def scalar(self) -> str:
        return self.pick(
            ".Id", ".Tags.rack", ".Tags.none", ".ImageName", ".Kernel.Version", ".Ipaddr", '"x"', "7", ".ClusterName",
            "$.Id", ".Ipmi.UserName", "true", "2.5", '"a,b"', ".Warewulf.Port", *(self.variables or [".Comment"]),
        )  # fmt: skip

    def value(self) -> str:
        if self.depth > 3 or self.random.random() < 0.4:
            return self.scalar()
        self.depth += 1
        made = self.filled(
            "(CALL)", "(CALL | toString)", "(CALL | quote)", "(CALL | default 1)", "(CALL | toString | len)",
            "(CALL | empty)",
            "(index .Tags `rack`)", "(index .Tags `none`)", "(index .NetDevs `default`).Device", "V",
        )  # fmt: skip
        self.depth -= 1
        return made

    def filled(self, *choices: str) -> str:
        """One of them, with a value for each V and a call for each CALL."""
        chosen = self.pick(*choices)
        return re.sub(r"\bV\b|\bCALL\b", lambda match: self.call() if match[0] == "CALL" else self.value(), chosen)

    def call(self) -> str:
        return self.filled(
            "printf `%v` V", "printf `%s` V", "printf `%d` V", "printf `%5v|` V", "printf `%-6v.` V", "printf `%q` V",
            "printf `%T` V", "printf `%v %v` V", "default V V", "eq (toString V) (print V)",
            "ne V V", "eq V V", "eq (toString V) .Id", "and V V", "or V V V", "not V",
            "lower (toString V)", "upper (print V V)", "list V V V", "join `-` (list V V)", "cat V V", "add V V",
            "ternary V V (empty V)", "splitList `,` .Tags.list", "splitList `,` `p,q`", "splitList `,` (toString V)",
            "dict `k` V `l` V", "trunc 2 (toString V)", "trunc -2 (toString V)", "coalesce V V", "kindOf V", "toJson V",
            "lt (int V) 3", "sortAlpha (list V V V)", "replace `a` `b` (print V)", "has V (list V V)",
            "without (list V V) V",
            "int V", "regexReplaceAll `[a-c]+` (print V) `<$0>`", "quote V V",
        )  # fmt: skip

    def open(self) -> str:
        return self.pick("{{ ", "{{", "{{- ", "{{ ")

    def close(self) -> str:
        return self.pick(" }}", "}}", " -}}", " }}")

    def tag(self, inside: str) -> str:
        return f"{self.open()}{inside}{self.close()}"

    def part(self) -> str:
        roll = self.random.random()
        if self.depth > 4 or roll < 0.45:
            return self.tag(self.pick(self.value(), self.call(), f"{self.call()} | toString"))
        known = len(self.variables)
        self.depth += 1
        if roll < 0.55:
            name = self.pick("$a", "$b", "$c")
            made = self.tag(f"{name} := {self.value()}")
            self.variables.append(name)
            self.depth -= 1
            return made
        if roll < 0.62 and self.variables:
            made = self.tag(f"{self.random.choice(self.variables)} = {self.value()}")
        elif roll < 0.78:
            middle = self.pick("", self.tag("else") + self.body(), self.tag(f"else if {self.value()}") + self.body())
            made = self.tag(f"if {self.pick(self.value(), self.call())}") + self.body() + middle + self.tag("end")
        elif roll < 0.95:
            over = self.pick(
                ".Tags",
                ".NetDevs",
                ".Kernel.Args",
                "(list 1 `b` 3)",
                ".Resources.deep",
                "(until 3)",
                "$.SystemOverlay",
                ".Tags.none",
                "$.AllNodes",
            )
            head = self.pick(f"range {over}", f"range $k, $v := {over}", f"range $v := {over}")
            names = [name for name in ("$k", "$v") if f"{name}," in head or f"{name} :=" in head]
            self.variables += names
            inner = "".join(
                self.pick(*([f"{{{{ {n} }}}}" for n in names] or ["{{ . }}"]))
                if self.random.random() < 0.5 and ".NetDevs" not in over and "AllNodes" not in over
                else self.leaf(names, over)
                for _ in range(2)
            )
            made = self.tag(head) + inner + self.pick("", self.tag("else") + "none") + self.tag("end")
        else:
            made = self.tag(f"with {self.value()}") + self.tag(".") + self.tag("else") + "-" + self.tag("end")
        del self.variables[known:]
        self.depth -= 1
        return made

    def leaf(self, names: list[str], over: str) -> str:
        owner = names[-1] if names else ""
        if over == ".NetDevs":
            return self.tag(
                f"{owner}.{self.pick('Device', 'Ipaddr', 'IpCIDR', 'OnBoot', 'Tags.DNS1', 'OnBoot.BoolDefaultTrue')}"
            )
        if over == "$.AllNodes":
            return self.tag(
                f"{owner}.{self.pick('Id', 'ClusterName', 'Tags.rack', 'Tags.none', 'Kernel.Version', 'Profiles')}"
            )
        return self.text() + self.tag(self.pick(*(names or ["."]), "print `q`"))

    def body(self) -> str:
        known = len(self.variables)
        made = "".join(self.pick(self.text(), self.part()) for _ in range(self.random.randint(1, 3)))
        del self.variables[known:]
        return made

    def template(self) -> str:
        self.depth, self.variables = 0, []
        return "".join(self.text() + self.part() for _ in range(self.random.randint(2, 7)))


def of_functions() -> Iterator[tuple[str, str]]:
    chance = random.Random(18)
    known = {**SPRIG, **functions(None)}  # type: ignore[arg-type]
    for name in sorted(known):
        if name in UNSTEADY or name in (
            "date",
            "htmlDate",
            "htmlDateInZone",
            "dateInZone",
            "date_in_zone",
            "durationRound",
            "semver",
            "semverCompare",
        ):
            continue
        one = known[name]
        for number in range(PER_FUNCTION):
            more = one.rest * chance.choice((0, 1, 1, 2, 3)) if one.rest else ""
            arguments = [chance.choice(SAMPLES[letter]) for letter in one.parameters + more]
            if number % 7 == 6 and arguments:  # something else, or one too few
                arguments[-1:] = [chance.choice(ANY)] if chance.random() < 0.7 else []
            if arguments.count(".Resources.deep") > 1:  # `set` of a map into itself: Go's process ends of it
                continue
            yield f"{name}-{number}", f"{{{{ {' '.join([name, *arguments])} }}}}"
    for number, line in enumerate(WRITTEN):
        yield f"written-{number}-{line.split()[0].strip('(')}", f"{{{{ {line} }}}}"


def every() -> Iterator[dict[str, str]]:
    for number, (name, template) in enumerate(of_functions()):
        yield {"name": f"function-{name}", "node": NODES[number % 2], "template": template}
    for number, template in enumerate(SEMANTICS):
        yield {"name": f"semantics-{number}", "node": "c1", "template": template}
    writer = Writer(4711)
    for number in range(RANDOM):
        yield {"name": f"random-{number}", "node": NODES[number % 4], "template": writer.template()}
    yield from of_overlays(NODES)
    yield from of_patterns()


def of_patterns() -> Iterator[dict[str, str]]:
    """Random patterns, with repeats in repeats, on texts of few letters: all that is found, and by which groups."""
    chance = random.Random(2)

    def pattern(depth: int) -> str:
        roll = chance.random()
        if depth > 3 or roll < 0.4:
            return chance.choice(("a", "b", "[ab]", "[^a]", ".", "a", "^", "$", "\\b", "", "ab", "é"))
        if roll < 0.6:
            return pattern(depth + 1) + pattern(depth + 1)
        if roll < 0.75:
            return f"({chance.choice(('', '?:', '?i:'))}{pattern(depth + 1)}|{pattern(depth + 1)})"
        inner = chance.choice(("(", "(?:")) + pattern(depth + 1) + ")"
        return inner + chance.choice(("*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{1,}", "{2,3}?", "{0}"))

    for number in range(PATTERNS):
        text = "".join(chance.choice("aaabbAB-é\n") for _ in range(chance.randint(0, 12)))
        made, shown = pattern(0).replace("`", ""), json.dumps(text, ensure_ascii=False)
        yield {
            "name": f"pattern-{number}",
            "node": "c1",
            "template": f"{{{{ regexFindAll `{made}` {shown} -1 | toJson }}}} "
            f"{{{{ regexReplaceAll `{made}` {shown} `<$0|$1|$2|$3>` }}}} "
            f"{{{{ regexSplit `{made}` {shown} 3 | toJson }}}}",
        }


def of_overlays(nodes: Sequence[str]) -> Iterator[dict[str, str]]:
    for path in sorted((HERE / "overlays").glob("*.ww")):
        for node in nodes:
            yield {"name": f"overlay-{path.name}-{node}", "node": node, "template": path.read_text()}


def spelled(node: dict[str, Any]) -> dict[str, Any]:
    """With the names that Go's structs have in JSON."""
    for device in node.get("network devices", {}).values():
        device["onbot"] = device.pop("onboot", "")
    return node


def site(at: Path) -> dict[str, Any]:
    """Nodes and settings of a directory as the recorder reads them."""
    with tempfile.TemporaryDirectory() as root:
        paths = Paths.at(Path(root))
        paths.etc.mkdir(parents=True)
        for name in ("nodes.conf", "warewulf.conf"):
            (paths.etc / name).write_text((at / name).read_text())
        settings, nodes = load(paths), Registry(paths).snapshot().nodes
        conf = {
            name: getattr(settings, name)
            for name in (*SERVER.values(), "warewulf", "dhcp", "paths", "ssh")
            if not name.startswith("build")
        }
        for name in ("warewulf", "dhcp", "paths", "ssh"):
            conf[name] = {key: getattr(conf[name], key) for key in conf[name].__struct_fields__}
        return {
            "nodes": [{"id": node.id, "node": spelled(msgspec.to_builtins(node))} for node in nodes.values()],
            "conf": conf,
            "files": FILES,
        }


if __name__ == "__main__":
    data = site(HERE.joinpath(*sys.argv[1:]))
    cases = of_overlays([node["id"] for node in data["nodes"]]) if sys.argv[1:] else every()
    json.dump({**data, "cases": list(cases)}, sys.stdout, indent=1)
