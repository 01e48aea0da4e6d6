"""Every field of nodes.conf and warewulf.conf, every way in, and values that are none: one verdict everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from wwfast.cli.main import main
from wwfast.config import checks, settings, words, yaml
from wwfast.config.schema import Field, Kind, fields
from wwfast.config.settings import Settings
from wwfast.errors import ConfigError
from wwfast.nodes.edit.flags import families, flags
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import NODES, NOUN, PROFILES, Source
from wwfast.paths import Paths

NAME = {"net": "eth0", "disk": "/dev/sda", "part": "root", "fs": "/dev/sdb"}
SELECT = {family: [f"--{family}name={name}"] for family, name in NAME.items()}
SELECT["part"] = SELECT["disk"] + SELECT["part"]

NO_TEXT = ["a\x1b[31mb", "a\0b", "a\u2028b", "a\rb"]  # drives a terminal, ends a line
NO_NUMBER = ["-1", "9" * 20, "9" * 5000, "1e3", "NaN", "inf", "0x10", "\uff11\uff12", "1 2", "+5", "007", "1_0"]
OTHERS = ["a\nb", "${x}", "../x", "x" * 70000, "b c", "é", "~", "true", "maybe", "nil", "10.0.0.1", "fd00::1"]
OTHERS += ["255.255.0.0", "52:54:00:00:00:01", "0", "9000", "65536", "x" * 300, "a/b", "."]
OTHERS += ["00:00:00:00:00:00", "ff-ff-ff-ff-ff-ff", "01:00:5e:00:00:01", "33:33:00:00:00:01", "AB:00:00:00:00:01"]
VALUES = [*NO_TEXT, *OTHERS, *NO_NUMBER]


class Place(NamedTuple):
    """One thing that an entry can say: how it stands in the file, and the options that say it (None: none do)."""

    name: str
    tree: Callable[[str], dict[str, Any]]
    options: Callable[[str], list[str]] | None
    node_only: bool
    field: Field | None = None  # None: the name in a map
    flag: str = ""


def nest(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[no-any-return]


FLAGS = {tuple(NAME[step.family] if step.family else step.key for step in flag.path): flag for flag in flags()}


def walk(struct: type[msgspec.Struct], path: tuple[str, ...], family: str, node_only: bool) -> Iterator[Place]:
    """Every field and every map of names below a struct."""
    for key, spec in fields(struct).items():
        here, only = (*path, key), node_only or spec.doc.node_only
        if spec.kind is Kind.STRUCT and spec.struct is not None:
            yield from walk(spec.struct, here, family, only)
        elif spec.kind is Kind.STRUCTS and spec.struct is not None:
            yield from walk(spec.struct, (*here, NAME[spec.doc.flag]), spec.doc.flag, only)
            yield named(spec, here, family)
        else:
            yield from single(spec, here, SELECT.get(family, []), only)


def single(spec: Field, here: tuple[str, ...], select: list[str], only: bool) -> Iterator[Place]:
    """A field that is no struct; a map of tags or of anything is one of names as well."""
    name, flag = ".".join(here), FLAGS[here].name if here in FLAGS else ""
    if spec.kind is Kind.FREE:
        yield Place(f"{name} (name)", lambda v: nest((*here, v), 1), None, only)
    elif spec.kind is Kind.TAGS:
        yield Place(name, lambda v: nest((*here, "k"), v), lambda v: [*select, f"--{flag}add=k={v}"], only, spec, flag)
        yield Place(f"{name} (name)", lambda v: nest((*here, v), "x"), lambda v: [*select, f"--{flag}add={v}=x"], only)
    else:
        many = spec.kind is Kind.LIST

        def options(value: str) -> list[str]:
            return [*select, f"--{flag}={words.join([value]) if many else value}"]

        yield Place(name, lambda v: nest(here, [v] if many else v), options if flag else None, only, spec, flag)


FIRST = {
    "net": ("type", "type", "x"),
    "disk": ("wipe_table", "diskwipe", "true"),
    "part": ("type_guid", "parttype", "x"),
    "fs": ("format", "fsformat", "x"),
}  # family: a field that needs no other, its flag, a value


def named(spec: Field, here: tuple[str, ...], outer: str) -> Place:
    """A name in a map of structs; one of a file system begins with /dev."""
    family = spec.doc.flag
    key, flag, value = FIRST[family]
    start, select = "/dev/" if family == "fs" else "", SELECT.get(outer, [])
    return Place(
        f"{'.'.join(here)} (name)",
        lambda name: nest((*here, start + name, key), value),
        lambda name: [*select, f"--{family}name={start}{name}", f"--{flag}={value}"],
        False,
    )


PLACES = {place.name: place for place in walk(Node, (), "", False)}


def test_every_family_and_flag_is_walked() -> None:
    assert set(NAME) == set(families())
    assert {flag.name for flag in flags()} == {place.flag for place in PLACES.values() if place.flag}


class Site:
    """An installation where every way in can be tried."""

    def __init__(self, paths: Paths, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.paths, self.capsys, self.text = paths, capsys, folder / "new.yaml"
        self.before = "nodeprofiles:\n  x: {}\nnodes:\n  x: {}\n"
        paths.nodes_conf.write_text(self.before)

    def refuses(self, *argv: str) -> str:
        """What a command has against a value, "" when nothing; that a reference is to nothing does not count."""
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(self.paths.root), *argv[:2], "--dry-run", *argv[2:]])
        err = self.capsys.readouterr().err
        assert "Traceback" not in err
        assert not set(err) & {"\x1b", "\0", "\x85", "\u2028", "\r"}, "a message must not carry what it refuses"
        assert len(err) < 4000
        said = [line for line in err.splitlines() if not line.startswith("hint:")]
        said = [
            line
            for line in said
            if not re.search(r"no (image|profile|overlay|kernel) |^note: |^what you wrote|is not built", line)
        ]
        return "\n".join(said) if caught.value.code else ""

    def verdicts(self, section: str, place: Place, value: str, *, edit: bool) -> dict[str, str]:
        noun = NOUN[section]
        self.text.write_text(yaml.dump({"x": place.tree(value)}))
        found = {"import": self.refuses(noun, "import", str(self.text))}
        if edit:
            found["edit"] = self.refuses(noun, "edit", "x")
        if place.options is not None:
            said = place.options(value)
            found["set"] = self.refuses(noun, "set", "x", *said)
            found["add"] = self.refuses(noun, "add", "new", *said)
        return found


@pytest.mark.parametrize("name", PLACES)
def test_a_value_has_one_verdict_on_every_way_in(
    paths: Paths, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place, site = PLACES[name], Site(paths, capsys, tmp_path)
    monkeypatch.setenv("EDITOR", f"cp {site.text}")
    values = VALUES if place.field is not None else [value for value in VALUES if len(value) < 1000]  # as YAML's keys
    for section in (NODES,) if place.node_only else (NODES, PROFILES):
        values = values if section == NODES else values[::5]  # the same code: a sample
        file = {section: {f"e{index}": place.tree(value) for index, value in enumerate(values)}}
        snapshot = Snapshot(Source.parse(yaml.dump(file).encode(), "file"))
        wrong = {problem.id: problem.message for problem in snapshot.problems if " no profile " not in str(problem)}
        for index, value in enumerate(values):
            expected = wrong.get(f"e{index}", "")
            found = site.verdicts(section, place, value, edit=index % 8 == 0)
            assert {way: bool(said) for way, said in found.items()} == dict.fromkeys(found, bool(expected)), (
                section, value, expected, found)  # fmt: skip
            multiline = place.field is not None and place.field.check is checks.note
            if value in NO_TEXT or (value == "a\nb" and not multiline):
                assert expected, (name, value)
    assert paths.nodes_conf.read_text() == site.before


NUMBERS = ["network devices.eth0.mtu", "network devices.eth0.prefixlen6", "ipmi.port"]
NUMBERS += [f"disks./dev/sda.partitions.root.{key}" for key in ("number", "size_mib", "start_mib")]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_decimal_and_has_bounds(name: str) -> None:
    field = PLACES[name].field
    assert field is not None
    assert [value for value in NO_NUMBER if not field.check(value)] == []


IDS = ["a b", "é", "../x", "a/b", ".x", "-x", "x.", "a..b", "7", "10.0.0.1", "0x1f", "localhost", "x.localhost",
       f"{'x' * 64}", "x" * 254, "a\x1bb", "a\nb", "~", "a:b"]  # fmt: skip
FINE = ["n1", "N_1", "a.b-c", "1st", "true", "null", "1e3", "x" * 63, "n1.cluster.example"]


@pytest.mark.parametrize("name", [*IDS, *FINE])
def test_an_id_has_one_verdict_on_every_way_in(
    paths: Paths, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    site = Site(paths, capsys, tmp_path)
    monkeypatch.setenv("EDITOR", f"cp {site.text}")
    for section, check in ((NODES, checks.hostname), (PROFILES, checks.name)):
        site.text.write_text(yaml.dump({"x": {}, name: {}}))
        read = Snapshot(Source.parse(yaml.dump({section: {name: {}}}).encode(), "file")).problems
        found = {
            "add": site.refuses(NOUN[section], "add", "--", name),
            "import": site.refuses(NOUN[section], "import", str(site.text)),
            "edit": site.refuses(NOUN[section], "edit", "x"),
            "file": "\n".join(map(str, read)),
        }
        assert {way: bool(said) for way, said in found.items()} == dict.fromkeys(found, bool(check(name))), found
        assert bool(check(name)) == (
            name in IDS if section == NODES else not re.fullmatch(r"[\w][\w.-]{0,252}", name, re.A)
        )


def settings_below(struct: type[msgspec.Struct], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Field]]:
    for key, spec in fields(struct).items():
        here = (*path, key)
        if spec.struct is None:
            yield here, spec
        else:
            yield from settings_below(spec.struct, (*here, "[]") if spec.kind is Kind.ITEMS else here)


EVERY = dict(settings_below(Settings, ()))


@pytest.mark.parametrize("path", EVERY, ids=".".join)
def test_a_setting_of_warewulf_conf_is_right_or_refused_with_its_line(paths: Paths, path: tuple[str, ...]) -> None:
    spec = EVERY[path]
    bad = [*NO_TEXT, *([] if spec.check is checks.note else ["a\nb", "x" * 70000])]
    bad += NO_NUMBER if spec.kind is Kind.INT else ["maybe", "2", "nil"] if spec.kind is Kind.BOOL else []
    for value in bad:
        made: Any = [value] if spec.kind is Kind.LIST else {"00:07": value} if spec.kind is Kind.TAGS else value
        for key in reversed(path):
            made = [made] if key == "[]" else {key: made}
        with pytest.raises(ConfigError) as caught:
            settings.parse(yaml.dump(made).encode(), paths)
        line = caught.value.message
        assert re.match(rf"{re.escape(str(paths.conf))}:[0-9]+: {re.escape(path[0])}", line)
        assert line.replace("\n", "").isprintable()
        assert len(line) < 1000


SOURCES = [
    path for path in Path(settings.__file__).parents[1].rglob("*") if path.suffix in (".py", ".j2", ".ww", ".sh")
]
TEXT = "\n".join(path.read_text() for path in SOURCES if path.parent.name != "config")
# Read by another name: by settings.locate, by `getattr`, or only by people.
ELSEWHERE = {
    "comment",
    "paths.sysconfdir",
    "paths.cachedir",
    "paths.ipxesource",
    "paths.wwoverlaydir",
    "paths.wwchrootdir",
    "paths.wwfilesdir",
    "warewulf.secure_files",
}


@pytest.mark.parametrize("path", EVERY, ids=".".join)
def test_a_setting_that_nobody_reads_says_so(paths: Paths, path: tuple[str, ...]) -> None:
    from wwfast.cli.manual import pages

    spec = EVERY[path]
    dotted = ".".join(word.replace(" ", "_") for word in path if word != "[]")
    last = dotted.rpartition(".")[2]
    read = re.search(rf"(?:\b|_){re.escape(dotted)}\b|\b(?:own|mount|bind|cache|each|it|export)\.{last}\b", TEXT)
    assert read or spec.doc.lacks or dotted in ELSEWHERE
    if spec.doc.lacks:
        manual = dict(pages())["warewulf.conf.5"].replace("\\-", "-").replace("\\e", "\\")
        assert f"But: {spec.doc.lacks}." in manual
        odd = {"range6_start": "fd00::1", "range6_end": "fd00::2", "fqdn": "head.x", "host_overlay": "false"}
        changed: Any = odd.get(last, "true" if spec.kind is Kind.BOOL else "/nowhere")
        changed = ["10.9.0.0/16"] if spec.kind is Kind.LIST else changed
        for key in reversed(path):
            changed = [changed] if key == "[]" else {key: changed}
        told = settings.lacking(settings.parse(yaml.dump(changed).encode(), paths))
        assert (": ".join(word for word in path if word != "[]"), spec.doc.lacks) in list(told)
