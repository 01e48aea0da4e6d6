"""node and profile commands: what they make of nodes.conf, written out; what they refuse, and how."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from wwfast.cli.main import cli, main
from wwfast.config import yaml
from wwfast.net.dhcp.journal import Journal
from wwfast.net.dhcp.packet import number
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; -> status, stdout, stderr. Words are split at blanks unless given one by one."""

    def call(*words: str) -> tuple[int, str, str]:
        argv = words[0].split() if len(words) == 1 else list(words)
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(paths.root), *argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(caught.value.code or 0), out, err

    return call


def text(paths: Paths) -> str:
    return paths.nodes_conf.read_text()


def node_text(paths: Paths, name: str = "n1") -> str:
    """The lines of one entry, without its name."""
    lines = text(paths).splitlines()
    start = lines.index(f"  {name}:") + 1
    return "\n".join(line[4:] for line in lines[start:] if line.startswith("    "))


FIELDS = {
    "text and list flags": (
        "--comment x --cluster c -i /init --root tmpfs --ipxe local -A quiet,splash -A ro",
        """\
comment: x
cluster name: c
ipxe template: local
kernel:
  args:
    - quiet
    - splash
    - ro
init: /init
root: tmpfs""",
    ),
    "quotes protect commas": (
        ("--kernelargs", '"console=ttyS0,115200",quiet'),
        """\
kernel:
  args:
    - console=ttyS0,115200
    - quiet""",
    ),
    "a network device": (
        "--netname ib0 -T infiniband -N ib0 -H 52:54:00:00:00:01 -I 10.0.0.1 -M 255.255.0.0 -G "
        "10.0.0.254 --mtu 2044 --ipaddr6 fd00::1 --prefixlen6 64 --gateway6 fd00::2 --onboot --nettagadd "
        "vlan=7 -p ib0",
        """\
network devices:
  ib0:
    type: infiniband
    onboot: "true"
    device: ib0
    hwaddr: "52:54:00:00:00:01"
    ipaddr: 10.0.0.1
    netmask: 255.255.0.0
    gateway: 10.0.0.254
    ipaddr6: fd00::1
    prefixlen6: "64"
    gateway6: fd00::2
    mtu: "2044"
    tags:
      vlan: "7"
primary network: ib0""",
    ),
    "the device default when none is named": (
        "-I=10.0.0.1 --onboot=false",
        """\
network devices:
  default:
    onboot: "false"
    ipaddr: 10.0.0.1""",
    ),
    "a BMC": (
        "--ipmiuser root --ipmipass calvin --ipmiaddr 10.1.0.1 --ipminetmask 255.255.0.0 --ipmigateway "
        "10.1.0.254 --ipmiport 623 --ipmiinterface lanplus --ipmiescapechar ! --ipmiwrite=yes "
        "--ipmitemplate x.tmpl --ipmitagadd vlan=lan5",
        """\
ipmi:
  username: root
  password: calvin
  ipaddr: 10.1.0.1
  gateway: 10.1.0.254
  netmask: 255.255.0.0
  port: "623"
  interface: lanplus
  escapechar: '!'
  write: "true"
  template: x.tmpl
  tags:
    vlan: lan5""",
    ),
    "disks and file systems": (
        "--diskname /dev/sda --diskwipe --partname root --partnumber 1 --partsize 1024 --parttype 0FC6 "
        "--partwipe=false --partcreate --fsname root --fsformat ext4 --fspath / --fswipe",
        """\
disks:
  /dev/sda:
    wipe_table: true
    partitions:
      root:
        number: "1"
        size_mib: "1024"
        type_guid: 0FC6
        wipe_partition_entry: false
        should_exist: true
filesystems:
  /dev/disk/by-partlabel/root:
    format: ext4
    path: /
    wipe_filesystem: true""",
    ),
    "tags and discovery": (
        "--tagadd a=1,b=x=y -e --asset s3cret",
        """\
discoverable: "true"
asset key: s3cret
tags:
  a: "1"
  b: x=y""",
    ),
}


@pytest.mark.parametrize(("flags", "expected"), FIELDS.values(), ids=FIELDS.keys())
@pytest.mark.parametrize("verb", ["add", "set"])
def test_node_add_and_set_write_every_field(run: Run, paths: Paths, verb: str, flags: object, expected: str) -> None:
    words = flags.split() if isinstance(flags, str) else list(flags)  # type: ignore[call-overload]
    if verb == "set":
        run("node add n1")
    status, _, err = run("node", verb, "n1", "--yes", *words)
    assert (status, err) == (0, "")
    assert node_text(paths) == expected


def test_node_add_counts_addresses_up_and_takes_the_default_profile(run: Run, paths: Paths) -> None:
    run("profile add default --comment all")
    assert run("node add n[1-3] -I 10.0.0.254 --ipmiaddr 10.1.0.1 --tagadd a=b")[0] == 0
    assert text(paths).split("nodes:\n")[1] == "".join(
        f"  n{number}:\n    profiles:\n      - default\n    ipmi:\n      ipaddr: 10.1.0.{number}\n"
        f"    network devices:\n      default:\n        ipaddr: {address}\n    tags:\n      a: b\n"
        for number, address in ((1, "10.0.0.254"), (2, "10.0.0.255"), (3, "10.0.1.0"))
    )


def test_node_add_counts_ipv6_up_too(run: Run, paths: Paths) -> None:
    assert run("node add n[1-2] --ipmiaddr fd00::ffff")[0] == 0
    assert "ipaddr: fd00::1:0" in text(paths)


REFUSED = {
    "an existing node": ("node add n1", 1, "node 'n1' exists"),
    "a name that cannot be one": ("node add ../x", 2, "'../x' cannot be a name"),
    "a bad address": ("node set n1 --ipaddr 10.0.0.999 --yes", 2, "--ipaddr: '10.0.0.999' is not an IPv4 address"),
    "an IPv6 address": ("node set n1 --ipaddr fd00::1 --yes", 2, "--ipaddr: 'fd00::1' is not an IPv4 address"),
    "an IPv6 gateway": ("node set n1 --gateway fd00::1 --yes", 2, "--gateway: 'fd00::1' is not an IPv4 address"),
    "an IPv6 netmask": ("node set n1 --netmask ffff:: --yes", 2, "--netmask: 'ffff::' is not a netmask"),
    "an IPv4 address for IPv6": ("node set n1 --ipaddr6 10.0.0.1 --yes", 2, "'10.0.0.1' is not an IPv6 address"),
    "a bad MAC": ("node set n1 --hwaddr 0:1 --yes", 2, "is not a hardware address"),
    "no MAC": ("node set n1 --hwaddr 00:00:00:00:00:00 --yes", 2, "a hardware address that no card has (none)"),
    "a MAC of all": ("node add n3 --hwaddr ff:ff:ff:ff:ff:ff", 2, "a hardware address that no card has (broadcast)"),
    "a MAC of many": ("node set n1 --hwaddr 01-00-5E-00-00-01 --yes", 2, "that no card has (multicast)"),
    "a MAC of IPv6's many": ("node set n1 --hwaddr 33:33:00:00:00:01 --yes", 2, "that no card has (multicast)"),
    "a bad netmask": ("node set n1 --netmask 255.0.255.0 --yes", 2, "is not a netmask"),
    "a bad MTU": ("node set n1 --mtu 1 --yes", 2, "is not an MTU"),
    "a bad boolean": ("node set n1 --onboot=maybe --yes", 2, "'maybe' is neither true nor false"),
    "no node named": ("node set --comment x", 2, "which nodes?"),
    "unknown nodes only": ("node set x[1-2] --comment x --yes", 1, "no node 'x1', 'x2'"),
    "one unknown node of two": ("node set n1,x --comment x --yes", 1, "no node 'x'\nhint: wwfast node list; --force"),
    "a node to delete, and none": ("node delete n1 x --yes", 1, "no node 'x'"),
    "a node to unset, and none": ("node unset n1 x --profile --yes", 1, "no node 'x'"),
    "a node to export, and none": ("node export n1,x", 1, "no node 'x'"),
    "a node to edit, and none": ("node edit n1 x --yes", 1, "no node 'x'"),
    "a group of nobody": ("node set n1 @x --comment x --yes", 1, "no group 'x'"),
    "a profile to delete, and none": ("profile delete p x --yes", 1, "no profile 'x'"),
    "a pattern to delete": ("node delete n* --yes", 1, "no node 'n*'"),
    "a node and all": ("node set -a n1 --comment x --yes", 2, "which nodes?"),
    "a name behind a truth value": ("node set n1 --diskname /dev/vda --diskwipe x --yes", 1, "no node 'x'"),
    "a device that is set and removed": (
        "node set n1 --netname e --ipaddr 10.0.0.9 --netdel e --yes",
        2,
        "--netdel e: this network device is set",
    ),
    "the first device set and removed": ("node set n1 --mtu 9000 --netdel default --yes", 2, "is set by the same"),
    "a tag of a device that is removed": (
        "node set n1 --nettagadd a=b --netdel default --yes",
        2,
        "is set by the same",
    ),
    "a disk whose partition is set": (
        "node set n1 --diskname /dev/sda --partname r --partsize 1 --diskdel /dev/sda --yes",
        2,
        "is set by the same",
    ),
    "a word that clears in capitals": ("node set n1 --init undef --yes", 2, "in capitals it does"),
    "one in a list": ("node set n1 --kernelargs Unset --yes", 2, "in capitals it does"),
    "a list of nobody": ("node list n1 x", 1, "no node 'x'"),
    "a list of no profile": ("profile list p x", 1, "no profile 'x'"),
    "a list of no group": ("group list x", 1, "no group 'x'"),
    "overlays of nobody": ("overlay build n1 x", 1, "no node 'x'"),
    "the state of nobody": ("node status n1 x", 1, "no node 'x'"),
    "an unknown image": ("node set n1 --image nowhere --yes", 1, "node n1: no image 'nowhere'"),
    "an unknown profile": ("node set n1 --profile nowhere --yes", 1, "node n1: no profile 'nowhere'"),
    "an unknown overlay": ("node set n1 -O nowhere --yes", 1, "node n1: no overlay 'nowhere'"),
    "an unknown kernel": ("node set n1 --kerneloverride nowhere --yes", 1, "node n1: no kernel 'nowhere'"),
    "a taken MAC": ("node add n3 --hwaddr 52-54-00-00-00-01", 1, "hardware address 52:54:00:00:00:01 also belongs to"),
    "a taken address": ("node set n2 --ipaddr 10.0.0.1 --yes", 1, "address 10.0.0.1 also belongs to node"),
    "a taken BMC address": ("node set n2 --ipmiaddr 10.1.0.1 --yes", 1, "BMC address 10.1.0.1 also belongs to"),
    "a partition without a disk": ("node set n1 --partname x --partsize 1 --yes", 2, "a partition needs --diskname"),
    "a device that is a directory": ("node set n1 --netname .. --mtu 1500 --yes", 2, "'..' means a directory"),
    "a device with a slash": ("node set n1 --netname a/b --mtu 1500 --yes", 2, "'a/b' cannot have a / in it"),
    "a file system of no device": ("node set n1 --fsname x --fspath / --yes", 2, "--fsname x is neither below /dev"),
    "a tag without a value": ("node set n1 --tagadd x --yes", 2, "'x' is not KEY=VALUE"),
    "removing a device that is not there": ("node set n1 --netdel x --yes", 1, "no network device 'x' here"),
    "a device named in vain": ("node set n1 --netname eth1 --yes", 2, "nothing is said about this network device"),
    "a disk named in vain": ("node add n3 --diskname /dev/sda", 2, "nothing is said about this disk"),
    "two values for one flag": ("node set n1 --mtu 1500 --mtu 9000 --yes", 2, "--mtu is given twice: '1500' and"),
    "two names of one flag": ("node set n1 --image a --container b --yes", 2, "--image is given twice"),
    "two devices to remove": ("node set n1 --netdel a --netdel b --yes", 2, "--netdel is given twice"),
    "two values for one tag": ("node set n1 --tagadd a=1 --tagadd a=2 --yes", 2, "'a' is given twice: '1' and '2'"),
    "an empty item": ("node set n1 --profile p,,p --yes", 2, "has an empty item"),
    "clearing and setting a list": ("node set n1 --profile p,UNDEF --yes", 2, "nothing can stand beside it"),
    "a value or a name": ("node set n1 --onboot t --yes", 2, "--onboot t: is that a value or a name?"),
    "a node named twice": ("node add n[3,3]", 2, "node 'n3' is named twice"),
    "a node in capitals": ("node add N1", 1, "nodes n1 and N1 have one name: DNS knows no capitals"),
    "nodes in capitals": ("node add x1 X1", 1, "nodes x1 and X1 have one name"),
    "an export of nobody": ("node export x", 1, "no node 'x'"),
    "an edit of nobody": ("node edit x --yes", 1, "no node 'x'"),
    "a reversed range": ("node list n[4-1]", 2, "range 4-1 runs backwards"),
    "an unknown flag": ("node set n1 --ipadr 1", 2, "No such option"),
    "an unknown command": ("node lst", 2, "Did you mean 'list'?"),
    "unset of nothing": ("node unset n1 --yes", 2, "nothing to clear"),
    "unset of an unknown node": ("node unset x --comment --yes", 1, "no node 'x'"),
    "a profile in use": ("profile delete p --yes", 1, "profile 'p' is used by n1"),
    "an import that is no map": ("node import /dev/null/x --yes", 1, "Not a directory"),
    "a range too large": ("node list n[1-99999999]", 2, "is larger than"),
}
BASE = """\
nodeprofiles:
  p: {}
nodes:
  n1:  # the first
    profiles:
      - p
    ipmi:
      ipaddr: 10.1.0.1
    network devices:
      default:
        hwaddr: 52:54:00:00:00:01
        ipaddr: 10.0.0.1
  n2: {}
"""


@pytest.mark.parametrize(("command", "status", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_node_commands_refuse_in_words_and_change_nothing(
    run: Run, paths: Paths, command: str, status: int, message: str
) -> None:
    paths.nodes_conf.write_text(BASE)
    found, _, err = run(command)
    assert message in err
    assert found == status
    assert text(paths) == BASE


def test_node_commands_skip_a_node_that_is_none_when_forced(run: Run, paths: Paths) -> None:
    for verb in ("set n1 x[1-7] --comment x", "unset n1 x[1-7] --comment", "delete n1 x[1-7]"):
        paths.nodes_conf.write_text(BASE)
        status, out, err = run(f"node {verb} --force --yes")
        assert (status, err) == (0, "warning: no node 'x1', 'x2', 'x3', 'x4', 'x5' and 2 more\n")
        assert "1 node" in out or "no changes" in out


EMPTY = [
    ("node", "add", ""),
    ("node", "set", "n1", "", "--comment", "x", "--yes"),
    ("node", "list", ""),
    ("doctor", ""),
    ("genconfig", "man", ""),
    ("image", "import", "", "x"),
    ("image", "build", ""),
    ("profile", "delete", "p", "", "--yes"),
    ("ssh", "", "true"),
]


@pytest.mark.parametrize("words", EMPTY, ids=[" ".join(words) for words in EMPTY])
def test_a_word_that_is_empty_is_no_name_and_no_place(run: Run, paths: Paths, words: tuple[str, ...]) -> None:
    """It is a variable of a shell that is not set."""
    paths.nodes_conf.write_text(BASE)
    status, _, err = run(*words)
    assert (status in (1, 2), text(paths)) == (True, BASE)
    assert "is given, but empty" in err or "no node ''" in err


ODD = ["a b", "é", "a:b", "a/b", "*", "n[1-3]", "a,b", "@x", "-x", "10.0.0.1"]


@pytest.mark.parametrize("odd", ODD)
def test_an_entry_that_cannot_be_named_so_is_got_rid_of_under_its_name(run: Run, paths: Paths, odd: str) -> None:
    """In a file whose other entries have quotes: with that name it is read as a whole, without it entry by entry."""
    both = BASE.replace("52:54:00:00:00:01", '"52:54:00:00:00:01"') + f"  '{odd}':\n    comment: x\n  n3: {{}}\n"
    paths.nodes_conf.write_text(both)
    assert run("node", "export", "--", odd)[1].count("comment: x") == 1
    assert run("node", "set", "n1", "--comment", "others change beside it", "--yes")[0] == 0
    run("undo", "--yes")
    assert run("node", "delete", "--yes", "--", odd)[0] == 0
    assert text(paths) == both.replace(f"  '{odd}':\n    comment: x\n", "")


@pytest.mark.parametrize("odd", [name for name in ODD if name not in ("@x", "-x")])
def test_an_entry_that_cannot_be_named_so_is_refused_by_that(run: Run, paths: Paths, tmp_path: Path, odd: str) -> None:
    before = BASE.replace("52:54:00:00:00:01", '"52:54:00:00:00:01"')
    paths.nodes_conf.write_text(before)
    (tmp_path / "n.csv").write_text(f'name,comment\n"{odd}",x\n')
    (tmp_path / "n.yaml").write_text(f"'{odd}': {{}}\n")
    for words in (("import", "csv", tmp_path / "n.csv"), ("node", "import", tmp_path / "n.yaml")):
        status, _, err = run(*map(str, words), "--yes")
        assert status == 1
        assert "cannot be a n" in err
        assert text(paths) == before


def test_node_set_forced_warns_and_writes(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(BASE)
    status, _, err = run("node set n2 --image nowhere --force --yes")
    assert (status, err) == (0, "warning: node n2: no image 'nowhere'\n")
    assert "  n2:\n    image name: nowhere\n" in text(paths)


def test_node_image_may_name_a_build(run: Run, paths: Paths) -> None:
    (paths.chroots / "rocky/rootfs").mkdir(parents=True)
    assert run("node add n1 --image rocky@20240101")[0] == 0
    assert run("node add n2 --image rock@20240101")[0] == 1


@pytest.mark.parametrize(
    ("said", "status", "written"),
    [("y\n", 0, True), ("yes", 0, True), ("n\n", 0, False), ("\n", 0, False), ("", 1, False), (None, 1, False)],
)
def test_node_set_shows_asks_and_reads_the_answer_on_standard_input(
    run: Run, paths: Paths, monkeypatch: pytest.MonkeyPatch, said: str | None, status: int, written: bool
) -> None:
    paths.nodes_conf.write_text(BASE)
    monkeypatch.setattr("sys.stdin", io.StringIO(said) if said is not None else None)
    found, out, err = run("node set n[1-2] --comment x")
    assert found == status
    assert out.splitlines()[2:3] == ["node n[1-2]  comment  <unset>  x"]
    assert ("nobody answered; nothing was changed\nhint: --yes does not ask" in err) == (not said)
    assert (text(paths) != BASE) == written


def test_node_dry_run_prints_the_difference(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(BASE)
    status, out, _ = run("node set n1 --ipaddr 10.0.0.9 --dry-run")
    assert status == 0
    assert out.splitlines()[2:] == [
        "@@ -9,5 +9,5 @@",
        "     network devices:",
        "       default:",
        "         hwaddr: 52:54:00:00:00:01",
        "-        ipaddr: 10.0.0.1",
        "+        ipaddr: 10.0.0.9",
        "   n2: {}",
    ]
    assert text(paths) == BASE


UNSET = {
    "a field": ("--hwaddr", BASE.replace("        hwaddr: 52:54:00:00:00:01\n", "")),
    "UNDEF clears as unset does": ("SET --hwaddr UNDEF", BASE.replace("        hwaddr: 52:54:00:00:00:01\n", "")),
    "a list": ("--profile", BASE.replace("    profiles:\n      - p\n", "")),
    "the last field of a map takes the map": ("--ipmiaddr", BASE.replace("    ipmi:\n      ipaddr: 10.1.0.1\n", "")),
    "a whole device": ("--netname default", BASE[: BASE.index("    network")] + "  n2: {}\n"),
    "a whole device by set": ("SET --netdel default", BASE[: BASE.index("    network")] + "  n2: {}\n"),
}


@pytest.mark.parametrize(("flags", "expected"), UNSET.values(), ids=UNSET.keys())
def test_node_unset(run: Run, paths: Paths, flags: str, expected: str) -> None:
    paths.nodes_conf.write_text(BASE)
    verb = "set" if flags.startswith("SET ") else "unset"
    assert run(f"node {verb} n1 --yes {flags.removeprefix('SET ')}")[0] == 0
    assert text(paths) == expected


def test_tags_are_added_changed_and_deleted_where_they_belong(run: Run, paths: Paths) -> None:
    """W-50, W-51: there node add loses them, profile set puts them on the device as well."""
    run("profile add q --tagadd a=1,b=2 --nettagadd n=1 --ipmitagadd i=1")
    run("profile set q --tagadd a=9 --tagdel b --nettagadd m=2 --nettagdel n --yes")
    assert text(paths) == (
        'nodeprofiles:\n  q:\n    ipmi:\n      tags:\n        i: "1"\n    network devices:\n'
        '      default:\n        tags:\n          m: "2"\n    tags:\n      a: "9"\n'
    )


@pytest.mark.parametrize(
    ("old", "key"),
    [("--container x", "image name: x"), ("-C x", "image name: x"), ("--wwinit x", "- x"), ("--runtime x", "- x")],
)
@pytest.mark.parametrize("command", ["node add n1", "node set n0", "profile set p", "profile add q"])
def test_retired_flags_still_work(run: Run, paths: Paths, command: str, old: str, key: str) -> None:
    """W-49: there they are silently ignored by most commands."""
    paths.nodes_conf.write_text("nodeprofiles:\n  p:\n    comment: x\nnodes:\n  n0:\n    comment: x\n")
    assert run(f"{command} {old} --yes --force")[0] == 0
    assert key in text(paths)


def test_profile_delete_forced_leaves_no_reference(run: Run, paths: Paths) -> None:
    """W-53: there the references stay."""
    paths.nodes_conf.write_text(BASE)
    assert run("profile delete p --yes --force")[0] == 0
    assert "p" not in [line.strip(" -") for line in text(paths).splitlines()]


@pytest.mark.parametrize(
    "words", ["set n1 --fsdel root", "unset n1 --fsname root", "unset n1 --fsname /dev/disk/by-partlabel/root"]
)
def test_node_file_system_goes_by_the_name_it_was_made_by(run: Run, paths: Paths, words: str) -> None:
    disk = "--diskname /dev/sda --partname root --partnumber 1"
    assert run(f"node add n1 {disk} --fsname root --fsformat ext4 --fspath /")[0] == 0
    assert run(f"node {words} --yes")[0] == 0
    assert "filesystems" not in text(paths).replace(" ", "")
    assert "partitions" in text(paths)


@pytest.mark.parametrize("written", ["gpu,base", "[gpu, base]", "' gpu , base,'", "[~gpu, gpu, base]"])
def test_profile_delete_takes_whole_names_out_of_either_form(run: Run, paths: Paths, written: str) -> None:
    """Warewulf before 4.6 wrote the profiles of a node in one text."""
    paths.nodes_conf.write_text(
        f"nodeprofiles:\n  gpu: {{}}\n  gp: {{}}\n  base: {{}}\nnodes:\n  n1:\n    profiles: {written}\n  n2: [odd]\n"
    )
    assert run("profile delete gp --yes")[0] == 0, "part of a name is none"
    assert f"    profiles: {written}\n" in text(paths)
    status, _, err = run("profile delete gpu --yes")
    assert (status, "profile 'gpu' is used by n1" in err) == (1, True)
    assert run("profile delete gpu --yes --force")[0] == 0
    assert yaml.load(text(paths).encode(), "")["nodes"]["n1"] == {"profiles": ["base"]}


def test_undo_takes_back_a_command(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(BASE)
    run("node delete n1 --yes")
    assert "n1" not in text(paths)
    assert "node delete n1" in run("undo --list")[1]
    assert run("undo --yes")[0] == 0
    assert text(paths) == BASE


def test_undo_of_what_was_changed_by_hand_asks_and_shows_nothing(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(BASE)
    run("node delete n1 --yes")
    paths.nodes_conf.write_text(text(paths) + "# by hand\n")
    for words in ("undo", "undo -n", "undo --yes"):
        status, *rest = run(words)
        said = str(rest)
        assert (status, "by other means" in said, "+++" in said) == (1, True, False)
    paths.nodes_conf.write_text("nodes: [\n")  # what is to be got rid of keeps nobody from it
    assert run("undo --yes --force")[0] == 0
    assert text(paths) == BASE


def test_node_export_comes_back_the_same(run: Run, paths: Paths, tmp_path: Path) -> None:
    """W-52: there an export is merged, and import appends its lists to the inherited ones."""
    paths.nodes_conf.write_text(BASE)
    exported = run("node export")[1]
    (tmp_path / "nodes.yaml").write_text(exported)
    assert run(f"node import {tmp_path}/nodes.yaml --yes")[1] == "no changes\n"
    assert text(paths) == BASE
    run("node delete n1 n2 --yes")
    assert run(f"node import {tmp_path}/nodes.yaml --yes")[0] == 0
    assert run("node export")[1] == exported


def test_node_edit_changes_deletes_and_keeps_comments(
    run: Run, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.nodes_conf.write_text(BASE)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i -e '/n2/d' -e 's/10.0.0.1/10.0.0.5/' \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    assert run("node edit --yes")[0] == 0
    assert text(paths) == BASE.replace("10.0.0.1", "10.0.0.5").replace("  n2: {}\n", "")


WRONG = {
    "address": ("ipaddr: fd00::1", "network devices.default.ipaddr: 'fd00::1' is not an IPv4 address"),
    "loopback": ("ipaddr: 127.0.0.1", "'127.0.0.1' is an address that no host has (loopback)"),
    "multicast": ("gateway: 224.0.0.1", "'224.0.0.1' is an address that no host has (multicast)"),
    "broadcast": ("ipaddr: 255.255.255.255", "'255.255.255.255' is an address that no host has (reserved)"),
    "multicast 6": ('ipaddr6: "ff02::1"', "'ff02::1' is an address that no host has (multicast)"),
    "holes": ("netmask: 255.0.255.0", "'255.0.255.0' is not a netmask"),
    "gateway": ("gateway: fd00::1", "network devices.default.gateway: 'fd00::1' is not an IPv4 address"),
    "netmask": ('netmask: "ffff::"', "network devices.default.netmask: 'ffff::' is not a netmask"),
    "mtu": ("mtu: big", "network devices.default.mtu: 'big' is not an MTU"),
    "scope": ('ipaddr6: "fe80::1%${net0/ip}"', "'fe80::1%${net0/ip}' is not an IPv6 address"),
    "argument": ("kernel: {args: [quiet, 'a ${b}']}", "kernel.args.1: 'a ${b}' holds a line break, `${`"),
    "lines": ('kernel: {version: "6.1\\nshell"}', "kernel.version: '6.1\\nshell' holds a line break"),
    "command": ("kernel: {args: [quiet, 'a ; shell']}", "kernel.args.1: 'a ; shell' holds a line break"),
    "comment": ("kernel: {args: ['#x', quiet]}", "kernel.args.0: '#x' holds a line break"),
    "misspelt key": ("hwadr: 52:54:00:00:00:01", "unknown key 'hwadr', did you mean 'hwaddr'?"),
}


@pytest.mark.parametrize("noun", ["node", "profile"])
@pytest.mark.parametrize(("line", "message"), WRONG.values(), ids=WRONG)
def test_values_are_refused_on_every_way_in(
    run: Run, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noun: str, line: str, message: str
) -> None:
    """`set` and `add` look at their flags; what an editor or a file brings is looked at as well."""
    good = "comment: as it was"
    paths.nodes_conf.write_text(f"nodeprofiles:\n  x: {{{good}}}\nnodes:\n  x: {{{good}}}\n")
    before = text(paths)
    wrong = line if line.startswith("kernel") else f"network devices: {{default: {{{line}}}}}"
    (tmp_path / "new.yaml").write_text(f"x: {{{wrong}}}\ny: {{{good}}}\n")
    (tmp_path / "edited.yaml").write_text(f"{{x: {{{wrong}}}}}\n")
    (tmp_path / "editor").write_text(f'#!/bin/sh\ncp {tmp_path}/edited.yaml "$1"\n')
    (tmp_path / "editor").chmod(0o755)
    monkeypatch.setenv("EDITOR", str(tmp_path / "editor"))
    for command in (f"{noun} import {tmp_path}/new.yaml --yes", f"{noun} edit x --yes"):
        code, _, err = run(command)
        assert (code, text(paths)) == (1, before)
        assert f"{noun} x: " in err
        assert message in err
        assert "--force" in err
    assert run(f"{noun} import {tmp_path}/new.yaml --yes --force")[0] == 0
    assert line.partition(":")[0] in text(paths)
    assert run(f"{noun} set x --comment later --yes")[0] == 0, "what was wrong before is not in the way"


CLASHES = {
    "server": ("10.5.0.1", "10.5.0.1 is this server's address"),
    "network": ("10.5.0.0", "10.5.0.0 is the address of the cluster network itself"),
    "broadcast": ("10.5.0.255", "10.5.0.255 is the broadcast address of the cluster network"),
    "BMC": ("10.5.0.3", "10.5.0.3 is the address of the BMC of node n1"),
    "gateway": ("10.5.0.2", "10.5.0.2 is also its gateway"),
    "node": ("10.5.0.50", "address 10.5.0.50 also belongs to node n1"),
    "guest": ("10.5.0.100", "10.5.0.100 is leased to 52:54:00:00:00:09 at this time"),
    "server by IPv6": ("FD00:0::1", "FD00:0::1 is this server's address"),
    "BMC by IPv6": ("fd00::0:3", "fd00::0:3 is the address of the BMC of node n0"),
    "gateway by IPv6": ("fd00:0:0::2", "fd00:0:0::2 is also its gateway"),
    "node by IPv6": ("fd00::50", "address fd00::50 also belongs to node n1"),
}


@pytest.mark.parametrize(("address", "message"), CLASHES.values(), ids=CLASHES)
def test_an_address_that_something_has_is_refused_on_every_way_in(
    run: Run, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    paths.conf.write_text("ipaddr: 10.5.0.1/24\nipaddr6: fd00::1/64\n")
    n0 = "n0: {ipmi: {ipaddr: 'FD00::3'}}"
    n1 = "n1: {ipmi: {ipaddr: 10.5.0.3}, network devices: {default: {ipaddr: 10.5.0.50, ipaddr6: 'FD00:0::50'}}}"
    n2 = "network devices: {default: {netmask: 255.255.255.0, gateway: 10.5.0.2, gateway6: 'fd00::2'"
    field = "ipaddr6" if ":" in address else "ipaddr"
    paths.nodes_conf.write_text(f"nodes:\n  {n0}\n  {n1}\n  n2: {{{n2}}}}}}}\n")
    before = text(paths)
    journal = Journal(paths.database)
    journal.load()
    journal.put(("52:54:00:00:00:09", number("10.5.0.100"), time.time() + 60, ""))
    assert journal.flush()
    wrong = f"n2: {{{n2}, {field}: '{address}'}}}}}}\n"
    (tmp_path / "new.yaml").write_text(wrong)
    (tmp_path / "editor").write_text(f'#!/bin/sh\ncp {tmp_path}/new.yaml "$1"\n')
    (tmp_path / "editor").chmod(0o755)
    monkeypatch.setenv("EDITOR", str(tmp_path / "editor"))
    set_ = f"--{field} {address} --gateway 10.5.0.2 --gateway6 fd00::2 --netmask 255.255.255.0 --yes"
    for command in (
        f"node set n2 {set_}", f"node add n3 {set_}", f"node import {tmp_path}/new.yaml --yes", "node edit n2 --yes",
    ):  # fmt: skip
        code, _, err = run(command)
        assert (code, text(paths)) == (1, before), command
        assert message in err
        assert "--force" in err
    code, _, err = run(f"node set n2 --{field} {address} --yes --force")
    assert (code, message in err) == (0, True)
    journal.close()
    assert run("node set n2 --comment later --yes")[0] == 0, "what was wrong before is not in the way"


FIRST, SECOND = "52:54:00:00:00:01", "52:54:00:00:00:02"
TAKEN = {  # what a node has, and what another one is to have
    "address": (f"--hwaddr {FIRST} --ipaddr 10.5.0.50", f"--hwaddr {SECOND} --ipaddr 10.5.0.50"),
    "address 6": ("--ipaddr6 fd00::5", "--ipaddr6 fd00::5"),
    "hardware address": (f"--hwaddr {FIRST}", f"--hwaddr {FIRST}"),
    "BMC": ("--ipmiaddr 10.5.0.50", "--ipmiaddr 10.5.0.50"),
    "node of a BMC": ("--ipmiaddr 10.5.0.50", "--ipaddr 10.5.0.50"),
    "BMC of a node": ("--ipaddr 10.5.0.50", "--ipmiaddr 10.5.0.50"),
}


@pytest.mark.parametrize(("has", "wants"), TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("later", ["n1", "n3"])
def test_an_address_is_refused_to_whoever_is_second(run: Run, paths: Paths, has: str, wants: str, later: str) -> None:
    """Before or behind the other one in nodes.conf, whose fault it is said to be; as a new node, too."""
    paths.conf.write_text("ipaddr: 10.5.0.1\nnetmask: 255.255.255.0\nnetwork: 10.5.0.0\n")
    paths.nodes_conf.write_text(f"nodes:\n  {later}: {{}}\n" if later == "n1" else "nodes: {}\n")
    assert run(f"node add n2 {has} --yes")[0] == 0
    before = text(paths)
    code, _, err = run(f"node {'set' if later == 'n1' else 'add'} {later} {wants} --yes")
    assert (code, text(paths)) == (1, before)
    assert "n2" in err
    assert later in err
    assert run(f"node add n0 {wants} --yes")[0] == 1
    assert run(f"node set {later if later == 'n1' else 'n2'} --comment later --yes")[0] == 0


def guest(paths: Paths) -> None:
    """A node without addresses, and a stranger to whom 10.5.0.100 is leased."""
    paths.conf.write_text("ipaddr: 10.5.0.1\nnetmask: 255.255.255.0\nnetwork: 10.5.0.0\n")
    paths.nodes_conf.write_text("nodes:\n  n1: {}\n")
    journal = Journal(paths.database)
    journal.load()
    journal.put(("52:54:00:00:00:09", number("10.5.0.100"), time.time() + 60, ""))
    assert journal.flush()
    journal.close()


def test_a_bmc_gets_no_address_that_a_guest_has(run: Run, paths: Paths) -> None:
    guest(paths)
    told = "10.5.0.100 is leased to 52:54:00:00:00:09 at this time, and is to be its BMC's"
    assert told in run("node set n1 --ipmiaddr 10.5.0.100 --yes")[2]
    assert text(paths) == "nodes:\n  n1: {}\n"
    assert run("node set n1 --ipmiaddr 10.5.0.100 --yes --force")[0] == 0
    said = run("doctor n1")[1]
    assert told in said
    assert "wwfast node set n1 --ipmiaddr ADDRESS" in said


def test_an_address_that_its_own_machine_was_leased_is_no_clash(run: Run, paths: Paths) -> None:
    """Somebody boots a new machine as a guest, and then makes it a node where it is."""
    guest(paths)
    assert run("node set n1 --hwaddr 52:54:00:00:00:09 --ipaddr 10.5.0.100 --yes")[0] == 0


def test_a_primary_network_that_names_no_device_is_refused_when_written_and_told_by_doctor(
    run: Run, paths: Paths
) -> None:
    """Whether it is named, or a device is taken from under it, or a profile does it."""
    nodes = "  n1: {primary network: eth, network devices: {eth: {}, ib: {}}}\n  n2: {profiles: [p]}\n"
    paths.nodes_conf.write_text(f"nodeprofiles:\n  p: {{network devices: {{eth: {{}}}}}}\nnodes:\n{nodes}")
    before = text(paths)
    for command in ("node set n1 --primarynet et", "node unset n1 --netname eth", "profile set p --primarynet et"):
        code, _, err = run(f"{command} --yes")
        assert (code, text(paths)) == (1, before), command
        assert "is none of its network devices, and it boots from" in err
    assert run("node set n1 --primarynet ib --yes")[0] == 0
    assert run("node set n1 --primarynet et --yes --force")[0] == 0
    assert run("node set n1 --comment later --yes")[0] == 0, "what was wrong before is not in the way"
    [problem] = Registry(paths).snapshot().problems
    assert str(problem) == "node n1: primary network 'et' is none of its network devices, and it boots from eth"
    assert problem.message in run("doctor n1")[1]


NULLS = "nodeprofiles:\n  p:\n  q: ~\nnodes:\n  n1: {}\n  n2:\n  n3: ~  # third\n  n4: null\n"


@pytest.mark.parametrize(
    ("noun", "name"), [*(("node", f"n{n}") for n in (1, 2, 3, 4)), *(("profile", n) for n in "pq")]
)
def test_an_entry_without_a_body_is_deleted_filled_exported_and_left_alone(
    run: Run, paths: Paths, noun: str, name: str
) -> None:
    paths.nodes_conf.write_text(NULLS)
    line = next(line for line in NULLS.splitlines(keepends=True) if f" {name}:" in line)
    assert run(f"{noun} unset {name} --comment --yes")[:2] == (0, "no changes\n")
    assert run(f"{noun} export {name}")[1].startswith(f"{name}:")
    assert text(paths) == NULLS
    assert run(f"{noun} set {name} --comment x --yes")[0] == 0
    assert f"  {name}:" in text(paths)
    assert "    comment: x\n" in text(paths)
    assert run("undo --yes")[0] == 0
    assert "deleted" in run(f"{noun} delete {name} --yes")[1]
    assert text(paths) == NULLS.replace(line, "")


LATIN = "nodes:\n  n1:\n    comment: x\n    init: gr\xfcn\n"
ENCODINGS = {
    "UTF-16": (LATIN.encode("utf-16"), ":1:1: is UTF-16, not UTF-8", "iconv -f UTF-16 "),
    "UTF-16 big end first": (b"\xfe\xff" + LATIN.encode("utf-16-be"), ":1:1: is UTF-16", "iconv -f UTF-16"),
    "UTF-32": (LATIN.encode("utf-32"), ":1:1: is UTF-32, not UTF-8", "iconv -f UTF-32 "),
    "UTF-32 big end first": (b"\0\0\xfe\xff" + LATIN.encode("utf-32-be"), ":1:1: is UTF-32", "iconv -f UTF-32 "),
    "UTF-16 without a mark": (LATIN.encode("utf-16-le"), ":1:2: a zero byte", "file "),
    "Latin-1": (LATIN.encode("latin-1"), ":4:13: byte 0xfc is not UTF-8", "iconv -f ISO-8859-1"),
    "Latin-1 in a comment": (b"# gr\xfcn\nnodes:\n  n1: {}\n", ":1:5: byte 0xfc is not UTF-8", "iconv -f ISO-8859-1"),
    "a control character": (
        b"nodes:\n  n1: {}\n  n2:\n    comment: a\x01b\n",
        ":4:15: the character '\\x01' is no",
        "sed -n l",
    ),
    "one of C1": ("nodes:\n  n1: {comment: a\x80}\n".encode(), ":2:18: the character '\\x80' is no text", "sed -n l"),
    "no character at all": ("nodes:\n  n1: {comment: a\ufffe}\n".encode(), ":2:18: the character '\\ufffe'", "sed"),
    "a cut letter": ("nodes:\n  n1: {comment: grün".encode()[:-2], ":2:19: byte 0xc3 is not UTF-8", "iconv"),
    "a zero byte": (b"nodes:\n  n1: {}\n\0\0", ":3:1: a zero byte", "file "),
}


@pytest.mark.parametrize(("data", "message", "hint"), ENCODINGS.values(), ids=ENCODINGS)
def test_other_encodings_are_refused_where_they_are_on_every_way_in(
    run: Run, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str, hint: str
) -> None:
    paths.nodes_conf.write_bytes(data)
    for command in ("node list", "node set n1 --comment y --yes", "node delete n1 --yes", "node export", "undo --list"):
        status, _, err = run(command)
        if command != "undo --list":
            assert (status, f"{paths.nodes_conf}{message}" in err, hint in err) == (1, True, True), err
    assert paths.nodes_conf.read_bytes() == data
    paths.nodes_conf.write_text(BASE)
    (tmp_path / "new.yaml").write_bytes(data)
    (tmp_path / "editor").write_text(f'#!/bin/sh\ncp {tmp_path}/new.yaml "$1"\n')
    (tmp_path / "editor").chmod(0o755)
    monkeypatch.setenv("EDITOR", str(tmp_path / "editor"))
    for command in (f"node import {tmp_path}/new.yaml --yes", "node edit n1 --yes"):
        status, _, err = run(command)
        assert (status, message in err, hint in err) == (1, True, True), err
    assert text(paths) == BASE
    paths.conf.write_bytes(data)
    status, _, err = run("config show")
    assert (status, f"{paths.conf}{message}" in err) == (1, True)


@pytest.mark.parametrize("form", ["bom", "crlf", "unended"])
def test_other_forms_of_utf8_are_read_and_edited(run: Run, paths: Paths, form: str) -> None:
    plain = "nodes:\n  n1:\n    comment: grün\n"
    made = {"bom": "\ufeff" + plain, "crlf": plain.replace("\n", "\r\n"), "unended": plain.rstrip("\n")}[form]
    paths.nodes_conf.write_bytes(made.encode())
    assert run("node set n1 --init /init --yes")[0] == 0
    assert "Init" in run("node list -a n1")[1]
    assert "grün" in run("node list -a n1")[1]


TEXTS = {
    "an unknown key": ("x:\n  comment: a\n  foo: b\n", ":3: node x: unknown key 'foo'"),
    "a misspelt key": (
        "x:\n  network devices:\n    d:\n      hwadr: 1\n",
        ":4: node x: network devices.d: unknown key 'hwadr'",
    ),
    "a list as text": ("x:\n\n  kernel:\n    args: quiet\n", ":4: node x: kernel.args: must be a list, not 'quiet'"),
    "a map as text": ("x:\n  ipmi: admin\n", ":2: node x: ipmi: must be a map of keys, not 'admin'"),
    "a value as a map": ("x:\n  init: {a: b}\n", ":2: node x: init: must be a single value, not a map"),
    "an item as a map": ("x:\n  profiles:\n  - p\n  - a: b\n", ":4: node x: profiles.1: must be a single value"),
    "an entry as text": ("y: {}\nx: oops\n", ":2: node x: must be a map of keys, not 'oops'"),
    "entries as a list": ("- x\n", ":1: must be a map of nodes by name, not a list"),
    "an id that is a path": ("a/b: {}\n", ":1: node 'a/b' cannot be a name"),
    "an id that is an address": ("10.0.0.9: {}\n", ":1: node '10.0.0.9' cannot be a node"),
    "a key twice": ("x:\n  comment: a\n  comment: b\n", ":3:3: duplicate key 'comment'"),
    "an entry twice": ("x: {}\nx: {}\n", ":2:1: duplicate key 'x'"),
    "a whole nodes.conf": ("nodes:\n  x: {}\n", ": this is a whole nodes.conf, not a map of nodes"),
    "two documents": ("x: {}\n---\ny: {}\n", ":2:1: more than one document in the file"),
    "aliases of aliases": (
        "a: &a ["
        + "x," * 9
        + "]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
        "aliases stand for more than 1000000 values",
    ),
}


@pytest.mark.parametrize(("wrong", "message"), TEXTS.values(), ids=TEXTS)
def test_a_text_of_nodes_is_refused_where_it_is_wrong_and_nothing_of_it_is_written(
    run: Run, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, message: str
) -> None:
    paths.nodes_conf.write_text(BASE)
    (tmp_path / "new.yaml").write_text("good:\n  comment: x\n" * (wrong[:2] in ("x:", "y:")) + wrong)
    lines = 2 * (wrong[:2] in ("x:", "y:"))
    message = re.sub("^:([0-9]+)", lambda line: f":{int(line[1]) + lines}", message)
    monkeypatch.setenv("EDITOR", f"cp {tmp_path}/new.yaml")
    for command in (f"node import {tmp_path}/new.yaml --yes", "node edit n1 --yes"):
        status, _, err = run(command)
        assert (status, message in err) == (1, True), err
        assert text(paths) == BASE


EDITORS = {
    "an open quote": ("vi 'x", 2, "EDITOR is no command: vi 'x: No closing quotation"),
    "a program that is not there": ("/nowhere/vi", 1, "/nowhere/vi"),
    "a file that is no program": ("/etc/passwd", 1, "/etc/passwd: Permission denied"),
    "one that fails": ("false", 1, "false failed with exit status 1; nothing was changed"),
    "one that removes the file": ("rm", 1, "rm left no file where edit.yaml was; nothing was changed"),
    "one that makes a directory": ("sh -c 'rm $0; mkdir $0'", 1, "sh left no file where edit.yaml was"),
    "one that makes a pipe": ("sh -c 'rm $0; mkfifo $0'", 1, "sh left no file where edit.yaml was"),
}


@pytest.mark.parametrize("editor", EDITORS)
def test_an_editor_that_cannot_be_one_is_named(
    run: Run, paths: Paths, monkeypatch: pytest.MonkeyPatch, editor: str
) -> None:
    command, status, told = EDITORS[editor]
    monkeypatch.setenv("EDITOR", command)
    paths.nodes_conf.write_text(BASE)
    found, _, err = run("node edit n1 --yes")
    assert (found, told in err, text(paths)) == (status, True, BASE), err
    assert list(paths.run.glob("*")) == []


def test_an_editor_that_leaves_nothing_deletes_nothing(run: Run, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.nodes_conf.write_text(BASE)
    monkeypatch.setenv("EDITOR", "cp /dev/null")
    status, _, err = run("node edit --yes")
    assert (status, "nothing is left of 2 nodes" in err, "wwfast node delete" in err) == (1, True, True)
    assert text(paths) == BASE


def test_an_empty_root_is_not_this_server(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--root", "--warewulfconf"):
        with pytest.raises(SystemExit) as caught:
            main([option, "", "node", "list"])
        assert (caught.value.code, f"{option} is given, but empty" in capsys.readouterr().err) == (2, True)


LIST = """\
nodeprofiles:
  p:
    comment: for all
    image name: rocky
    kernel:
      args: [quiet]
    network devices:
      default: {netmask: 255.255.255.0, gateway: 10.0.0.254}
nodes:
  b1:
    profiles: [p]
    tags: {rack: r1}
    kernel: {args: [~quiet, ro], version: 6.1}
    network devices:
      default: {hwaddr: 52:54:00:00:00:01, ipaddr: 10.0.0.1, gateway: 10.0.0.253, device: eth0}
  a2:
    cluster name: z
    ipmi: {ipaddr: 10.1.0.2, username: root, password: "100%d"}
"""
LISTS = {
    "node list": """\
NODE NAME  PROFILES  NETWORK
---------  --------  -------
a2         --        --
b1         p         default
""",
    "node list -l b1": """\
NODE NAME  KERNEL VERSION  IMAGE  OVERLAYS (S/R)
---------  --------------  -----  --------------
b1         6.1             rocky  /
""",
    "node ls -n": """\
NODE  NETWORK  HWADDR             IPADDR    GATEWAY     DEVICE
----  -------  ------             ------    -------     ------
a2    --       --                 --        --          --
b1    default  52:54:00:00:00:01  10.0.0.1  10.0.0.253  eth0
""",
    "node list -i a2": """\
NODE  IPMI IPADDR  IPMI PORT  IPMI USERNAME  IPMI INTERFACE
----  -----------  ---------  -------------  --------------
a2    10.1.0.2     --         root           --
""",
    "node list -k b*": """\
NODE  KERNEL OVERRIDE  KERNEL VERSION  KERNEL ARGS
----  ---------------  --------------  -----------
b1    --               6.1             ro
""",
    "node list -a b1": """\
NODE  FIELD                     PROFILE     VALUE
----  -----                     -------     -----
b1    Profiles                  --          p
b1    ImageName                 p           rocky
b1    Kernel.Version            --          6.1
b1    Kernel.Args               p,b1        quiet,~quiet,ro
b1    NetDevs[default].Device   --          eth0
b1    NetDevs[default].Hwaddr   --          52:54:00:00:00:01
b1    NetDevs[default].Ipaddr   --          10.0.0.1
b1    NetDevs[default].Netmask  p           255.255.255.0
b1    NetDevs[default].Gateway  SUPERSEDED  10.0.0.253
b1    Tags[rack]                --          r1
b1    PrimaryNetDev             --          default
""",
    "node list -y a2": """\
a2:
  cluster name: z
  ipmi:
    username: root
    password: 100%d
    ipaddr: 10.1.0.2
""",
    "node list -j a2": """\
{
  "a2": {
    "cluster name": "z",
    "ipmi": {
      "username": "root",
      "password": "100%d",
      "ipaddr": "10.1.0.2"
    }
  }
}
""",
    "node list --image nowhere": """\
NODE NAME  PROFILES  NETWORK
---------  --------  -------
""",
    "profile list": """\
PROFILE NAME  COMMENT/DESCRIPTION
------------  -------------------
p             for all
""",
}


@pytest.mark.parametrize(("command", "expected"), LISTS.items(), ids=LISTS.keys())
def test_node_lists(run: Run, paths: Paths, command: str, expected: str) -> None:
    paths.nodes_conf.write_text(LIST)
    assert run(command) == (0, expected, "")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("--image rocky", "b1"),
        ("--profile p", "b1"),
        ("--cluster z", "a2"),
        ("--tag rack", "b1"),
        ("--tag rack=r2", ""),
        ("*[1-2]", "a2 b1"),
        ("?2", "a2"),
        ("b1 a2", "a2 b1"),
    ],
)
def test_node_list_filters(run: Run, paths: Paths, options: str, names: str) -> None:
    paths.nodes_conf.write_text(LIST)
    out = run(f"node list {options}")[1]
    assert [line.split()[0] for line in out.splitlines()[2:]] == names.split()


def test_node_list_kept_is_never_wrong_and_may_be_deleted(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(LIST)
    first = run("node list")
    kept = paths.cache / "registry/short.msgpack"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert run("node list") == first
    paths.nodes_conf.write_text(LIST.replace("b1:", "c1:"))
    assert "c1" in run("node list")[1]
    for damage in (b"", b"\x00junk", kept.read_bytes()[:-3]):
        kept.write_bytes(damage)
        paths.nodes_conf.write_text(LIST)
        assert run("node list") == first
    kept.unlink()
    assert run("node list") == first


def test_node_list_names_the_bad_one_and_lists_the_others(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(LIST.replace("10.1.0.2", "10.1.0"))
    for _ in range(2):  # read, then kept
        status, out, err = run("node list")
        assert (status, out.splitlines()[-1].split()[0]) == (0, "b1")
        assert err == f"error: node a2: {paths.nodes_conf}:18: ipmi.ipaddr: '10.1.0' is not an IP address\n"


def test_malformed_yaml_names_file_line_and_column(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text("nodes:\n  n1:\n    comment: 'x\n")
    status, _, err = run("node list")
    assert status == 1
    assert err.startswith(f"error: {paths.nodes_conf}:4:1: found unexpected end of stream")


def test_unknown_keys_are_named_with_a_guess_and_kept(run: Run, paths: Paths) -> None:
    """W-4: there they vanish silently with the next write."""
    paths.nodes_conf.write_text("nodes:\n  n1:\n    commnet: x   # mine\n    WW_INTERNAL: 45\n")
    err = run("node list n1")[2]
    assert f"{paths.nodes_conf}:3: unknown key 'commnet', did you mean 'comment'?" in err
    run("node set n1 --init /init --yes")
    assert text(paths) == "nodes:\n  n1:\n    commnet: x   # mine\n    WW_INTERNAL: 45\n    init: /init\n"


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            child = command.get_command(context, each)
            assert child is not None
            if child.hidden:
                continue
            yield from commands(child, f"{name} {each}")


def test_cli_help_of_each_command_has_an_example() -> None:
    missing = [name for name, command in commands(cli, "wwfast") if "Example: wwfast" not in (command.epilog or "")]
    assert missing == []


def test_a_line_break_in_a_value_is_none_of_the_table(paths: Paths, run: Run) -> None:
    paths.nodes_conf.write_text('nodes:\n  n1:\n    tags: {nl: "a\\nb"}\n')
    status, out, _ = run("node", "list", "-a", "n1")
    assert (status, len([line for line in out.splitlines() if "a\\nb" in line])) == (0, 1)
    assert not [line for line in out.splitlines() if line == "b"]
