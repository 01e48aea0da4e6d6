"""The one YAML helper: text to plain trees and back, every scalar a string.

A tree is dict | list | str | None. A schema types the strings; `typed()` does it for free-form data by YAML 1.2
rules (`yes` and `010` stay what they are: text and ten). Quoted scalars are `Quoted`, null is None.

What is written is text for every reader, whatever its rules: PyYAML and with it Ansible would take an unquoted `yes`,
`010`, `52:54:00:00:07:01` or date for something else (YAML 1.1). Only what is marked `Plain` stands as it is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from wwfast._ext import yamlevents
from wwfast._ext.yamlevents import Quoted
from wwfast.errors import ConfigError

__all__ = [
    "Plain",
    "Positions",
    "Quoted",
    "Tree",
    "YamlError",
    "compose",
    "dump",
    "foreign",
    "load",
    "load_anchored",
    "locate",
    "printed",
    "scalar",
    "typed",
]

Tree = Any  # dict[str, Tree] | list[Tree] | str | None; mypy has no recursive alias that reads well here


class Plain(str):
    """A scalar that is no text: written without quotes, whatever readers take it for. It is equal to none of text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is Plain and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Byte order marks; that of UTF-32 begins with one of UTF-16.
WIDE = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class YamlError(ConfigError):
    """The text is no YAML; `line` and `column` count from 1."""

    def __init__(self, name: str, problem: str, line: int, column: int, *, hint: str | None = None) -> None:
        super().__init__(f"{name}:{line}:{column}: {problem}", hint=hint)
        self.line, self.column = line, column


def load_anchored(data: bytes, name: str) -> tuple[Tree, bool]:
    """The tree, and whether anchors or aliases occur in it. Raises YamlError naming `name`, line and column."""
    if found := wide(data):  # libyaml reads UTF-16, but no edit in place would
        raise YamlError(name, f"is {found}, not UTF-8", 1, 1, hint=f"iconv -f {found} -t UTF-8 {name}")
    try:
        return yamlevents.load(data)
    except yamlevents.Syntax as error:
        problem, line, column = error.args
        raise encoding(data, name) or YamlError(name, problem, line + 1, column + 1) from None


def wide(data: bytes) -> str:
    """What a text is in by its byte order mark, UTF-16 or UTF-32, or ""."""
    return next((name for mark, name in WIDE.items() if data.startswith(mark)), "")


def encoding(data: bytes, name: str) -> YamlError | None:
    """What libyaml has no words for, or not where it is: bytes that are no UTF-8, the zeros of another encoding, and
    characters that no YAML has (YAML 1.2.2, 5.1)."""
    at = data.find(b"\0")
    problem, hint = "a zero byte: this is UTF-16 without its mark, or no text", f"file {name}"
    if at < 0:
        try:
            found = UNPRINTABLE.search(text := data.decode())
            if found is None:
                return None
            at = len(text[: found.start()].encode())
            problem, hint = f"the character {found[0]!a} is no text", f"take it out: sed -n l {name} shows where it is"
        except UnicodeDecodeError as error:
            at = error.start
            problem = f"byte 0x{data[at]:02x} is not UTF-8"
            hint = f"if it is Latin-1: iconv -f ISO-8859-1 -t UTF-8 {name}"
    start = data.rfind(b"\n", 0, at) + 1
    column = len(data[start:at].decode(errors="replace")) + 1
    return YamlError(name, problem, data.count(b"\n", 0, at) + 1, column, hint=hint)


def load(data: bytes, name: str) -> Tree:
    return load_anchored(data, name)[0]


@functools.cache
def _texts() -> Any:
    """PyYAML's safe loader in C, less its guesses: every scalar is text, `<<` merges, Ansible's tags are known."""
    import yaml

    class Texts(yaml.CSafeLoader):
        pass

    Texts.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag.endswith((":merge", ":null"))]
        for first, known in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }
    as_text: Any = yaml.CSafeLoader.construct_scalar
    Texts.add_constructor("!unsafe", as_text)
    Texts.add_constructor("!vault", lambda loader, node: None)  # a secret that only Ansible can open
    return Texts


def foreign(text: str, name: str) -> Tree:
    """A tree of a file that another program reads by YAML 1.1, by PyYAML: merge keys and tags are its. Nothing is made
    of the scalars, so `52:54:00:00:07:01` is no number. Raises YamlError with the line."""
    import yaml

    try:
        return yaml.load(text, Loader=_texts())  # a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise YamlError(name, error.problem or "is no YAML", *at) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlError(name, f"is no YAML that describes nodes: {' '.join(str(error).split())}", 1, 1) from None


def compose(data: bytes) -> Any:
    """The same with positions, see _ext.yamlevents; for editors and for Positions."""
    return yamlevents.compose(data)


class Positions:
    """Where the places of a text stand, to word errors: composed when first asked, once for however many."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._keys: dict[int, dict[str, Any]] = {}  # of each map that was looked into

    @functools.cached_property
    def _root(self) -> Any:
        try:
            return compose(self.data)
        except yamlevents.Syntax:
            return None

    def line(self, path: Sequence[str | int]) -> int:
        """The line (from 1) where `path` stands; the deepest part of it that exists, 1 for an empty text."""
        return self._at(path)[0]

    def anchored(self, path: Sequence[str | int]) -> bool:
        """Whether others can refer to what stands there: to it as a whole, or to each of its parts."""
        return anchored(self._at(path)[1])

    def _at(self, path: Sequence[str | int]) -> tuple[int, Any]:
        node, line = self._root, 0
        for step in path:
            found = None
            if node and node[0] == "map":
                found = self._pairs(node).get(str(step))
            elif node and node[0] == "list" and isinstance(step, int) and step < len(node[6]):
                found = (node[6][step], node[6][step])
            if found is None:
                break
            line, node = found[0][1], found[1]
        return int(line) + 1, node

    def _pairs(self, node: Any) -> dict[str, Any]:
        pairs = self._keys.get(id(node))
        if pairs is None:
            pairs = self._keys[id(node)] = {str(pair[0][6] or ""): pair for pair in reversed(node[6])}
        return pairs


def anchored(node: Any) -> bool:
    """Of a composed value."""
    kind, *_, value, anchor, _ = node
    parts = [pair[1] for pair in value] if kind == "map" else value if kind == "list" else []
    return bool(anchor) or (bool(parts) and all(map(anchored, parts)))


def locate(data: bytes, path: Sequence[str | int]) -> int:
    """The line of one place, for one error; `Positions` for many."""
    return Positions(data).line(path)


INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


def typed(tree: Tree) -> Any:
    """YAML 1.2 core schema: plain scalars become int, float, bool or text; quoted ones are text."""
    if isinstance(tree, dict):
        return {key: typed(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [typed(value) for value in tree]
    if type(tree) is not str:
        return str(tree) if isinstance(tree, Quoted) else tree
    if tree in TRUE or tree in FALSE:
        return tree in TRUE
    if len(tree) <= 4000 and INTEGER.fullmatch(tree):  # Python refuses to make a number of more than 4300 digits
        return int(tree, 0) if tree[:2] in ("0o", "0x") else int(tree)
    if tree.lower() in SPECIAL and tree[-3:] in ("inf", "Inf", "INF", "nan", "NaN", "NAN"):
        return SPECIAL[tree.lower()]
    if FLOAT.fullmatch(tree):
        return float(tree)
    return tree


# What may stand unquoted and means the same text to us, to YAML 1.1 and to YAML 1.2 readers.
PLAIN = re.compile(r"[A-Za-z0-9_/.~][A-Za-z0-9_/.,()+@%^=~ -]*(:+[A-Za-z0-9_/.,()+@%^=~-]+)*")
RESERVED = re.compile(r"~|null|Null|NULL|\.{1,3}|<<|=")
# Texts that a reader of YAML 1.1 or 1.2 would take for something else: yes and no, numbers (with a base, an exponent,
# underscores, or base 60 as in 52:54:00:00:07:01), dates.
TYPED = re.compile(
    r"true|false|yes|no|on|off|y|n|[-+]?\.inf|\.nan|[-+]?(?=[0-9_.])[0-9_]*\.?[0-9_]*(e[-+]?[0-9]+)?"
    r"|[-+]?0[box][0-9a-f_]+|[-+]?[0-9][0-9_]*(:[0-9]+)+(\.[0-9_]*)?|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*",
    re.IGNORECASE | re.ASCII,
)
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def scalar(value: Any) -> str:
    """One scalar as YAML text: plain where every reader gets the same string back, otherwise quoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value) if value == value and abs(value) != float("inf") else f".{value}".replace(".-", "-.")
    text = str(value)
    if type(value) is not Plain and TYPED.fullmatch(text):
        return f'"{text}"'
    if PLAIN.fullmatch(text) and not text.endswith((" ", ":")) and not RESERVED.fullmatch(text):
        return text
    if all(letter.isprintable() and letter not in "\u2028\u2029\x85\ufeff" for letter in text):
        if "'" not in text:
            return f"'{text}'"
        if '"' not in text and "\\" not in text:
            return f'"{text}"'
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(ESCAPES.get(c) or (c if c.isprintable() and c != "\ufeff" else escape(c)) for c in text) + '"'


def escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def dump(tree: Tree, indent: int = 0) -> str:
    """Block style, two blanks a level, in the order given; ends with a newline."""
    lines: list[str] = []
    block(tree, " " * indent, lines)
    return "".join(f"{line}\n" for line in lines)


def printed(tree: Tree) -> str:
    """A tree for people and other programs, by PyYAML, which quotes what YAML 1.1 takes for something else; what is
    edited in place, or has ten thousand entries, is written by `dump`."""
    import yaml

    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1 << 20)
    return text


def block(tree: Tree, margin: str, lines: list[str]) -> None:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            nested(f"{margin}{_key(key)}:", value, margin, lines)
    elif isinstance(tree, list | tuple) and tree:
        for value in tree:
            if isinstance(value, Mapping | list | tuple) and value:
                inner: list[str] = []
                block(value, margin + "  ", inner)
                lines.append(f"{margin}- {inner[0][len(margin) + 2 :]}")
                lines.extend(inner[1:])
            else:
                lines.append(f"{margin}- {leaf(value)}")
    else:
        lines.append(margin + leaf(tree))


@functools.lru_cache(maxsize=1024, typed=True)
def _key(key: Any) -> str:
    """Of ten thousand entries nearly all keys are the same few."""
    return scalar(key)


def nested(head: str, value: Tree, margin: str, lines: list[str]) -> None:
    if isinstance(value, Mapping | list | tuple) and value:
        lines.append(head)
        block(value, margin + "  ", lines)
    else:
        lines.append(f"{head} {leaf(value)}")


def leaf(value: Tree) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    return scalar(value) if value != "" else '""'
