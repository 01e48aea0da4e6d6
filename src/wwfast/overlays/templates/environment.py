"""The Jinja2 environment of overlay templates: the sandbox, and the functions that read and name files.

`file`, `softlink`, `import_link` and `nobackup` act on the place where they stand in the output, also inside macros and
blocks; so they return marks, which `outputs` finds again. A mark holds a number nobody can guess, so
that no value of a node can pass for one.
"""

from __future__ import annotations

import posixpath
import re
import secrets
from collections.abc import Callable
from types import CodeType
from typing import Any

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.utils import missing

from wwfast._ext import attributes
from wwfast._ext.attributes import whole
from wwfast.overlays.files.model import FILE, LINK
from wwfast.overlays.files.stack import Output
from wwfast.overlays.templates import filters, lazy
from wwfast.overlays.templates.data import NAMED, digest
from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.ignition import ignition_json
from wwfast.overlays.templates.sandbox import MAP, TEXT, Sandbox
from wwfast.overlays.templates.sources import Sources

_NONCE = secrets.token_hex(8)
_HOLE = re.compile(rf"\x00{_NONCE}H(\d+)\x00")
_MARK = re.compile(rf"\x00{_NONCE}([FLB])([^\x00]*)\x00")


Hole = Callable[[], str]  # says what stands in an open place, for any node
# What else a hole may be made of: it is what it is.
FIXED: frozenset[type] = frozenset({str, int, float, bool, type(None), type(missing)})


class Abort(Exception):
    """abort() was called: the template writes nothing."""


class Do(Extension):
    """`{% do EXPRESSION %}`: of its value only marks are printed, so that `{% do file("x") %}` starts a file."""

    tags = {"do"}  # noqa: RUF012 - as Jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        only_marks = nodes.Filter(parser.parse_tuple(), "only_marks", [], [], None, None)
        return nodes.Output([only_marks]).set_lineno(line)


def only_marks(value: object) -> str:
    return "".join(match[0] for match in _MARK.finditer(value)) if isinstance(value, str) else ""


class Environment(Sandbox):
    """The sandbox with what overlays have beyond it: functions, marks, and how nothing, yes and no are printed."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.reader = reader = attributes.Reader(msgspec.Struct, digest, set())
        self._holes: list[Hole] = []
        super().__init__(
            functions(sources),
            WITH_CONTEXT,
            reader,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=attributes.finalize,
            extensions=[Do, "jinja2.ext.loopcontrols"],
        )
        self.filters["only_marks"] = only_marks
        vars(self)["truth"] = attributes.make_truth(reader)
        vars(self)["hole"] = attributes.make_hole(reader, FIXED, self._open)

    def prepared(self, tree: nodes.Template) -> nodes.Template:
        return lazy.prepare(tree, NAMED, TEXT | MAP)

    def record(self, closed: frozenset[CodeType]) -> list[Hole]:
        """From now on the run is noted; where holes stand in its text is marked by their numbers in this list."""
        self.reader.record([], closed)
        self._holes = []
        return self._holes

    def straight(self, macro: object) -> object:
        return attributes.Straight(macro) if isinstance(macro, Macro) else macro

    def capture(self, step: int) -> str:
        self.reader.solid += step
        return ""

    def _open(self, make: Hole) -> str:
        self._holes.append(make)
        return f"\0{_NONCE}H{len(self._holes) - 1}\0"


WITH_CONTEXT = frozenset({"ignition_json"})


def make(sources: Sources) -> Environment:
    """The environment with every function and filter of the template contract."""
    return Environment(sources)


def functions(sources: Sources) -> dict[str, Callable[..., Any]]:
    def one_newline_less(text: str | None) -> str:
        return "" if text is None else text[:-1] if text.endswith("\n") else text

    def include(path: str) -> str:
        return one_newline_less(sources.server_text(path))

    def include_from(image: str, path: str) -> str:
        return one_newline_less(sources.image_text(image, path)) if image else ""

    def include_block(path: str, marker: str) -> str:
        text = sources.server_text(path)
        if text is None:
            return marker
        before: list[str] = []
        for line in text.split("\n"):
            if marker in line:
                break
            before.append(line)
        return "\n".join([*before, marker])

    def readlink(path: str) -> str:
        return sources.points_to(path) or ""

    def import_link(path: str) -> str:
        target = sources.points_to(path)
        if target is None:
            raise Refused("import_link: {} does not exist on this server", path)
        return mark("L", target)

    def abort() -> str:
        raise Abort

    return {
        **filters.FUNCTIONS,
        "include": include,
        "include_from": include_from,
        "include_block": include_block,
        "readlink": readlink,
        "import_link": import_link,
        "softlink": lambda target: mark("L", str(target)),
        "file": lambda name: mark("F", str(name)),
        "nobackup": lambda: mark("B", ""),
        "abort": abort,
        "ignition_json": jinja2.pass_context(
            lambda context: ignition_json(whole(context["disks"]), whole(context["filesystems"]))
        ),
    }


def opened(text: str) -> list[str | int] | None:
    """A text cut at its holes, which are told by their numbers; None when there is none."""
    if "\0" not in text:
        return None
    pieces: list[str | int] = list(_HOLE.split(text))
    pieces[1::2] = map(int, pieces[1::2])
    return pieces if len(pieces) > 1 else None


def mark(kind: str, text: str) -> str:
    if "\0" in text:
        raise Refused("a file name or link target holds a NUL byte")
    return f"\0{_NONCE}{kind}{text}\0"


class Slots:
    """The outputs of one run, cut where the template said so; the first has no name and goes to `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._slots: list[tuple[str, bool, list[str], str | None]] = [(path, False, [], None)]
        self.backup = True
        self.write = self._slots[0][2].append

    def file(self, name: str) -> None:
        """What is written from here on goes to another output. Raises Refused for names that leave the root."""
        self._slots.append((*place(name, self._path), [], None))
        self.write = self._slots[-1][2].append

    def link(self, target: str) -> None:
        self._slots[-1] = (*self._slots[-1][:3], target)

    def finished(self) -> tuple[Output, ...]:
        """The unnamed output counts only when there is no other, or when it became a link. A link and its text: the
        link wins."""
        slots = self._slots
        if len(slots) > 1 and slots[0][3] is None:
            slots = slots[1:]
        return tuple(
            Output(
                where,
                FILE if target is None else LINK,
                encode("".join(parts) if target is None else target),
                self.backup,
                up,
            )
            for where, up, parts, target in slots
        )


def outputs(text: str, path: str) -> tuple[Output, ...]:
    """Cut a rendered text at its marks; `path` is where the unnamed output goes. Raises Refused."""
    if "\0" not in text:
        return (Output(path, FILE, encode(text), True),)
    pieces = _MARK.split(text)
    slots = Slots(path)
    slots.write(pieces[0])
    for at in range(1, len(pieces), 3):
        kind, argument, following = pieces[at : at + 3]
        if kind == "F":
            slots.file(argument)
        elif kind == "L":
            slots.link(argument)
        else:
            slots.backup = False
        slots.write(following)
    return slots.finished()


def place(name: str, path: str) -> tuple[str, bool]:
    """Path of an output called `name` by the template of `path`, and whether its parents are to be made."""
    directory = path[: path.rfind("/") + 1]
    if "/" not in name and name not in ("", ".", ".."):
        return directory + name, False
    absolute = name.startswith("/")
    depth = 0
    for piece in (name if absolute else directory + name).split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(piece, 1)
        if depth < 0:
            break
    clean = posixpath.normpath("/" + (name if absolute else directory + name)).lstrip("/")
    if depth < 0 or not clean or name.endswith(("/", "/.", "/..")) or name in ("", ".", ".."):
        raise Refused("file('{}') does not name a file below the root of the node", name)
    return clean, absolute


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
