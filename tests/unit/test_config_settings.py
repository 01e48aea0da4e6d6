"""warewulf.conf: defaults, derivations, what is refused and what is only warned about."""

from __future__ import annotations

import pytest

from wwfast.config import settings
from wwfast.config.settings import Settings, parse
from wwfast.errors import ConfigError
from wwfast.paths import Paths


def load(paths: Paths, text: str) -> Settings:
    paths.conf.write_text(text)
    return settings.load(paths)


def test_config_defaults(paths: Paths) -> None:
    found = settings.load(paths)
    assert (found.warewulf.port, found.warewulf.secure, found.warewulf.update_interval) == (9873, True, 60)
    assert found.tftp.ipxe["00:0B"] == "arm64-efi/snponly.efi"
    assert found.api.allowed_subnets == ["127.0.0.0/8", "::1/128"]
    assert found.ssh.key_types == ["ed25519", "ecdsa", "rsa"]
    assert [(each.source, each.dest) for each in found.image_mounts] == [("/etc/resolv.conf", "/etc/resolv.conf")]
    assert not found.is_written("ipaddr")
    assert found.locations == paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ipaddr: 10.0.0.1/22", ("10.0.0.1", "255.255.252.0", "10.0.0.0", "10.0.0.0/22", "10.0.0.1/22")),
        (
            "ipaddr: 10.0.9.1\nnetmask: 255.255.0.0",
            ("10.0.9.1", "255.255.0.0", "10.0.0.0", "10.0.0.0/16", "10.0.9.1/16"),
        ),
        (
            "ipaddr: 10.0.0.1/24\nnetmask: 255.255.0.0\nnetwork: 10.1.0.0",
            ("10.0.0.1", "255.255.0.0", "10.1.0.0", "10.1.0.0/16", "10.0.0.1/16"),
        ),
        ("ipaddr: 10.0.0.1", ("10.0.0.1", "", "", "", "")),
        ("{}", ("", "", "", "", "")),
    ],
)
def test_config_ipv4_derivations(paths: Paths, text: str, expected: tuple[str, ...]) -> None:
    found = load(paths, text)
    assert (found.ipaddr, found.netmask, found.network, found.network_cidr, found.ip_cidr) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ipaddr6: fd00:0::1/64", ("fd00::1", "64", "fd00::1/64", "fd00::/64", "fd00::")),
        ("ipaddr6: fd00::1/64\nprefixlen6: 48", ("fd00::1", "64", "fd00::1/64", "fd00::/64", "fd00::")),
        ("ipaddr6: fd00:1::1\nprefixlen6: 32", ("fd00:1::1", "32", "fd00:1::1/32", "fd00:1::/32", "fd00:1::")),
        ("ipaddr6: fd00::1", ("fd00::1", "", "", "", "")),
    ],
)
def test_config_ipv6_derivations(paths: Paths, text: str, expected: tuple[str, ...]) -> None:
    found = load(paths, text)
    assert (found.ipaddr6, found.prefixlen6, found.ip_cidr6, found.network_cidr6, found.network6) == expected


def test_config_lists_and_the_ipxe_map_replace_the_defaults(paths: Paths) -> None:
    found = load(paths, "tftp:\n  ipxe:\n    00:0B: x.efi\nimage mounts:\n- source: /a\nssh:\n  key types: [rsa]\n")
    assert found.tftp.ipxe == {"00:0B": "x.efi"}
    assert [(each.source, each.dest) for each in found.image_mounts] == [("/a", "")]
    assert found.ssh.key_types == ["rsa"]
    assert len(load(paths, "tftp:\n  ipxe: {}\n").tftp.ipxe) == 4


def test_config_an_empty_section_keeps_its_defaults(paths: Paths) -> None:
    """W-30: there it crashes later."""
    found = load(paths, "dhcp:\nwarewulf: ~\n")
    assert found.dhcp.enabled
    assert found.warewulf.port == 9873


def test_config_is_written_tells_what_the_file_says(paths: Paths) -> None:
    found = load(paths, "ipaddr: 10.0.0.1/24\ndhcp:\n  range start: 10.0.0.9\n")
    assert found.is_written("ipaddr")
    assert found.is_written("dhcp.range start")
    assert not found.is_written("network")


def test_config_unknown_keys_are_warned_about(paths: Paths) -> None:
    found = load(paths, "warewulf:\n  prot: 9000\n  syslog: false\n")
    assert found.warnings == (
        f"{paths.conf}:2: warewulf: unknown key 'prot', did you mean 'port'?",
        f"{paths.conf}:3: warewulf: unknown key 'syslog' (kept, but not used)"
        " - Warewulf before 4.6 wrote it so: wwfast upgrade config",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ipaddr: [", ":2:1: did not find expected node content"),
        ("a: 1\na: 2", ":2:1: duplicate key 'a'"),
        ("- a", ": must be a map of keys, not a list"),
        ("ipaddr: 10.0.0.256", ":1: ipaddr: '10.0.0.256' is not an IPv4 address"),
        ("warewulf: 5", ":1: warewulf: must be a map of keys, not '5'"),
        ("warewulf:\n  port: 70000", ":2: warewulf.port: '70000' is not a port"),
        ("dhcp:\n  enabled: maybe", ":2: dhcp.enabled: must be true or false, not 'maybe'"),
        ("ssh:\n  key types: rsa", ":2: ssh.key types: must be a list, not 'rsa'"),
        ("api:\n  allowed subnets:\n  - 10.0.0.0/8\n  - x", ":4: api.allowed subnets.1: 'x' is not a network"),
        ("netmask: 255.0.255.0", ":1: netmask: '255.0.255.0' is not a netmask"),
    ],
)
def test_config_wrong_values_name_file_line_and_key(paths: Paths, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(paths, text)
    assert f"{paths.conf}{message}" in caught.value.message


def test_config_paths_section_moves_locations(paths: Paths) -> None:
    found = load(
        paths, f"paths:\n  sysconfdir: /opt/etc\n  wwoverlaydir: {paths.root}/mine\n  ipxesource: /ipxe\n"
    ).locations
    assert found.nodes_conf == paths.root / "opt/etc/warewulf/nodes.conf"
    assert found.warewulf_overlays == paths.root / "mine"
    assert found.ipxe_source == paths.root / "ipxe"
    assert found.state == paths.state


def test_config_effective_print_reads_back_the_same(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    from wwfast.cli.main import main

    paths.conf.write_text("ipaddr: 10.0.0.1/24\nwarewulf:\n  port: 9000\nnfs:\n  export paths:\n  - path: /home\n")
    with pytest.raises(SystemExit):
        main(["--root", str(paths.root), "genconfig", "warewulfconf", "print"])
    printed = capsys.readouterr().out
    before, after = settings.load(paths), parse(printed.encode(), paths)
    assert [
        getattr(after, name) for name in ("ipaddr", "network", "warewulf", "dhcp", "tftp", "nfs", "ssh", "paths")
    ] == [getattr(before, name) for name in ("ipaddr", "network", "warewulf", "dhcp", "tftp", "nfs", "ssh", "paths")]
    with pytest.raises(SystemExit):
        main(["--root", str(paths.root), "config", "show"])
    assert capsys.readouterr().out == (
        "ipaddr: 10.0.0.1\nwarewulf:\n  port: 9000\nnfs:\n  export paths:\n  - path: /home\n"
        "    export options: rw,sync,no_subtree_check\n"
    )


def test_config_genconfig_writes_man_pages_and_completion(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    from wwfast.cli.main import main

    for words in (["man", str(paths.root / "man")], ["completion", "bash"], ["completion", "zsh"], ["wwctl"]):
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(paths.root), "genconfig", *words])
        assert not caught.value.code
    out = capsys.readouterr().out
    assert "_WWFAST_COMPLETE=bash_complete" in out
    assert "#compdef wwfast" in out
    assert "netmask" in (paths.root / "man/man1/wwfast-node-set.1").read_text()
    assert "warewulf.update interval" in (paths.root / "man/man5/warewulf.conf.5").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("wwfast node li", "list"),
        ("wwfast node list rack1-n", "rack1-n1 rack1-n2"),
        ("wwfast node set --profile g", "gpu"),
        ("wwfast profile list d", "default"),
        ("wwfast node set -O host", "hosts hostname"),
    ],
)
def test_config_completion_of_names(
    paths: Paths, words: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wwfast.cli.main import main

    paths.nodes_conf.write_text("nodeprofiles:\n  default: {}\n  gpu: {}\nnodes:\n  rack1-n1: {}\n  rack1-n2: {}\n")
    for name in ("hosts", "hostname"):
        (paths.site_overlays / name / "rootfs").mkdir(parents=True)
    monkeypatch.setenv("WWFAST_ROOT", str(paths.root))
    monkeypatch.setenv("_WWFAST_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    found = {line.partition(",")[2] for line in capsys.readouterr().out.splitlines()}
    assert set(expected.split()) <= found


@pytest.mark.parametrize(
    "text", ["boot phase: 0", "boot phase: -5", "dhcp relays: [10.0.0.300]", "dhcp relays: 10.0.0.9"]
)
def test_config_of_phases_and_relays_is_checked(paths: Paths, text: str) -> None:
    with pytest.raises(ConfigError, match=text.partition(":")[0]):
        load(paths, f"wwfast: {{{text}}}")


def test_config_a_phase_takes_half_an_hour_unless_said_otherwise(paths: Paths) -> None:
    assert load(paths, "").wwfast.boot_phase == 30
    found = load(paths, "wwfast: {boot phase: 5, dhcp relays: [10.0.0.9]}").wwfast
    assert (found.boot_phase, found.dhcp_relays) == (5, ["10.0.0.9"])


@pytest.mark.parametrize("key", ["sysconfdir", "cachedir", "wwoverlaydir", "wwchrootdir", "ipxesource", "wwfilesdir"])
@pytest.mark.parametrize("value", ["etc", "~/x", "' /etc'", "./etc"])
def test_config_a_path_that_is_not_absolute_is_refused_where_it_is(paths: Paths, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"warewulf.conf:3: paths\.{key}: .* is not an absolute path"):
        load(paths, f"ipaddr: 10.5.0.1\npaths:\n  {key}: {value}\n")


@pytest.mark.parametrize("key", ["sysconfdir", "cachedir", "wwoverlaydir", "wwchrootdir", "ipxesource"])
def test_config_an_empty_path_is_as_good_as_none(paths: Paths, key: str) -> None:
    assert load(paths, f"paths:\n  {key}: ''\n").locations == paths
