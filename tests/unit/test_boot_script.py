"""The text that iPXE runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scripts import render
from wwfast.boot.loader.script import Scripts, plain
from wwfast.config import checks
from wwfast.errors import ConfigError, NotFoundError
from wwfast.nodes.model import NetDev
from wwfast.overlays.templates.ipxe import Expanded
from wwfast.paths import Paths

VARIABLES = {
    "id": "n1",
    "authority": "10.0.0.1:9873",
    "image_name": "debian",
    "image_build": "debian@20260102-030405",
    "image_format": "zst",
    "image_arch": "amd64",
    "kernel_version": "6.1.0",
    "kernel_args": "quiet console=ttyS0",
    "hwaddr": "52:54:00:00:00:01",
    "stages": ["image", "kmods", "system"],
    "script_url": "http://10.0.0.1:9873/ipxe/52:54:00:00:00:01",
    "wait": 30,
    "message": ["no luck"],
    "place": 0,
    "eta": 0,
    "way": "in one stage: needs 889 MiB of 3072",
    "preload": False,
    "lost": [],
}


def test_the_default_script_names_every_initrd_twice(paths: Paths) -> None:
    """Old UEFI iPXE needs `initrd=` per file, in order; --name makes the names sure."""
    text = render(Scripts(paths), "default", VARIABLES)
    assert text.startswith("#!ipxe\n")
    kernel = next(line for line in text.splitlines() if line.startswith("imgargs kernel"))
    assert "initrd=image initrd=kmods initrd=system ${runtime} wwid=${hwaddr} quiet console=ttyS0" in kernel
    files = [line.split()[2] for line in text.splitlines() if line.startswith("initrd --name")]
    assert files == ["image", "kmods", "system"]


def test_the_console_tells_the_place_in_the_queue(paths: Paths) -> None:
    alone = render(Scripts(paths), "default", VARIABLES)
    queued = render(Scripts(paths), "default", VARIABLES | {"place": 12, "eta": 34})
    assert [line for line in queued.splitlines() if line not in alone.splitlines()] == [
        "echo Place 12 in the queue: the downloads of this node begin in about 34 s"
    ]
    assert "" not in queued.splitlines()[:6]


@pytest.mark.parametrize("arch", ["amd64", "arm64", ""])
def test_a_node_for_which_the_image_is_not_asks_anew_and_says_what_it_is(paths: Paths, arch: str) -> None:
    text = render(Scripts(paths), "default", VARIABLES | {"image_arch": arch})
    asked = [line for line in text.splitlines() if line.startswith("iseq ${arch}")]
    anew = f"iseq ${{arch}} {arch} || chain --replace --autofree {VARIABLES['script_url']}&arch=${{arch}}"
    assert asked == ([anew] if arch else [])


@pytest.mark.parametrize("name", ["default", "message", "unconfigured", "localdisk"])
def test_every_goto_has_its_label(paths: Paths, name: str) -> None:
    """W-43: a jump to a label that is not there ends the boot."""
    text = render(Scripts(paths), name, VARIABLES)
    labels = {line[1:] for line in text.splitlines() if line.startswith(":")}
    words = text.replace("||", " ").replace("&&", " ").split()
    jumps = {words[index + 1] for index, word in enumerate(words) if word == "goto"}
    assert jumps <= labels


def test_asset_tags_are_encoded(paths: Paths) -> None:
    """W-63: an asset tag with a blank or & must not break the query."""
    assert "assetkey=${asset:uristring}" in render(Scripts(paths), "default", VARIABLES)


HOSTILE = ["a\nshell", "a\rb", "x ${net0/mac}", "a || shell", "&& shell", "${", "a\0b", "\x1b[2J"]
HOSTILE += [";", "; shell", "a ; shell", "a\t;\tshell", "a ;", "#", "#a", "a #b c", "a\t#", "a ## || shell"]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_is_run_by_ipxe(paths: Paths, value: str) -> None:
    """iPXE cuts scripts into lines and commands and expands ${...}: whatever a template prints is one or more words."""
    scripts = Scripts(paths)
    for name in ("kernel_args", "kernel_version", "hwaddr", "image_build"):
        with pytest.raises(ConfigError, match=r"default\.ipxe\.j2:\d+, node .*iPXE would run"):
            render(scripts, "default", VARIABLES | {name: value})
    site = paths.etc / "ipxe/site.ipxe.j2"
    site.parent.mkdir()
    for printed in ("tags.rack", "tags['rack']", "'x ' ~ tags.rack", "network_devices.default.tags.vlan", "list[0]"):
        site.write_text("#!ipxe\nset x {{ " + printed + " }}\n")
        device = NetDev(ipaddr="10.0.0.1", tags={"vlan": value})
        own = {"tags": {"rack": value}, "network_devices": {"default": device}, "list": [value]}
        with pytest.raises(ConfigError, match="iPXE would run") as caught:
            render(Scripts(paths, scripts), "site", VARIABLES | own)
        assert "shell" not in caught.value.message
    assert checks.script(value)


@pytest.mark.parametrize(
    "value", ["quiet", "a=b|c", "rd.x='$y'", "x&y", "$", "{}", "ip=dhcp\tquiet", "grüße", "a;b", "a; b", "a#b", ";;"]
)
def test_other_values_are_passed_on(paths: Paths, value: str) -> None:
    assert f" {value} || goto" in render(Scripts(paths), "default", VARIABLES | {"kernel_args": value})
    assert not checks.script(value)
    assert plain(value).split() == value.replace("$", "").split()


@pytest.mark.parametrize("value", [*HOSTILE, "#||", "# ; #;", "##${x}"])
def test_a_message_is_shown_whatever_it_holds(paths: Paths, value: str) -> None:
    line = plain(value)
    assert not checks.script(line)
    assert f"echo {line}\n" in render(Scripts(paths), "message", VARIABLES | {"message": [line]})


def test_what_a_template_itself_says_and_our_own_urls_are_expanded(paths: Paths) -> None:
    url = Expanded("http://10.0.0.1/ipxe/x?uuid=${uuid}")
    assert "chain --replace --autofree " + url in render(Scripts(paths), "default", VARIABLES | {"script_url": url})


def test_a_template_of_the_site_wins_and_changes_are_seen(paths: Paths) -> None:
    scripts = Scripts(paths)
    site = paths.etc / "ipxe/default.ipxe.j2"
    site.parent.mkdir()
    site.write_text("#!ipxe\necho {{ id }}\n")
    scripts = Scripts(paths, scripts)
    assert render(scripts, "default", VARIABLES) == "#!ipxe\necho n1\n"
    site.write_text("#!ipxe\necho changed {{ id }}\n")
    assert render(scripts, "default", VARIABLES) == "#!ipxe\necho n1\n", "nothing is read when a script is asked for"
    assert render(Scripts(paths, scripts), "default", VARIABLES) == "#!ipxe\necho changed n1\n"


def test_go_template_of_a_script_runs_as_in_warewulf(paths: Paths) -> None:
    """With its variables; our own scripts stand before those that Warewulf brought."""
    (paths.etc / "ipxe").mkdir()
    source = (
        "#!ipxe\nset base http://{{ .Authority }}\n{{ range $n, $d := .NetDevs }}{{ if and $d.Hwaddr $d.Device }}"
        "ifname={{ $d.Device }}:{{ $d.Hwaddr | lower }} {{ end }}{{ end }}\n"
        "kernel ${base}/kernel/{{ .Hwaddr }} {{ .KernelArgs }} root={{ .Root | default `tmpfs` }} {{ .Tags.none }}"
        "{{ if .TLS }}tls{{ end }}{{ .Message }}{{ print `${net0/mac}` }} {{ .Port }}\n"
    )
    (paths.etc / "ipxe/ours.ipxe").write_text(source)
    (paths.etc / "ipxe/default.ipxe").write_text("#!ipxe\necho of Warewulf\n")
    scripts = Scripts(paths)
    assert "default" in scripts.names()
    assert "of Warewulf" not in render(scripts, "default", VARIABLES)
    device = NetDev(device="eth0", hwaddr="52:54:00:AA:00:01")
    text = render(
        scripts,
        "ours",
        {**VARIABLES, "port": 1, "root": "", "tags": {}, "network_devices": {"a": device, "b": NetDev()}},
    )
    assert text.splitlines()[1:] == [
        f"set base http://{VARIABLES['authority']}",
        "ifname=eth0:52:54:00:aa:00:01 ",
        f"kernel ${{base}}/kernel/{VARIABLES['hwaddr']} {VARIABLES['kernel_args']} "
        "root=tmpfs <no value>${net0/mac} 1",
    ]


@pytest.mark.parametrize("value", HOSTILE)
def test_go_template_of_a_script_prints_nothing_that_ipxe_would_run(paths: Paths, value: str) -> None:
    (paths.etc / "ipxe").mkdir()
    (paths.etc / "ipxe/ours.ipxe").write_text("#!ipxe\necho {{ .Tags.a }}\n")
    with pytest.raises(ConfigError, match=r"ours\.ipxe:2:9, node n1: this value holds a line break"):
        render(Scripts(paths), "ours", {**VARIABLES, "tags": {"a": value}})


def test_go_template_of_a_script_names_what_is_not_there(paths: Paths) -> None:
    (paths.etc / "ipxe").mkdir()
    (paths.etc / "ipxe/file.ipxe").write_text("#!ipxe\n{{ Include `x` }}\n")
    (paths.etc / "ipxe/field.ipxe").write_text("#!ipxe\n{{ .Nope }}\n")
    with pytest.raises(ConfigError, match=r"file\.ipxe:2:4, node n1: function 'Include' not defined"):
        render(Scripts(paths), "file", VARIABLES)
    with pytest.raises(ConfigError, match=r"field\.ipxe:2:4, node n1: can't evaluate field Nope"):
        render(Scripts(paths), "field", VARIABLES)


def test_errors_name_file_line_and_node(paths: Paths) -> None:
    (paths.etc / "ipxe").mkdir()
    (paths.etc / "ipxe/bad.ipxe.j2").write_text("#!ipxe\n{% if %}\n")
    with pytest.raises(ConfigError, match=r"bad\.ipxe\.j2:2, node n1"):
        render(Scripts(paths), "bad", VARIABLES)
    (paths.etc / "ipxe/undefined.ipxe.j2").write_text("{{ nothing }}")
    with pytest.raises(ConfigError, match="'nothing' is undefined"):
        render(Scripts(paths), "undefined", VARIABLES)


@pytest.mark.parametrize("name", ["../../etc/passwd", ".hidden", "a/b"])
def test_names_are_not_paths(paths: Paths, name: str) -> None:
    with pytest.raises(NotFoundError):
        Scripts(paths).find(name)


def test_shipped_templates_exist() -> None:
    names = Scripts(Paths.at(Path("/nonexistent"))).names()
    assert {"default", "message", "unconfigured", "localdisk"} <= set(names)
