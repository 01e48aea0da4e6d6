"""wwfast import: nodes of other provisioners, as commands; the expected files are written out and were read."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import time
from pathlib import Path

import click
import pytest

from support.commands import Run, runner
from support.importers import DATA, SAMPLES, SECRET, stanza, stanzas, written
from wwfast.api.sources import FORMATS
from wwfast.cli.main import cli
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

SECONDS = 60.0  # for 10,000 nodes on a busy machine; 2 s alone
TIMES = 8.0  # that four times the nodes may take; 4 where nothing else runs


@pytest.fixture
def run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(paths, capsys)


def given(paths: Paths, text: str, name: str = "given") -> Path:
    place = paths.root / name
    place.write_text(text)
    return place


@pytest.mark.parametrize("sample", SAMPLES)
def test_importer_makes_of_each_sample_what_is_written_out(run: Run, paths: Paths, sample: str) -> None:
    status, out, err = run("import", *SAMPLES[sample], "--yes")
    assert (status, err) == (0, "")
    assert paths.nodes_conf.read_text() == (DATA / f"expected/{sample}.yaml").read_text()
    assert "NOT CARRIED OVER" in out


@pytest.mark.parametrize("sample", SAMPLES)
def test_importer_twice_changes_nothing_and_says_so(run: Run, paths: Paths, sample: str) -> None:
    run("import", *SAMPLES[sample], "--yes")
    before = paths.nodes_conf.read_bytes()
    for words in (("--yes",), ()):  # nothing to ask for
        status, out, err = run("import", *SAMPLES[sample], *words)
        assert (status, err) == (0, "")
        assert "no changes" in out
    assert paths.nodes_conf.read_bytes() == before
    assert len(list(paths.history.iterdir())) == 1


@pytest.mark.parametrize("sample", SAMPLES)
def test_importer_keeps_secrets_from_sight_unless_asked(run: Run, paths: Paths, sample: str) -> None:
    secret = any(SECRET in path.read_text() for path in DATA.rglob("*") if sample in str(path) and path.is_file())
    status, out, err = run("import", *SAMPLES[sample], "--yes")
    assert status == 0
    assert SECRET not in out + err + paths.nodes_conf.read_text()
    run("undo", "--yes")
    status, out, err = run("import", *SAMPLES[sample], "--yes", "--with-secrets", "--json")
    assert status == 0
    assert SECRET not in out + err
    if secret and sample != "dhcpd":  # whose secret is of a key for DNS
        assert SECRET in paths.nodes_conf.read_text()


def test_importer_says_how_many_nodes_have_what_is_left_out(run: Run) -> None:
    out = run("import", *SAMPLES["xcat"], "--dry-run", "--json")[1]
    lost = {each["key"]: (each["hosts"], each["example"]) for each in json.loads(out)["not carried over"]}
    assert lost["arch"] == (3, "cn01")
    assert lost["provmethod"] == (2, "cn01")
    assert lost["ipmi.password"] == (2, "cn01")
    assert lost["nicips.* (further addresses)"] == (1, "cn03")
    assert lost["network: domain"] == (1, "10_3_0_0-255_255_0_0")
    assert lost["objtype=osimage"][0] == 1


def test_importer_names_every_key_that_it_does_not_know(run: Run, paths: Paths) -> None:
    odd = {f"odd{index}": "x" for index in range(200)}
    place = given(paths, stanza("n1", mac="52:54:00:00:00:01", **odd))
    out = run("import", "xcat", place, "--dry-run", "--json")[1]
    assert {each["key"] for each in json.loads(out)["not carried over"]} == {*odd}
    people = run("import", "xcat", place, "--dry-run")[1]
    assert "140 keys more: --json has all" in people


def test_importer_dry_run_shows_the_change_and_writes_nothing(run: Run, paths: Paths) -> None:
    before = "# mine\nnodes:\n  old: {comment: kept}\n"
    paths.nodes_conf.write_text(before)
    status, out, _ = run("import", *SAMPLES["csv"], "--dry-run")
    assert status == 0
    assert "+  t1:" in out
    assert paths.nodes_conf.read_text() == before
    assert not paths.history.exists()
    report = json.loads(run("import", *SAMPLES["csv"], "--dry-run", "--json")[1])
    assert report["written"] is False
    assert report["new"] == ["t1", "t2"]
    assert "+  t1:" in report["change"]
    assert report["profile"]["name"] == "csv"
    assert report["profile"]["values"]["kernel.args"] == ["quiet", "console=ttyS0,115200"]


def test_importer_is_one_change_that_undo_takes_back(run: Run, paths: Paths) -> None:
    before = "# mine\nnodes:\n  old: {comment: kept}\n"
    paths.nodes_conf.write_text(before)
    run("import", *SAMPLES["xcat"], "--yes")
    assert "# mine\n" in paths.nodes_conf.read_text()
    assert "import xcat" in run("undo", "--list")[1]
    assert run("undo", "--yes")[0] == 0
    assert paths.nodes_conf.read_text() == before


def test_importer_asks_first(run: Run, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    for said, status, there in (("n\n", 0, False), ("", 1, False), ("y\n", 0, True)):
        monkeypatch.setattr("sys.stdin", io.StringIO(said))
        assert run("import", *SAMPLES["grendel"])[0] == status
        assert paths.nodes_conf.exists() is there


def test_importer_reads_standard_input(run: Run, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"name\tmac\ns1\t525400000001\n")))
    assert run("import", "csv", "-", "--yes")[0] == 0
    assert written(paths)["nodes"]["s1"]["network devices"]["default"]["hwaddr"] == "52:54:00:00:00:01"


@pytest.mark.parametrize(
    "mac",
    [
        *("52:54:00:0A:0b:01", "52-54-00-0a-0b-01", "5254.000a.0b01", "5254000A0B01", "52:54:0:a:b:1"),
        "  52:54:00:0a:0b:01 ",
    ],
)
def test_importer_writes_hardware_addresses_in_one_form(run: Run, paths: Paths, mac: str) -> None:
    assert run("import", "csv", given(paths, f"name;mac\nn1;{mac}\n"), "--yes")[0] == 0
    assert written(paths)["nodes"]["n1"]["network devices"]["default"] == {"hwaddr": "52:54:00:0a:0b:01"}


# Columns of which there are two, and a cell that never ends: what is said of them.
COLUMNS = {
    "names": ("name,name,mac\nn1,n2,52:54:00:00:00:01\n", "", "a node has one name"),
    "kinds of names": ("name,hostname,mac\nn1,n2,52:54:00:00:00:01\n", "", "a node has one name"),
    "names by --map": ("name,x,mac\nn1,n2,52:54:00:00:00:01\n", "--map=x=name", "a node has one name"),
    "devices": ("name,netname,netname,mac\nn1,a,b,52:54:00:00:00:01\n", "", "'netname' is the second"),
    "fields": ("name,mac,hwaddr\nn1,52:54:00:00:00:01,52:54:00:00:00:01\n", "", "'hwaddr' is the second"),
    "a long cell": (f"name,comment\nn1,{'x' * 140_000}\n", "", "a cell has 131072 letters at most"),
    "a quote": (f'name,comment\nn1,"{"x" * 100}\n', "", "a quoted cell ends with a quote"),
}


@pytest.mark.parametrize(("table", "words", "said"), COLUMNS.values(), ids=COLUMNS)
def test_importer_says_of_a_table_what_is_wrong_with_it(
    run: Run, paths: Paths, table: str, words: str, said: str
) -> None:
    _, out, err = run("import", "csv", given(paths, table), "--dry-run", *filter(None, [words]))
    assert said in out + err


# What two nodes of a file may not have alike: the second row, and what is said of it.
TWICE = {
    "a name": ("n1,52:54:00:00:00:02,10.0.0.2,10.1.0.2", "name 'n1' is that of the node at"),
    "a name in capitals": ("N1,52:54:00:00:00:02,10.0.0.2,10.1.0.2", "name 'n1' is that of the node at"),
    "a hardware address": (
        "n2,5254.0000.0001,10.0.0.2,10.1.0.2",
        "hardware address '52:54:00:00:00:01' of 'n2' is that of 'n1'",
    ),
    "an address": ("n2,52:54:00:00:00:02,10.0.0.1,10.1.0.2", "address '10.0.0.1' of 'n2' is that of 'n1'"),
    "a BMC": ("n2,52:54:00:00:00:02,10.0.0.2,10.1.0.1", "BMC address '10.1.0.1' of 'n2' is that of 'n1'"),
}
FIRST = "name,mac,ip,bmc\nn1,52:54:00:00:00:01,10.0.0.1,10.1.0.1\n"


@pytest.mark.parametrize("what", TWICE)
def test_importer_refuses_what_is_twice_in_a_file(run: Run, paths: Paths, what: str) -> None:
    row, said = TWICE[what]
    place = given(paths, f"{FIRST}{row}\n")
    for words in ((), ("--force",)):
        status, _, err = run("import", "csv", place, "--yes", *words)
        assert status == 1
        assert f"{place}:3: {said}" in err
        assert f"{place}:2" in err
    assert not paths.nodes_conf.exists()


@pytest.mark.parametrize("what", TWICE)
def test_importer_refuses_what_a_node_that_is_there_has(run: Run, paths: Paths, what: str) -> None:
    run("import", "csv", given(paths, FIRST), "--yes")
    before = paths.nodes_conf.read_bytes()
    place = given(paths, f"name,mac,ip,bmc\n{TWICE[what][0]}\n", "more")
    status, _, err = run("import", "csv", place, "--yes")
    assert status == 1
    if what != "a name in capitals":  # told by the check of names that every edit has
        assert f"{place}:2: " in err
        assert "n1" in err
    assert paths.nodes_conf.read_bytes() == before


def test_importer_leaves_what_is_there_alone(run: Run, paths: Paths) -> None:
    """A node and a profile that the site went on with are not changed, and new nodes come beside them."""
    first = given(paths, stanzas(5))
    run("import", "xcat", first, "--yes")
    assert run("profile", "set", "xcat", "--tagadd", "site=own", "--yes")[0] == 0
    assert run("node", "set", "n00003", "--comment", "a new board", "--yes")[0] == 0
    before = written(paths)
    assert "no changes" in run("import", "xcat", first, "--yes")[1]
    assert run("import", "xcat", given(paths, stanzas(7), "more"), "--yes")[0] == 0
    after = written(paths)
    assert after["nodeprofiles"] == before["nodeprofiles"]
    assert {name: after["nodes"][name] for name in before["nodes"]} == before["nodes"]
    assert after["nodes"]["n00007"]["profiles"] == ["xcat"]
    assert Registry(paths).snapshot().nodes["n00007"].tags == {"site": "own"}
    run("node", "set", "n00003", "--ipaddr", "10.0.9.9", "--yes")
    status, _, err = run("import", "xcat", first, "--yes")
    assert status == 1
    assert "node n00003 is in nodes.conf, and says otherwise: network devices[default].ipaddr" in err


def test_importer_makes_no_profile_that_no_new_node_takes(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(
        "nodes:\n  n1: {profiles: [csv], network devices: {default: {hwaddr: '52:54:00:00:00:01'}}}\n"
    )
    place = given(paths, "name,mac\nn1,52:54:00:00:00:01\nn2,52:54:00:00:00:02\n")
    assert run("import", "csv", place, "--yes")[0] == 0
    assert "nodeprofiles" not in written(paths)
    assert list(written(paths)["nodes"]) == ["n1", "n2"]


def test_importer_checks_values_as_node_set_does(run: Run, paths: Paths) -> None:
    place = given(paths, "name,mac,ip,mtu\nn1,zz:54:00:00:00:01,10.0.0.300,9\n")
    status, _, err = run("import", "csv", place, "--yes")
    assert status == 1
    for said in ("not a hardware address", "not an IPv4 address", "not an MTU"):
        assert said in err
    assert err.count(f"{place}:2: node n1: network devices.default.") == 3
    assert run("import", "csv", given(paths, "name,mac\nn 1,52:54:00:00:00:01\n"), "--yes")[0] == 1
    place = given(paths, "name,ip,mask,gw\nn1,10.0.0.1,255.255.255.0,10.9.9.9\n")
    assert run("import", "csv", place, "--yes", "--map", "gw=gateway", "--map", "mask=mtu")[0] == 1
    assert not paths.nodes_conf.exists()
    assert run("import", "csv", given(paths, "name,mtu\nn1,9\n"), "--yes", "--force")[0] == 0
    assert written(paths)["nodes"]["n1"]["network devices"]["default"]["mtu"] == "9"


def test_importer_takes_names_of_images_that_are_here(run: Run, paths: Paths) -> None:
    out = run("import", *SAMPLES["warewulf3"], "--yes")[1]
    assert "no image 'centos7' is here" in out
    assert "image name" not in paths.nodes_conf.read_text()
    run("undo", "--yes")
    (paths.chroots / "centos7/rootfs").mkdir(parents=True)
    assert run("import", *SAMPLES["warewulf3"], "--yes")[0] == 0
    assert written(paths)["nodeprofiles"]["warewulf3"]["image name"] == "centos7"
    shutil.rmtree(paths.chroots)
    assert "no changes" in run("import", *SAMPLES["warewulf3"], "--yes")[1]


def test_importer_gives_nodes_the_default_profile_that_is_there(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text("nodeprofiles:\n  default: {init: /sbin/init}\n")
    run("import", *SAMPLES["xcat"], "--yes", "--profile", "old-cluster")
    assert written(paths)["nodes"]["cn01"]["profiles"] == ["default", "old-cluster"]
    assert written(paths)["nodeprofiles"]["default"] == {"init": "/sbin/init"}
    status, _, err = run("import", *SAMPLES["csv"], "--yes", "--profile", "../x")
    assert (status, "--profile" in err) == (2, True)


def test_importer_of_ten_thousand_nodes_is_quick_and_linear(run: Run, paths: Paths) -> None:
    taken: list[float] = []
    for number in (2500, 10_000):
        place = given(paths, stanzas(number))
        begin = time.process_time()
        assert run("import", "xcat", place, "--yes")[0] == 0
        taken.append(time.process_time() - begin)
        assert len(Registry(paths).snapshot().nodes) == number
        run("undo", "--yes")
    assert taken[1] < SECONDS
    assert taken[1] / taken[0] < TIMES


#: What files of docs/migration.md stand for.
FILES = {
    "/var/lib/cobbler/collections": DATA / "cobbler",
    "/etc/dhcp/dhcpd.conf": DATA / "dhcpd.conf",
    "/etc/dnsmasq.d": DATA / "dnsmasq",
    "nodes.stanza": DATA / "xcat.stanza",
    "nodes.txt": DATA / "warewulf3.txt",
    "hosts.json": DATA / "grendel.json",
    "inventory.json": DATA / "ansible.json",
}


def test_importer_commands_of_the_documentation_run(run: Run, paths: Paths) -> None:
    table = given(paths, "name,MAC of eth0\nn1,52:54:00:00:00:01\n")
    text = (DATA.parents[2] / "docs/migration.md").read_text().partition("## Any other")[2]
    lines = re.findall(r"^    wwfast (.*)$", text, re.MULTILINE)
    assert {words.split()[1] for words in lines if words.startswith("import")} == FORMATS.keys()
    for line in lines:
        words = [FILES.get(word, table if word == "nodes.csv" else word) for word in shlex.split(line)]
        assert run(*words)[0] == 0, line


def test_importer_help_has_an_example_and_completion_the_formats(run: Run) -> None:
    listed = run("import", "--help")[1]
    for name in FORMATS:
        assert f"  {name} " in listed
        assert f"Example: wwfast import {FORMATS[name].example.split(' --')[0]}" in run("import", name, "--help")[1]
    import_ = cli.get_command(click.Context(cli), "import")
    assert import_ is not None
    offered = {each.value for each in import_.shell_complete(click.Context(import_), "")}
    assert FORMATS.keys() <= offered
    assert run("import", "xcatt", "x")[0] == 2
