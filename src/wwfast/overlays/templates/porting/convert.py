"""A Go template as one in Jinja2, where there is a way to say the same: a start for whoever ports an overlay.

What has no counterpart is refused with its place. What reads alike need not write alike (`<no value>`, `<nil>`), so
whoever writes the result to a file compares both for the nodes there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from wwfast.overlays.templates.data import FIELDS
from wwfast.overlays.templates.go import structs
from wwfast.overlays.templates.go.data import SHAPE
from wwfast.overlays.templates.go.language import tree as syntax
from wwfast.overlays.templates.go.language.lexer import SyntaxFault
from wwfast.overlays.templates.go.shapes import Shape

NAMES = {
    **{name: pair[0] for name, pair in structs.NODE.items()},
    **structs.SERVER,
    **structs.TEMPLATE,
    **{name: pair[0] for name, pair in structs.SECTIONS.items()},
    "Hostname": "hostname",
    "Container": "image_name",
    "ThisNode": "this_node",
    "AllNodes": "all_nodes",
    "DiskList": "disk_list",
    "FileSystemList": "filesystem_list",
    "PartitionList": "partition_list",
    "ExportsExtended": "export_paths",
    "TLSEnabled": "tls",
    "EnableHostOverlay": "host_overlay",
    "IpxeBinaries": "ipxe",
    "IpCIDR": "ip_cidr",
    "IpCIDR6": "ip_cidr6",
    "NetworkCIDR": "network_cidr",
}
# What a function becomes; {0} is its first argument, {*} all of them.
PLAIN = {
    "not": "not {0}", "ne": "{0} != {1}", "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}",
    "len": "({0} | length)", "lower": "({0} | lower)", "upper": "({0} | upper)", "trim": "({0} | trim)",
    "join": "({1} | join({0}))", "splitList": "{1}.split({0})", "replace": "({2} | replace({0}, {1}))",
    "contains": "{0} in {1}", "hasPrefix": "{1}.startswith({0})", "hasSuffix": "{1}.endswith({0})",
    "trimPrefix": "{1}.removeprefix({0})", "trimSuffix": "{1}.removesuffix({0})", "list": "[{*}]", "has": "{0} in {1}",
    "ternary": "({0} if {2} else {1})", "empty": "not {0}", "add1": "(({0} | int) + 1)", "inc": "({0} + 1)",
    "dec": "({0} - 1)", "sub": "(({0} | int) - ({1} | int))", "int": "({0} | int)", "atoi": "({0} | int)",
    "toString": "({0} | string)", "until": "range({0})", "first": "({0} | first)", "last": "({0} | last)",
    "append": "({0} + [{1}])", "sortAlpha": "({0} | sort)", "reverse": "({0} | reverse | list)",
    "title": "({0} | title)", "get": "{0}.get({1}, \"\")",
    "regexMatch": "{1} is search({0})", "hasKey": "{1} in {0}", "b64enc": "({0} | b64encode)",
    "Include": "include({0})", "IncludeFrom": "include_from({0}, {1})", "IncludeBlock": "include_block({0}, {1})",
    "ImportLink": "import_link({0})", "softlink": "softlink({0})", "file": "file({0})", "nobackup": "nobackup()",
    "abort": "abort()", "readlink": "readlink({0})", "basename": "basename({0})", "IgnitionJson": "ignition_json()",
    "UniqueField": "unique_field({*})", "SystemdEscape": "systemd_escape({0})",
    "SystemdEscapePath": "systemd_escape_path({0})", "base": "basename({0})", "dir": "dirname({0})",
}  # fmt: skip
JOINED = {"and": " and ", "or": " or ", "coalesce": " or ", "print": " ~ ", "add": " + ", "mul": " * "}
SOFT = frozenset(
    {"and", "or", "not", "coalesce", "default", "empty", "eq", "ne"}
)  # what asks whether something is there
_PRINTF = re.compile(r"%(?:[-0]?\d*[sdv]|%)")


def converted(tree: syntax.Tree) -> str:
    """The template in Jinja2. Raises SyntaxFault, with the place, for what has no counterpart."""
    if tree.defined:
        raise SyntaxFault(0, "it defines templates: a macro takes their place")
    converter = Converter()
    converter.parts(tree.body)
    return converter.text()


class Converter:
    def __init__(self) -> None:
        self._made: list[tuple[str, str]] = []  # kind (text, block or value) and what
        self._dot: tuple[str, Shape | None] = ("", SHAPE)
        self._variables: dict[str, tuple[str, Shape | None, int]] = {"$": ("", SHAPE, 0)}  # and in which loop
        self._loops = 0
        self._count = 0

    def text(self) -> str:
        """With the marks that keep blanks and line breaks where Jinja2 would take them."""
        out: list[str] = []
        for at, (kind, what) in enumerate(self._made):
            if kind == "text":
                out.append(re.sub(r"\{(?=[{%#])", '{{ "{" }}', what))
            elif kind == "value":
                out.append(f"{{{{ {what} }}}}")
            else:
                before = "".join(out).rpartition("\n")[2]
                after = next((text for each, text in self._made[at + 1 : at + 2] if each == "text"), "")
                start = "{%+" if before and not before.strip(" \t") else "{%"
                out.append(f"{start} {what} {'+%}' if after.startswith(chr(10)) else '%}'}")
        return "".join(out)

    def parts(self, parts: Sequence[syntax.Part]) -> None:
        for part in parts:
            match part:
                case syntax.Text():
                    self._made.append(("text", part.text))
                case syntax.Action():
                    self._action(part)
                case syntax.Branch(word="range"):
                    self._range(part)
                case syntax.Branch():
                    self._branch(part)
                case syntax.Jump():
                    self._made.append(("block", part.word))
                case _:
                    raise SyntaxFault(part.at, "another template is called here")

    def _block(self, text: str) -> None:
        self._made.append(("block", text))

    def _action(self, part: syntax.Action) -> None:
        value = self.pipeline(part.pipeline)
        if part.pipeline.variables:
            self._set(part.pipeline, value, part.at)
        else:
            self._made.append(("value", value))

    def _set(self, pipeline: syntax.Pipeline, value: str, at: int) -> None:
        for name in pipeline.variables:
            known = self._variables.get(name)
            if not pipeline.declares and known is not None and known[2] != self._loops:
                raise SyntaxFault(at, f"{name} is changed inside a range: in Jinja2 that takes a namespace")
            shape = self._shape(pipeline) if pipeline.declares else None
            self._variables[name] = (self._called(name), shape, self._loops)
            self._block(f"set {self._variables[name][0]} = {value}")

    def _called(self, variable: str) -> str:
        name = variable[1:] or "root"
        return name + "_" if name in FIELDS or name in NAMES.values() or name in ("loop", "range", "dict") else name

    def _branch(self, part: syntax.Branch) -> None:
        before = self._dot, dict(self._variables)
        value = self.pipeline(part.pipeline, soft=True)
        if part.pipeline.variables:
            self._set(part.pipeline, value, part.at)
            value = self._variables[part.pipeline.variables[-1]][0]
        if part.word == "with":
            self._count += 1
            name = f"it{self._count}"
            self._block(f"set {name} = {value}")
            self._dot = (name, self._shape(part.pipeline))
            value = name
        self._block(f"if {value}")
        self.parts(part.body)
        self._dot = before[0]
        if part.otherwise:
            self._block("else")
            self.parts(part.otherwise)
        self._block("endif")
        self._variables = before[1]

    def _range(self, part: syntax.Branch) -> None:
        before = self._dot, dict(self._variables)
        over = self.pipeline(part.pipeline)
        held = self._shape(part.pipeline)
        element = held.element if held is not None else None
        variables = part.pipeline.variables
        if variables and not part.pipeline.declares:
            raise SyntaxFault(part.at, "a range that assigns to a variable from outside")
        self._count += 1
        names = [self._called(name) for name in variables] or [f"item{self._count}"]
        lists = held is not None and held is SHAPE.walk(["AllNodes"])[0]
        if len(names) == 2 and (lists or self._counted(over)):
            self._block(f"for {names[1]} in {over}")
            self._variables[variables[0]] = ("loop.index0", None, self._loops + 1)
        else:
            self._block(f"for {', '.join(names)} in {over}{'.items()' if len(names) == 2 else ''}")
            if len(names) == 1 and element is not None and not lists:
                self._made[-1] = ("block", f"for {names[0]} in {over}.values()")
            if len(names) == 2:
                self._variables[variables[0]] = (names[0], None, self._loops + 1)
        if variables:
            self._variables[variables[-1]] = (names[-1], element, self._loops + 1)
        self._dot = (names[-1], element)
        self._loops += 1
        self.parts(part.body)
        self._loops -= 1
        self._dot = before[0]
        if part.otherwise:
            self._block("else")
            self.parts(part.otherwise)
        self._block("endfor")
        self._variables = before[1]

    @staticmethod
    def _counted(over: str) -> bool:
        """Whether it is a list by what stands there; else it is taken for a map."""
        return over.startswith(("[", "range(")) or ".split(" in over or over.endswith((".args", "profiles", "overlay"))

    # -- expressions -------------------------------------------------------------------------------------------

    def pipeline(self, pipeline: syntax.Pipeline, *, soft: bool = False) -> str:
        """`soft` where only is asked whether it is there."""
        value: str | None = None
        for command, after in zip(pipeline.commands, [*pipeline.commands[1:], None], strict=True):
            asked = after.operands[0] if after is not None else None
            softly = asked.name in SOFT if isinstance(asked, syntax.Function) else soft and after is None
            value = self._command(command, value, soft=softly)
        assert value is not None
        return value

    def _command(self, command: syntax.Command, final: str | None, *, soft: bool) -> str:
        first, *rest = command.operands
        if not isinstance(first, syntax.Function):
            if rest or final is not None:
                raise SyntaxFault(first.at, "a method with arguments")
            return self._operand(first, soft=soft)
        asks = first.name in SOFT
        arguments = [
            self._operand(each, soft=asks and not (first.name == "default" and not at)) for at, each in enumerate(rest)
        ]
        if final is not None:
            arguments.append(final)
        return self._function(first, arguments)

    def _function(self, function: syntax.Function, arguments: list[str]) -> str:
        name = function.name
        if name in PLAIN:
            made = PLAIN[name].replace("{*}", ", ".join(arguments))
            return re.sub(r"\{(\d)\}", lambda match: arguments[int(match[1])], made)
        if name in JOINED:
            words = [f"({each} | int)" for each in arguments] if name in ("add", "mul") else arguments
            return "(" + JOINED[name].join(words) + ")"
        match name, arguments:
            case "eq", [one, other]:
                return f"{one} == {other}"
            case "eq", [one, *others]:
                return f"{one} in ({', '.join(others)})"
            case "default", [fallback, value]:
                return f"({value} or {fallback})"
            case "index", [owner, *keys]:
                return owner + "".join(f"[{key}]" for key in keys)
            case "regexReplaceAll", [pattern, value, by] if by.startswith('"'):
                groups = re.sub(r"[$][{]?([0-9])[}]?", lambda match: "\\\\" + match[1], by)
                return f"({value} | regex_replace({pattern}, {groups}))"
            case "dict", _ if len(arguments) % 2 == 0:
                pairs = zip(arguments[::2], arguments[1::2], strict=True)
                return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
            case "printf", [pattern, *values] if pattern.startswith('"') and "%" not in _PRINTF.sub("", pattern):
                return f"{re.sub('v', 's', pattern) if '%v' in pattern else pattern} % ({', '.join(values)},)"
        raise SyntaxFault(function.at, f"{name} has no counterpart here")

    def _operand(self, operand: syntax.Operand, *, soft: bool = False) -> str:
        match operand:
            case syntax.Literal(value=bool()):
                return "true" if operand.value else "false"
            case syntax.Literal(value=str()):
                return json.dumps(operand.value, ensure_ascii=False)
            case syntax.Literal():
                return repr(operand.value)
            case syntax.Pipeline():
                inner = self.pipeline(operand, soft=soft)
                return inner if re.fullmatch(r"[\w.\[\]\"]+|\(.*\)", inner) else f"({inner})"
            case syntax.Dot():
                return self._named(self._dot[0], operand.at)
            case syntax.Fields():
                return self._path(*self._dot, operand.names, operand.at, soft=soft)
            case syntax.Variable():
                name, shape, _ = self._variables[operand.name]
                return self._path(name, shape, operand.names, operand.at, soft=soft)
            case syntax.Chain(inner=syntax.Pipeline() as inner):
                return self._path(self._operand(inner), self._shape(inner), operand.names, operand.at, soft=soft)
            case syntax.Function():
                return self._function(operand, [])
        raise SyntaxFault(operand.at, "this has no counterpart here")

    @staticmethod
    def _named(name: str, at: int) -> str:
        if not name:
            raise SyntaxFault(at, "the whole of the data")
        return name

    def _path(self, owner: str, shape: Shape | None, names: list[str], at: int, *, soft: bool) -> str:
        if not names:
            return self._named(owner, at)
        for place, name in enumerate(names):
            if name in ("Bool", "BoolDefaultTrue"):
                return f"({owner} | bool{'(true)' if name != 'Bool' else ''})"
            if shape is not None and shape.members is not None:
                owner = f"{owner}.{_attribute(name)}" if owner else _attribute(name)
            elif soft and place == len(names) - 1:
                owner = f"{owner}.get({json.dumps(name)})"
            else:
                owner = f"{owner}.{name}"
            shape = shape.walk([name])[0] if shape is not None else None
        return owner

    def _shape(self, pipeline: syntax.Pipeline) -> Shape | None:
        command = pipeline.commands[0]
        if len(pipeline.commands) > 1:
            return None
        first = command.operands[0]
        if isinstance(first, syntax.Function) and first.name == "index" and len(command.operands) == 3:
            held = self._shape(syntax.Pipeline([syntax.Command([command.operands[1]], first.at)], first.at))
            return held.element if held is not None else None
        if len(command.operands) > 1:
            return None
        owner: Shape | None = None
        names: list[str] = []
        if isinstance(first, syntax.Pipeline):
            return self._shape(first)
        if isinstance(first, syntax.Dot | syntax.Fields):
            owner, names = self._dot[1], first.names if isinstance(first, syntax.Fields) else []
        elif isinstance(first, syntax.Variable):
            owner, names = self._variables[first.name][1], first.names
        return owner.walk(names)[0] if owner is not None else None


def _attribute(name: str) -> str:
    """Our name of a field."""
    if name in NAMES:
        return NAMES[name]
    return _SPELLED.get(name.lower(), name.lower())


def _spelled() -> dict[str, str]:
    from wwfast.config import settings
    from wwfast.nodes import model

    kinds = (model.Kernel, model.Ipmi, model.NetDev, model.Partition, model.Disk, model.FileSystem, settings.Warewulf,
             settings.Dhcp, settings.Tftp, settings.Nfs, settings.Export)  # fmt: skip
    return {name.replace("_", ""): name for kind in kinds for name in kind.__struct_fields__}


_SPELLED = _spelled()
