"""wwfast configure: files of the server itself, written, kept and taken back, below a root of the test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from support.commands import Run, runner
from wwfast.paths import SHARE, Paths

CONF = """\
ipaddr: 10.0.0.1
netmask: 255.255.255.0
fqdn: head.example.org
nfs:
  export paths:
  - path: /home
"""
NODES = """\
nodes:
  n1:
    network devices:
      default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.2}
"""


@pytest.fixture
def run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Run:
    paths.conf.write_text(CONF)
    paths.nodes_conf.write_text(NODES)
    (paths.root / "etc/hosts").write_text("127.0.0.1 localhost\n")

    call = runner(paths, capsys)
    return lambda line: call(*line.split())


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a directory, but for our own state."""
    return {
        str(each.relative_to(root)): each.read_bytes()
        for each in sorted(root.rglob("*"))
        if each.is_file() and not str(each.relative_to(root)).startswith(("var/", "run/"))
    }


def hosts(paths: Paths) -> str:
    return (paths.root / "etc/hosts").read_text()


def test_configure_hostfile_keeps_own_lines_and_follows_the_nodes(paths: Paths, run: Run) -> None:
    status, out, _ = run("configure hostfile")
    assert status == 0
    assert "+10.0.0.2 n1 n1-default" in out, "the first time the difference is shown"
    head, marker, nodes = hosts(paths).partition("# Do not edit after this line\n")
    assert head == "127.0.0.1 localhost\n\n"
    assert marker
    assert nodes.splitlines()[-1] == "10.0.0.2 n1 n1-default"
    assert run("configure hostfile")[1].endswith("is as it should be\n")
    (paths.root / "etc/hosts").write_text("10.9.9.9 mine\n" + hosts(paths))
    paths.nodes_conf.write_text(NODES.replace("10.0.0.2", "10.0.0.3"))
    assert run("configure hostfile")[0] == 0
    assert hosts(paths).startswith("10.9.9.9 mine\n127.0.0.1 localhost\n")
    assert hosts(paths).endswith("10.0.0.3 n1 n1-default\n")


def test_configure_writes_whatever_else_the_overlay_of_a_site_holds(paths: Paths, run: Run, tmp_path: Path) -> None:
    """Plain files, templates of both kinds; once, and away again with undo. Links are named."""
    overlay = paths.site_overlays / "host/rootfs/etc"
    shutil.copytree(SHARE / "overlays/host/rootfs/etc", overlay)
    (overlay / "genders").write_text("n1 compute\n")
    (overlay / "list.j2").write_text("{% for node in all_nodes if node.network_devices %}{{ node.id }}\n{% endfor %}")
    (overlay / "go.ww").write_text("{{ range .AllNodes }}{{ if .NetDevs }}{{ .Id }}{{ end }}{{ end }}\n")
    (overlay / "link").symlink_to("genders")
    before = tree(paths.root)
    for command in ("configure hostfile", "configure --all"):
        _, _, err = run(command)
        assert "/etc/link of the overlay host is no file, and is not written" in err
        etc = paths.root / "etc"
        found = [(etc / name).read_text() for name in ("genders", "list", "go")]
        assert found == ["n1 compute\n", "n1\n", "n1\n"]
        assert not (etc / "link").exists()
        assert not (etc / "dnsmasq.d").exists(), "it is of a verb that has nothing to do here"
    assert run("configure undo")[0] == 0
    assert {
        name: text for name, text in tree(paths.root).items() if "keys" not in name and ".ssh" not in name
    } == before
    paths.conf.write_text(CONF + "warewulf: {host overlay: false}\n")
    assert run("configure hostfile")[0] == 0
    assert not (paths.root / "etc/genders").exists()


def test_configure_says_when_the_overlay_of_a_site_lacks_what_a_verb_writes(paths: Paths, run: Run) -> None:
    (paths.site_overlays / "host/rootfs/etc").mkdir(parents=True)
    status, out, err = run("configure hostfile")
    assert (status, out) == (0, "")
    assert err == "warning: hostfile: the overlay host of this site has no etc/hosts, so nothing is written\n"


def test_configure_does_not_overwrite_what_others_wrote(paths: Paths, run: Run) -> None:
    assert run("configure nfs")[0] == 0
    exports = paths.root / "etc/exports"
    exports.write_text(exports.read_text() + "/scratch *(ro)\n")
    status, _, err = run("configure nfs")
    assert status == 1
    assert "/scratch *(ro)" in err
    assert "--force" in err
    assert "/scratch" in exports.read_text()
    assert run("configure nfs --force")[0] == 0
    assert exports.read_text() == "/home 10.0.0.0/24(rw,sync,no_subtree_check)\n"


@pytest.mark.parametrize("option", ["--dry-run", "--show"])
def test_configure_writes_nothing_when_it_only_tells(paths: Paths, run: Run, option: str) -> None:
    before = tree(paths.root)
    status, out, _ = run(f"configure --all {option}")
    assert status == 0
    assert "10.0.0.2 n1 n1-default" in out
    assert "/home 10.0.0.0/24" in out
    assert tree(paths.root) == before


def test_configure_undo_leaves_the_server_as_it_was(paths: Paths, run: Run) -> None:
    (paths.root / "etc/exports").write_text("/old *(ro)\n")
    (paths.root / "etc/exports").chmod(0o640)
    before = tree(paths.root)
    status, out, _ = run("configure all")
    assert status == 0
    assert "systemd does not run here: start wwfast yourself" in out
    changed = tree(paths.root)
    assert "etc/systemd/system/wwfast.service" in changed
    assert run("configure all")[0] == 0, "again, and nothing changes"
    assert tree(paths.root) == changed
    assert run("configure undo")[0] == 0
    left = {name: data for name, data in tree(paths.root).items() if "ssh" not in name}
    assert left == before, "keys stay: nodes may have them"
    assert (paths.root / "etc/exports").stat().st_mode & 0o777 == 0o640
    assert run("configure undo")[1] == ""


def test_configure_undo_asks_before_it_loses_what_others_wrote(paths: Paths, run: Run) -> None:
    assert run("configure hostfile")[0] == 0
    place = paths.root / "etc/hosts"
    place.write_text(place.read_text() + "10.9.9.9 late\n")
    assert run("configure undo")[0] == 1
    assert "late" in place.read_text()
    assert run(f"configure undo {place} --force")[0] == 0
    assert place.read_text() == "127.0.0.1 localhost\n"
    status, _, err = run(f"configure undo {place}")
    assert status == 1
    assert "was not written by us" in err


@pytest.mark.parametrize(
    ("unit", "file", "check"),
    [
        ("dhcpd", "etc/dhcp/dhcpd.conf", ["dhcpd", "-t", "-cf"]),
        ("dnsmasq", "etc/dnsmasq.d/wwfast.conf", ["dnsmasq", "--test", "-C"]),
        ("kea-dhcp4-server", "etc/kea/kea-dhcp4.conf", ["kea-dhcp4", "-t"]),
    ],
)
def test_configure_dhcp_where_it_is_not_ours(paths: Paths, run: Run, unit: str, file: str, check: list[str]) -> None:
    assert run("configure dhcp")[1].startswith("dhcp: nothing to do, it is in the server")
    paths.conf.write_text(f"{CONF}dhcp:\n  enabled: false\n  systemd name: {unit}\n")
    status, out, _ = run("configure dhcp")
    assert status == 0
    assert f"start {unit} yourself" in out
    written = sorted(name for name in tree(paths.root) if "dhcp" in name or "dnsmasq" in name or "kea" in name)
    assert written == [file]
    assert "52:54:00:00:00:01" in (paths.root / file).read_text()
    if shutil.which(check[0], path="/usr/sbin:/usr/bin"):  # dhcpd and Kea are no packages of the tests
        subprocess.run([*check, paths.root / file], check=True, capture_output=True)


@pytest.mark.parametrize("more", ["", "tftp: {ipxe: {'00:00': own.kpxe}}\n", "ipaddr6: 'fd00::1/64'\n"])
def test_configure_dhcp_for_kea_has_each_address_once_and_of_its_network(paths: Paths, run: Run, more: str) -> None:
    """Kea refuses the whole file for one that is there twice, or is not of its subnet."""
    paths.nodes_conf.write_text(
        """
nodes:
  n1:
    network devices:
      default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.2}
      spare: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.3}
  n2:
    network devices:
      default: {hwaddr: "52-54-00-00-00-0A", ipaddr: 10.0.0.2}
      other: {hwaddr: "52:54:00:00:00:0b", ipaddr: 10.7.0.12}
      ib: {hwaddr: "a0:00:02:20:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:0b:0c", ipaddr: 10.0.0.4}
  n3: {network devices: {default: {hwaddr: "52:54:00:00:00:0c", ipaddr: 10.0.0.5}}}
"""
    )
    paths.conf.write_text(
        "ipaddr: 10.0.0.1/24\ndhcp: {enabled: false, systemd name: kea-dhcp4-server, range start: 10.0.0.100, "
        f"range end: 10.0.0.199}}\n{more}"
    )
    assert run("configure dhcp")[0] == 0
    server = json.loads((paths.root / "etc/kea/kea-dhcp4.conf").read_text())["Dhcp4"]
    (subnet,) = server["subnet4"]
    assert subnet["subnet"] == "10.0.0.0/24"
    assert subnet["pools"] == [{"pool": "10.0.0.100 - 10.0.0.199"}]
    assert [each["ip-address"] for each in subnet["reservations"]] == ["10.0.0.2", "10.0.0.5"]
    assert subnet["reservations"][0] == {"hw-address": "52:54:00:00:00:01", "ip-address": "10.0.0.2", "hostname": "n1"}
    assert server["client-classes"][0]["name"] == "ipxe", "the others ask for it"
    binaries = {each["name"]: each["boot-file-name"] for each in server["client-classes"]}
    assert binaries["arch-0000"] == ("warewulf/own.kpxe" if "own" in more else "warewulf/undionly.kpxe")
    paths.conf.write_text("dhcp: {enabled: false, systemd name: kea-dhcp4-server}\n")
    assert run("configure dhcp")[0] == 0
    assert json.loads((paths.root / "etc/kea/kea-dhcp4.conf").read_text())["Dhcp4"]["subnet4"] == []


def test_configure_nfs_writes_paths_as_exports_has_them(paths: Paths, run: Run) -> None:
    """exports(5): a blank ends a path and `#` begins a comment."""
    words = ["/srv/a b", '/x"y', "/p#q", "/back\\slash"]
    paths.conf.write_text(
        json.dumps({"ipaddr": "10.0.0.1/24", "nfs": {"export paths": [{"path": each} for each in words]}})
    )
    assert run("configure nfs")[0] == 0
    lines = (paths.root / "etc/exports").read_text().splitlines()
    escaped = ["/srv/a\\040b", "/x\\042y", "/p\\043q", "/back\\134slash"]
    assert lines == [f"{each} 10.0.0.0/24(rw,sync,no_subtree_check)" for each in escaped]


def test_configure_nfs_without_exports_leaves_those_of_the_site(paths: Paths, run: Run) -> None:
    exports = paths.root / "etc/exports"
    exports.write_text("/site *(ro)\n")
    paths.conf.write_text("ipaddr: 10.0.0.1\nnetmask: 255.255.255.0\n")
    for words in ("configure nfs", "configure all"):
        assert "nothing to export" in run(words)[1]
        assert exports.read_text() == "/site *(ro)\n"
    paths.conf.write_text(CONF)
    assert run("configure nfs")[0] == 0
    paths.conf.write_text("ipaddr: 10.0.0.1\nnetmask: 255.255.255.0\n")
    assert run("configure nfs")[0] == 0
    assert exports.read_text() == "", "what was exported by us no longer is"


def test_configure_keeps_to_what_warewulf_conf_says(paths: Paths, run: Run) -> None:
    paths.conf.write_text("ipaddr: 10.0.0.1\nwarewulf: {host overlay: false}\nnfs: {enabled: false}\n")
    before = tree(paths.root)
    assert "`nfs: enabled: false`" in run("configure nfs")[1]
    assert "`warewulf: host overlay: false`" in run("configure ssh --dry-run")[1]
    assert tree(paths.root) == before
    assert run("configure hostfile")[0] == 0, "asked for by name, as in Warewulf"
    assert "n1-default" in hosts(paths)


def test_configure_follows_links_below_the_root_only(paths: Paths, run: Run, tmp_path: Path) -> None:
    place = paths.root / "etc/hosts"
    place.rename(paths.root / "etc/hosts.real")
    place.symlink_to("/etc/hosts.real")
    assert run("configure hostfile")[0] == 0
    assert place.is_symlink()
    assert "n1-default" in (paths.root / "etc/hosts.real").read_text()


def test_configure_says_where_options_belong(run: Run) -> None:
    status, _, err = run("configure --dry-run hostfile")
    assert status == 2
    assert "after the verb" in err
    status, out, _ = run("configure")
    assert status == 0
    assert "hostfile" in out


def test_configure_renders_for_a_server_without_nodes(paths: Paths, run: Run) -> None:
    paths.nodes_conf.unlink()
    assert run("configure hostfile")[0] == 0
    assert hosts(paths).splitlines()[-1].startswith("10.0.0.1 ")


def openssl(*words: object) -> str:
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, text=True).stdout


def test_configure_tls_makes_keeps_imports_and_exports(paths: Paths, run: Run, tmp_path: Path) -> None:
    status, out, _ = run("configure tls")
    assert status == 0
    for name in ("IP Address:10.0.0.1", "DNS:head.example.org", "DNS:warewulf"):
        assert name in out
    pair = {each.name: each.read_bytes() for each in (paths.etc / "tls").iterdir()}
    assert {each.name: each.stat().st_mode & 0o777 for each in (paths.etc / "tls").iterdir()} == {
        "warewulf.key": 0o600,
        "warewulf.crt": 0o644,
    }
    assert "stays" in run("configure keys")[1]
    assert run(f"configure cert --export {tmp_path}/out")[0] == 0
    assert {each.name: each.read_bytes() for each in (tmp_path / "out").iterdir()} == pair
    openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=x",
        "-keyout",
        tmp_path / "k",
        "-out",
        tmp_path / "c",
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in/warewulf.key").write_bytes((tmp_path / "k").read_bytes())
    (tmp_path / "in/warewulf.crt").write_bytes(pair["warewulf.crt"])
    status, _, err = run(f"configure tls --import {tmp_path}/in")
    assert status == 1
    assert "is not the certificate of" in err
    assert (paths.etc / "tls/warewulf.key").read_bytes() == pair["warewulf.key"]
    (tmp_path / "in/warewulf.crt").write_bytes((tmp_path / "c").read_bytes())
    assert run(f"configure tls --import {tmp_path}/in")[0] == 0
    assert (paths.etc / "tls/warewulf.key").read_bytes() == (tmp_path / "k").read_bytes()
    status, _, err = run(f"configure tls --import {tmp_path}/nowhere")
    assert (status, "there is no" in err) == (1, True)


def test_configure_renders_the_overlay_that_is_used(paths: Paths, run: Run) -> None:
    """The site's `host` of an older Warewulf, where Go templates are ignored or it is left aside by name."""
    theirs = paths.warewulf_overlays / "host/rootfs/etc"
    theirs.mkdir(parents=True)
    (theirs / "hosts.ww").write_text("{{ range .AllNodes }}{{ .Id.Get }}{{ end }}\n")
    assert run("configure hostfile")[0] == 1
    for setting in ("ignore go templates: true", "overlays aside: [host]"):
        paths.conf.write_text(f"{CONF}wwfast: {{{setting}}}\n")
        status, out, _ = run("configure hostfile --show")
        assert status == 0
        assert out.endswith("10.0.0.2 n1 n1-default\n")


def test_configure_keytypes_that_are_none_are_a_fault_of_the_command_line(run: Run) -> None:
    status, said = run("configure ssh -t nope")[:2]
    assert status == 2, said
