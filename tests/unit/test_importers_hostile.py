"""wwfast import: files that are none, or were made to hurt: each is refused in words, with its line if it has one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.importers import DATA, SAMPLES
from wwfast.api.sources import FORMATS, read
from wwfast.errors import ConfigError, WwfastError
from wwfast.nodes.foreign import files

# Contents that no format takes, and what is said of each.
NONE = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\t\n", "is empty"),
    "Latin-1": (b"# caf\n# r\xe9seau\n", ":2:4: byte 0xe9 is not UTF-8"),
    "UTF-16": ("name,mac\n".encode("utf-16"), ":1: is UTF-16"),
    "UTF-32": ("name,mac\n".encode("utf-32"), ":1: is UTF-32"),
    "UTF-16 without its mark": ("name,mac\n".encode("utf-16-le"), "a zero byte"),
    "a binary": (b"\x7fELF\x02\x01\x01\0\0\0", "a zero byte"),
    "prose": (b"Dear admin,\nthese are my nodes.\n", ""),
    "brackets": (b"[" * 100_000, ""),
    "braces": (b'{"a":' * 100_000, ""),
    "maps in YAML": (b"".join(b" " * depth + b"a:\n" for depth in range(3000)), ""),
    "one long line": (b"x" * 5_000_000, ""),
    "quotes": (b'"' * 999_999, ""),
    "a list of nothing": (b"[]", ""),
    "nothing in JSON": (b"null", ""),
    "control letters": (b"\x1b[2J\x07\n", ""),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("what", NONE)
def test_importer_refuses_what_is_no_file_of_its_format(tmp_path: Path, name: str, what: str) -> None:
    data, said = NONE[what]
    place = tmp_path / "given"
    place.write_bytes(data)
    with pytest.raises(WwfastError) as caught:
        read(name, str(place))
    assert "given" in caught.value.message
    assert said in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_importer_of_a_file_that_ends_early_never_fails_without_words(tmp_path: Path, name: str, cut: float) -> None:
    whole = Path(SAMPLES[name][1])
    whole = next(path for path in sorted(whole.rglob("*")) if path.is_file()) if whole.is_dir() else whole
    data = whole.read_bytes()
    place = tmp_path / whole.name
    place.write_bytes(data[: int(len(data) * cut)])
    said = ""
    try:
        found = len(read(name, str(place)).hosts)
    except WwfastError as error:
        found, said = 0, error.message
    assert found or said.startswith(str(place))


@pytest.mark.parametrize("name", FORMATS)
def test_importer_tells_what_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(WwfastError, match="there is no file"):
        read(name, str(tmp_path / "nothing"))
    with pytest.raises(WwfastError, match=r"where one file is needed|there is no file"):
        read(name, str(tmp_path))


@pytest.mark.parametrize("name", FORMATS)
def test_importer_reads_no_more_than_it_can_hold(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 1 << 20)
    with pytest.raises(ConfigError, match="too large: an import takes 1 MiB"):
        read(name, "/dev/zero")
    if FORMATS[name].files:
        for index in range(3):
            (tmp_path / f"{index}.json").write_text(json.dumps({"name": "n", "interfaces": {}, "x": "y" * 400_000}))
        with pytest.raises(ConfigError, match="too large"):
            read(name, str(tmp_path))


INCLUDES: dict[str, Callable[[str], str]] = {
    "dhcpd": lambda name: f'option domain-name "x";\ninclude "{name}";\n',
    "dnsmasq": lambda name: f"domain=x\nconf-file={name}\n",
}


@pytest.mark.parametrize("name", INCLUDES)
def test_importer_includes_that_loop_are_told_by_their_line(tmp_path: Path, name: str) -> None:
    text = INCLUDES[name]
    (tmp_path / "a").write_text(text("b"))
    (tmp_path / "b").write_text(text("sub/../a"))
    (tmp_path / "sub").mkdir()
    with pytest.raises(ConfigError, match=r"b:2: sub/\.\./a includes itself"):
        read(name, str(tmp_path / "a"))
    (tmp_path / "a").write_text(text("a"))
    with pytest.raises(ConfigError, match=r"a:2: a includes itself"):
        read(name, str(tmp_path / "a"))
    (tmp_path / "a").write_text(text("nowhere"))
    with pytest.raises(ConfigError, match=r"a:2: there is no file .*nowhere"):
        read(name, str(tmp_path / "a"))
    for index in range(40):
        (tmp_path / f"c{index}").write_text(text(f"c{index + 1}"))
    with pytest.raises(ConfigError, match="more than 16 files include each other"):
        read(name, str(tmp_path / "c0"))


@pytest.mark.parametrize("name", INCLUDES)
@pytest.mark.parametrize("odd", ["\x1b[2J", "x" * 5000, "\u2028", "loop/x"])
def test_importer_includes_of_odd_names_are_told_by_their_line(tmp_path: Path, name: str, odd: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a").write_text(INCLUDES[name](odd))
    with pytest.raises(ConfigError, match=r"a:2:") as caught:
        read(name, str(tmp_path / "a"))
    assert caught.value.message.isprintable()


def test_importer_of_a_directory_follows_no_loop(tmp_path: Path) -> None:
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems/again").symlink_to(tmp_path)
    (tmp_path / "systems/n1.json").write_text('{"name": "n1", "interfaces": {}}')
    assert [host.name for host in read("cobbler", str(tmp_path)).hosts] == ["n1"]


def test_importer_of_cobbler_refuses_profiles_that_go_round(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    for mine, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"profiles/{mine}.json").write_text(json.dumps({"name": mine, "parent": other, "distro": "x"}))
    (tmp_path / "n1.json").write_text('{"name": "n1", "profile": "a", "interfaces": {}}')
    with pytest.raises(ConfigError, match="the parents of profile 'a' go round"):
        read("cobbler", str(tmp_path))


def test_importer_of_json_refuses_a_key_twice(tmp_path: Path) -> None:
    place = tmp_path / "hosts.json"
    place.write_text('[\n{"name": "n1",\n "interfaces": [],\n "name": "n2"}]')
    with pytest.raises(ConfigError, match=r"'name' is there twice"):
        read("grendel", str(place))


YAML = {
    "aliases that multiply groups": "all:\n  children:\n    g0: &g0 {hosts: {n1: }}\n"
    + "".join(f"    g{i}: &g{i} {{children: {{a: *g{i - 1}, b: *g{i - 1}, c: *g{i - 1}}}}}\n" for i in range(1, 40)),
    "aliases that multiply variables": "all:\n  hosts:\n    n1:\n      v0: &v0 {x: 1}\n"
    + "".join(f"      v{i}: &v{i} {{a: *v{i - 1}, b: *v{i - 1}, c: *v{i - 1}}}\n" for i in range(1, 40)),
    "a group in itself": "all: &all\n  children: {more: *all}\n",
    "a range without end": "all:\n  hosts:\n    n[1:9999999]:\n",
    "code": "all:\n  hosts:\n    n1: !!python/object/apply:os.system ['touch /tmp/wwfast-never']\n",
    "an INI file": "[compute]\nn1 mac=x\n",
    "a list of hosts": "all:\n  hosts: [n1, n2]\n",
    "a merge key of text": "all:\n  hosts:\n    n1: {<<: x}\n",
}


@pytest.mark.parametrize("what", YAML)
def test_importer_of_yaml_is_safe_and_bounded(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from wwfast.nodes.foreign import ansible

    monkeypatch.setattr(ansible, "HOSTS", 10_000)
    place = tmp_path / "inventory"
    place.write_text(YAML[what])
    with pytest.raises(ConfigError, match=r"inventory:[0-9]+:"):
        read("ansible", str(place))
    assert not Path("/tmp/wwfast-never").exists()


TABLES = {
    "no name": ("mac,ip\n1,2\n", ":1: no column is the name of the node"),
    "nearly a name": ("nam,ip\nn1,2\n", "is 'nam' it?"),
    "two columns for one field": ("name,mac,hwaddr\nn1,1,2\n", ":1: two columns are hwaddr"),
    "two ways to one device": (
        "name,mac,default.hwaddr\nn1,52:54:00:00:00:40,52:54:00:00:00:41\n",
        ":2: network device default: '52:54:00:00:00:40', and '52:54:00:00:00:41' was said before",
    ),
    "too many cells": ("name,mac\nn1,2,3\n", ":2: 3 cells, where the first line names 2"),
    "a row without a name": ("name,mac\nn1,\n,52:54:00:00:00:01\n", ":3: this row has no name"),
    "a quote without end": ('name,mac\nn1,"x\n', "no CSV"),
    "a list that is none": ('name,groups\nn1,a\nn2,"a,,b"\n', ":3: groups: 'a,,b' has an empty item"),
    "tags that are none": ("name,tag\nn1,a\n", ":2: tag: 'a' is not KEY=VALUE"),
    "two values for one field": (
        "name,netname,ip,comment\nn1,a,10.0.0.1,x\nn1,b,10.0.0.2,y\n",
        ":3: comment: 'y', and 'x'",
    ),
    "two masks": ("name,ip,netmask\nn1,10.0.0.1/24,255.0.0.0\n", ":2: netmask: '255.0.0.0', and '255.255.255.0' was"),
    "only a head": ("name,mac\n", "describes no node"),
}


@pytest.mark.parametrize("what", TABLES)
def test_importer_of_a_table_tells_the_line(tmp_path: Path, what: str) -> None:
    text, said = TABLES[what]
    place = tmp_path / "t.csv"
    place.write_text(text)
    with pytest.raises(WwfastError) as caught:
        read("csv", str(place))
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("mac", "not KEY=FIELD"),
        ("mac=hwadr", "did you mean hwaddr?"),
        ("mac=diskwipe", "no field is called 'diskwipe'"),
        ("mac=a.b.hwaddr", "no field"),
        ("=hwaddr", "not KEY=FIELD"),
    ],
)
def test_importer_refuses_fields_that_are_none(word: str, said: str) -> None:
    with pytest.raises(WwfastError) as caught:
        read("csv", f"{DATA}/nodes.csv", [word])
    assert (said in caught.value.message, caught.value.exit_code) == (True, 2)


def test_importer_refuses_a_mapping_of_a_column_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no column 'mak', which --map names"):
        read("csv", f"{DATA}/nodes.csv", ["mak=hwaddr"])


STANZAS = {
    "no object": ("    mac=1\n", ":1: 'mac=1' is neither"),
    "a key twice": ("n1:\n    mac=1\n    mac=2\n", ":3: n1 says mac twice"),
    "a table": ("#node,mac\nn1,x\n", ":2: 'n1,x' is neither"),
}


@pytest.mark.parametrize("what", STANZAS)
def test_importer_of_xcat_tells_the_line(tmp_path: Path, what: str) -> None:
    text, said = STANZAS[what]
    place = tmp_path / "x"
    place.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read("xcat", str(place))
    assert said in caught.value.message


BLOCKS = {
    "no end": ("host n1 {\n hardware ethernet 1:2:3:4:5:6;\n", ":2: the file ends inside"),
    "no semicolon": ("host n1 {\n fixed-address 10.0.0.1\n}\n", ":3: no ; behind 'fixed-address'"),
    "an end too many": ("}\n", ":1: a } without its {"),
    "no hardware": ("host n1 {\n hardware ;\n}\n", ":2: hardware: a word is missing"),
    "no address of hardware": ("host n1 {\n hardware ethernet;\n}\n", ":2: hardware: a word is missing"),
    "no address": ("host n1 {\n fixed-address\n ,;\n}\n", ":3: fixed-address: a word is missing"),
    "no router": ("option routers;\nhost n1 { }\n", ":1: option routers: a word is missing"),
    "a quote": ('option x "y;\n', "quote"),
    "no host": ("subnet 10.0.0.0 netmask 255.0.0.0 { range 10.0.0.1 10.0.0.2; }\n", "no host block"),
    "depth": ("a {" * 1000, "more than 64 deep"),
}


@pytest.mark.parametrize("what", BLOCKS)
def test_importer_of_dhcpd_tells_the_line(tmp_path: Path, what: str) -> None:
    text, said = BLOCKS[what]
    place = tmp_path / "d"
    place.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read("dhcpd", str(place))
    assert said in caught.value.message


def test_importer_refuses_a_column_that_is_said_to_be_two_things() -> None:
    with pytest.raises(WwfastError, match="--map: mac is said to be comment and ipaddr") as caught:
        read("csv", f"{DATA}/nodes.csv", ["mac=comment", "mac=ipaddr"])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("column", ["tag", "tags", "tag.rack", "tags.rack"])
def test_importer_tags_are_the_nodes_whatever_the_column_is_called(tmp_path: Path, column: str) -> None:
    place = tmp_path / "t.csv"
    place.write_text(f"name,{column},nettag.vlan\nn1,{'b' if '.' in column else 'rack=b'},7\n")
    (host,) = read("csv", str(place)).hosts
    assert host.entry["tags"] == {"rack": "b"}
    (device,) = host.entry["network devices"].values()
    assert device["tags"] == {"vlan": "7"}
