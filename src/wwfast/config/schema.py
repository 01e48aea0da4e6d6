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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgspec

from wwfast._ext import accept
from wwfast.config import checks
from wwfast.config.yaml import Plain, Quoted, Tree, typed


@dataclass(frozen=True, slots=True)
class Doc:
    """What a field is called and means. `flag`, `short`, `hidden`: on the command line; `title`: in `list -a`."""

    help: str
    flag: str = ""
    short: str = ""
    hidden: tuple[str, ...] = ()
    title: str = ""
    check: checks.Check | None = None  # of the value, of each item of a list, of each value of tags
    names: checks.Check = checks.key  # of each key of a map
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
    check: checks.Check = checks.line  # of each single text in it
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
    return ".".join(word if (word := str(step)).isprintable() else checks.shown(word) for step in path)


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
            check = doc.check or (checks.note if kind is Kind.TAGS else checks.line)
            found[key] = Field(key, attr, kind, doc, inner, check, kind is Kind.TEXT)
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


# Checks of which `_ext.accept` knows the everyday form; the others it calls.
NATIVE: dict[checks.Check, int] = {
    **dict.fromkeys((checks.line, checks.note, checks.argument, checks.key), accept.TEXT),
    **dict.fromkeys((checks.name, checks.reference, checks.image, checks.label), accept.NAME),
    **dict.fromkeys((checks.ip, checks.ip4), accept.ADDRESS),
    **dict.fromkeys((checks.host, checks.host4), accept.HOST),
    checks.hwaddr: accept.HWADDR,
}


@functools.cache
def plan(struct: type[msgspec.Struct]) -> dict[str, tuple[int, Any]]:
    """The schema as `_ext.accept` reads it."""

    def texts(check: checks.Check) -> tuple[int, checks.Check]:
        return NATIVE.get(check, accept.CHECKED), check

    made: dict[str, tuple[int, Any]] = {}
    for key, spec in fields(struct).items():
        if spec.is_text:
            made[key] = texts(spec.check)
        elif spec.kind is Kind.LIST:
            made[key] = (accept.LIST, texts(spec.check))
        elif spec.kind is Kind.TAGS:
            made[key] = (accept.TAGS, (texts(spec.doc.names), texts(spec.check)))
        elif spec.kind is Kind.STRUCTS and spec.struct is not None:
            made[key] = (accept.STRUCTS, (texts(spec.doc.names), plan(spec.struct)))
        elif spec.kind is Kind.STRUCT and spec.struct is not None:
            made[key] = (accept.STRUCT, plan(spec.struct))
        else:
            made[key] = (accept.OTHER, None)
    return made


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
                if value and (wrong := spec.check(value)):
                    self.say((*path, key), wrong, checks.fatal(spec.check, value))
                continue
            if spec is None:
                self.say((*path, key), unknown(key, schema), fatal=False)
            elif value is not None:
                clean = self.value(value, spec, path)
                if clean is value:
                    continue
                if changed is None and value.__class__ is Quoted and clean == value:
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
            if value and (wrong := spec.check(value)):
                self.say((*path, spec.key), wrong, checks.fatal(spec.check, value))
            return str(value) if value.__class__ is Quoted else value
        return METHODS[kind](self, value, spec, (*path, spec.key))

    def boolean(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> bool | None:
        found = checks.truth(value) if isinstance(value, str) else None
        if found is None:
            self.say(path, f"must be true or false, not {shape(value)}")
        return found

    def integer(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> int | None:
        if not isinstance(value, str) or not checks.WHOLE.fullmatch(value):
            self.say(path, f"must be a whole number, not {shape(value)}")
            return None
        if wrong := (spec.doc.check or checks.count)(value):
            self.say(path, wrong)
        return int(value)

    def texts(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> list[str] | None:
        if value.__class__ is not list:
            self.say(path, f"must be a list, not {shape(value)}")
            return None
        for index, item in enumerate(value):
            if not isinstance(item, str):
                self.say((*path, index), f"must be a single value, not {shape(item)}")
                return None
            if wrong := spec.check(item):
                self.say((*path, index), wrong, checks.fatal(spec.check, item))
            if item.__class__ is Quoted:
                value[index] = str(item)
        return value

    def tags(self, value: Tree, spec: Field, path: tuple[str | int, ...]) -> dict[str, str] | None:
        if value.__class__ is not dict:
            self.say(path, f"must be a map, not {shape(value)}")
            return None
        for key, item in value.items():
            self.name(key, spec, path)
            if isinstance(item, str) and (wrong := spec.check(item)):
                self.say((*path, key), wrong, checks.fatal(spec.check, item))
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
            self.name(name, spec, path)
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
        for name in value:
            self.name(name, spec, path)
        return {name: typed(item) for name, item in value.items()}

    def name(self, name: str, spec: Field, path: tuple[str | int, ...]) -> None:
        if wrong := spec.doc.names(name):
            self.say((*path, name), wrong, fatal=False)


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


def written(tree: Tree, schema: Fields | None, depth: int = 0) -> Tree:
    """The tree as yaml.dump() is to write it: Plain is what is no text. Fields say so, `depth` levels down; what has no
    field (free-form data, unknown keys) is typed by YAML 1.2."""
    if isinstance(tree, list):
        return [written(item, schema, depth) for item in tree]
    if isinstance(tree, dict):
        if depth > 0:
            return {key: written(value, schema, depth - 1) for key, value in tree.items()}
        return {key: _written(value, schema.get(key) if schema is not None else None) for key, value in tree.items()}
    if not isinstance(tree, str):
        return tree
    return Plain(tree) if type(tree) is str and not isinstance(typed(tree), str) else str(tree)


def meaning(tree: Tree, schema: Fields) -> Tree:
    """The tree of a struct as it is to be compared: 1 and "1" are two things in free-form data, and there alone."""
    free = (
        [key for key in tree if (spec := schema.get(key)) and spec.kind is Kind.FREE] if isinstance(tree, dict) else ()
    )
    return {**tree, **{key: written(tree[key], None) for key in free}} if free else tree


def _written(value: Tree, spec: Field | None) -> Tree:
    if spec is None or spec.kind is Kind.FREE:
        return written(value, None)
    if spec.struct is not None:
        return written(value, fields(spec.struct), 1 if spec.kind is Kind.STRUCTS else 0)
    if spec.kind in (Kind.BOOL, Kind.INT):
        return Plain(value) if type(value) is str else value
    return value


def shape(value: Tree) -> str:
    if isinstance(value, dict):
        return "a map"
    return "a list" if isinstance(value, list) else "empty" if value is None else checks.shown(value)


def unknown(key: str, schema: Collection[str]) -> str:
    """`unknown key 'ipadr', did you mean 'ipaddr'?`"""
    close = [it for word in (key, key.lower()) for it in difflib.get_close_matches(word, schema, n=1, cutoff=0.7)]
    return f"unknown key {checks.shown(key)}" + (f", did you mean '{close[0]}'?" if close else " (kept, but not used)")
