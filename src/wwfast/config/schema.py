"""Declared once, derived everywhere: a msgspec.Struct whose fields carry a `Doc` is a schema.

From it come the loader's typing, validation with did-you-mean, command-line flags, list columns, help and manual
pages. The YAML key of a field is what the struct's `rename` makes of its name. Fields without a Doc are computed,
never read.
"""

from __future__ import annotations

import difflib
import functools
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgspec

from wwfast._ext import accept
from wwfast.config import checks
from wwfast.config.yaml import Quoted, Tree, typed


@dataclass(frozen=True, slots=True)
class Doc:
    """What a field is called and means. `flag`, `short`, `hidden`: on the command line; `title`: in `list -a`."""

    help: str
    flag: str = ""
    short: str = ""
    hidden: tuple[str, ...] = ()
    title: str = ""
    check: checks.Check | None = None
    node_only: bool = False
    inherit: bool = True
    complete: str = ""  # what completes its values: image, profile, overlay, kernel
    split: Callable[[str], list[str]] | None = None  # how the text of an option becomes a list; None: at commas
    lacks: str = ""  # what whoever sets it does not get yet; accepted all the same, for the file is Warewulf's


class Kind(IntEnum):
    """How a value is written and merged."""

    TEXT = 0  # a scalar kept as text
    BOOL = 1  # true, false or unset
    INT = 2
    LIST = 3  # of text
    TAGS = 4  # text by text
    STRUCT = 5
    STRUCTS = 6  # struct by name
    ITEMS = 7  # list of struct
    FREE = 8  # any YAML by name


@dataclass(frozen=True, slots=True)
class Field:
    key: str
    attr: str
    kind: Kind
    doc: Doc
    struct: type[msgspec.Struct] | None = None
    check: checks.Check | None = None  # of a TEXT field
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Issue:
    """What is wrong at `path`; a fatal one makes the whole entry unusable."""

    path: tuple[str | int, ...]
    message: str
    fatal: bool = True

    def __str__(self) -> str:
        path = self.path[:-1] if self.message.startswith("unknown key") else self.path
        return f"{dotted(path)}: {self.message}" if path else self.message


def dotted(path: tuple[str | int, ...]) -> str:
    """`network devices.default.ipaddr`, the way issues name a place."""
    return ".".join(str(step) for step in path)


Fields = Mapping[str, Field]


@functools.cache
def fields(struct: type[msgspec.Struct]) -> dict[str, Field]:
    """The declared fields of a struct by YAML key, in file order."""
    found: dict[str, Field] = {}
    hints = typing.get_type_hints(struct, include_extras=True)
    for attr, key in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True):
        doc = next((extra for extra in getattr(hints[attr], "__metadata__", ()) if isinstance(extra, Doc)), None)
        if doc is not None:
            kind, inner = kind_of(typing.get_args(hints[attr])[0])
            found[key] = Field(key, attr, kind, doc, inner, doc.check, kind is Kind.TEXT)
    return found


def kind_of(hint: Any) -> tuple[Kind, type[msgspec.Struct] | None]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return kind_of(next(arg for arg in args if arg is not type(None)))
    if isinstance(hint, type) and origin is None:
        if issubclass(hint, msgspec.Struct):
            return Kind.STRUCT, hint
        return {str: (Kind.TEXT, None), bool: (Kind.BOOL, None), int: (Kind.INT, None)}[hint]
    last = args[-1]
    is_struct = isinstance(last, type) and issubclass(last, msgspec.Struct)
    if origin is list:
        return (Kind.ITEMS, last) if is_struct else (Kind.LIST, None)
    return (Kind.STRUCTS, last) if is_struct else (Kind.TAGS, None) if last is str else (Kind.FREE, None)


CODES = {
    Kind.TAGS: accept.TAGS,
    Kind.STRUCT: accept.STRUCT,
    Kind.STRUCTS: accept.STRUCTS,
}


@functools.cache
def plan(struct: type[msgspec.Struct]) -> dict[str, tuple[int, Any]]:
    """The schema as `_ext.accept` reads it."""
    made: dict[str, tuple[int, Any]] = {}
    for key, spec in fields(struct).items():
        if spec.is_text:
            native: dict[checks.Check, int] = dict.fromkeys((checks.ip, checks.ip4), accept.ADDRESS)
            native |= {checks.host: accept.HOST, checks.host4: accept.HOST, checks.hwaddr: accept.HWADDR}
            code = native.get(spec.check, accept.CHECKED) if spec.check else accept.TEXT
            made[key] = (code, spec.check)
        elif spec.kind is Kind.LIST:
            made[key] = (accept.LIST, spec.doc.check)
        else:
            made[key] = (CODES.get(spec.kind, accept.OTHER), plan(spec.struct) if spec.struct else None)
    return made


BOOLS = dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"), True)
BOOLS |= dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"), False)


@dataclass(slots=True)
class Cleaner:
    """Checks trees against a schema and types them; collects the issues.

    `struct(tree, fields)` returns the tree with nulls and unknown keys left out, booleans, numbers and free-form
    data typed. Where nothing had to change it is the same object, so that a well-written entry costs no copy; quoted
    text becomes plain text in place.
    """

    issues: list[Issue] = field(default_factory=list)

    def say(self, path: tuple[str | int, ...], message: str, fatal: bool = True) -> None:
        self.issues.append(Issue(path, message, fatal))

    def struct(self, tree: Tree, schema: Fields, path: tuple[str | int, ...]) -> dict[str, Any]:
        if tree.__class__ is not dict:
            if tree is not None:
                self.say(path, f"must be a map of keys, not {shape(tree)}")
            return {}
        changed: dict[str, Any] | None = None
        for key, value in tree.items():
            spec = schema.get(key)
            if value.__class__ is str and spec is not None and spec.is_text:  # nearly all there is
                if spec.check is not None and value and (wrong := spec.check(value)):
                    self.say((*path, key), wrong, checks.fatal(spec.check, value))
                continue
            if spec is None:
                self.say((*path, key), unknown(key, schema), fatal=False)
            elif value is not None:
                clean = self.value(value, spec, path)
                if clean is value:
                    continue
                if value.__class__ is Quoted and clean == value:
                    tree[key] = clean
                    continue
                if clean is not None:
                    changed = changed if changed is not None else dict(tree)
                    changed[key] = clean
                    continue
            changed = changed if changed is not None else dict(tree)
            del changed[key]
        return tree if changed is None else changed

    def value(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> Any:
        """The typed value, or None when it is wrong or says nothing."""
        kind = spec.kind
        if kind is Kind.TEXT:
            if not isinstance(value, str):
                self.say((*path, spec.key), f"must be a single value, not {shape(value)}")
                return None
            check = spec.doc.check
            if check is not None and value and (wrong := check(value)):
                self.say((*path, spec.key), wrong, checks.fatal(check, value))
            return str(value) if value.__class__ is Quoted else value
        return METHODS[kind](self, value, spec, (*path, spec.key))

    def boolean(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> bool | None:
        found = BOOLS.get(value) if isinstance(value, str) else None
        if found is None:
            self.say(path, f"must be true or false, not {shape(value)}")
        return found

    def integer(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> int | None:
        try:
            number = int(value)
        except (TypeError, ValueError):
            self.say(path, f"must be a whole number, not {shape(value)}")
            return None
        wrong = spec.doc.check(str(number)) if spec.doc.check else ""
        if wrong:
            self.say(path, wrong)
        return number

    def texts(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> list[str] | None:
        if value.__class__ is not list:
            self.say(path, f"must be a list, not {shape(value)}")
            return None
        for index, item in enumerate(value):
            if not isinstance(item, str):
                self.say((*path, index), f"must be a single value, not {shape(item)}")
                return None
            wrong = spec.doc.check(item) if spec.doc.check else ""
            if wrong and spec.doc.check:
                self.say((*path, index), wrong, checks.fatal(spec.doc.check, item))
            if item.__class__ is Quoted:
                value[index] = str(item)
        return value

    def tags(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> dict[str, str] | None:
        if value.__class__ is not dict:
            self.say(path, f"must be a map, not {shape(value)}")
            return None
        for key, item in value.items():
            if not isinstance(item, str):
                if item is not None:
                    self.say((*path, key), f"must be a single value, not {shape(item)}")
                return {name: str(each) if isinstance(each, str) else "" for name, each in value.items()}
            if item.__class__ is Quoted:
                value[key] = str(item)
        return value

    def nested(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> dict[str, Any] | None:
        assert spec.struct is not None
        if value.__class__ is not dict:
            self.say(path, f"must be a map of keys, not {shape(value)}")
            return None
        return self.struct(value, fields(spec.struct), path)

    def structs(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> dict[str, Any] | None:
        assert spec.struct is not None
        if value.__class__ is not dict:
            self.say(path, f"must be a map of names, not {shape(value)}")
            return None
        inner = fields(spec.struct)
        changed: dict[str, Any] | None = None
        for name, item in value.items():
            clean = self.struct(item, inner, (*path, name))
            if clean is not item:
                changed = changed if changed is not None else dict(value)
                changed[name] = clean
        return value if changed is None else changed

    def items(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> list[Any] | None:
        assert spec.struct is not None
        if value.__class__ is not list:
            self.say(path, f"must be a list, not {shape(value)}")
            return None
        inner = fields(spec.struct)
        return [self.struct(item, inner, (*path, index)) for index, item in enumerate(value)]

    def free(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> dict[str, Any] | None:
        if value.__class__ is not dict:
            self.say(path, f"must be a map of names, not {shape(value)}")
            return None
        return {name: typed(item) for name, item in value.items()}


METHODS: dict[Kind, Any] = {
    Kind.BOOL: Cleaner.boolean,
    Kind.INT: Cleaner.integer,
    Kind.LIST: Cleaner.texts,
    Kind.TAGS: Cleaner.tags,
    Kind.STRUCT: Cleaner.nested,
    Kind.STRUCTS: Cleaner.structs,
    Kind.ITEMS: Cleaner.items,
    Kind.FREE: Cleaner.free,
}


def shape(value: Tree) -> str:
    if isinstance(value, dict):
        return "a map"
    return "a list" if isinstance(value, list) else "empty" if value is None else f"'{value}'"


def unknown(key: str, schema: Fields) -> str:
    """`unknown key 'ipadr', did you mean 'ipaddr'?`"""
    close = difflib.get_close_matches(key, schema, n=1, cutoff=0.7)
    return f"unknown key '{key}'" + (f", did you mean '{close[0]}'?" if close else " (kept, but not used)")
