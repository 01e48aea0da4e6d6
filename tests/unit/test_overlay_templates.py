"""The template contract: what templates can do, what they cannot, and what is said when they are wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.overlays import NODES, Site
from wwfast.errors import WwfastError
from wwfast.nodes.model import Disk, FileSystem, Partition
from wwfast.overlays.files import beneath
from wwfast.overlays.files.stack import Output
from wwfast.overlays.templates import filters
from wwfast.overlays.templates.ignition import ignition_json
from wwfast.paths import Paths

FULL = """\
nodes:
  n1:
    system overlay: [o]
    cluster name: rack 1
    image name: ""
    kernel: {version: 6.1.0, args: [quiet, splash]}
    ipmi: {username: admin, write: "yes", tags: {vlan: "7"}}
    tags: {b: "2", a: "1", items: odd}
    network devices:
      eth1: {device: eth1, ipaddr: 10.1.0.1, netmask: 255.255.255.0, tags: {DNS2: 10.0.0.3, DNS1: 10.0.0.2}}
      eth0: {device: eth0, ipaddr: 10.0.1.1, netmask: 255.255.0.0, ipaddr6: "fd00::1", prefixlen6: "64"}
    primary network: eth1
    disks: {/dev/sda: {wipe_table: true, partitions: {root: {number: "1", size_mib: "100", start_mib: "8"}}}}
    filesystems: {/dev/disk/by-partlabel/root: {format: ext4, path: /, mount_options: "noatime,ro"}}
    resources: {fstab: [{spec: "server:/home", file: /home}], deep: {flag: true, number: 3}}
"""


@pytest.fixture
def site(paths: Paths) -> Site:
    return Site(paths, conf="ipaddr: 10.0.0.1/16\nipaddr6: fd00::ff/64\n", nodes=FULL)


def outputs(site: Site, source: str) -> tuple[Output, ...]:
    site.put("o", "etc/file.j2", source)
    return site.service.render(site.snapshot, site.node(), "o", "etc/file")[1]


def text(site: Site, source: str) -> str:
    (output,) = outputs(site, source)
    assert output.path == "etc/file"
    return output.content.decode()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ id }} {{ hostname }} {{ this_node.id }}", "n1 n1 n1"),
        ("{{ kernel.version }} {{ kernel.args | join(' ') }}", "6.1.0 quiet splash"),
        ("{{ tags.a }}{{ tags['b'] }}{{ tags['items'] }}", "12odd"),
        ("{% for k, v in tags.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;b=2;items=odd;"),
        ("{% for n, d in network_devices.items() %}{{ n }} {{ d.ip_cidr }} {{ d.primary }};{% endfor %}",
         "eth0 10.0.1.1/16 false;eth1 10.1.0.1/24 true;"),
        ("{{ network_devices.eth0.ip_cidr6 }}{{ network_devices.eth1.ip_cidr6 }}", "fd00::1/64"),
        ("{{ this_node.primary.device }}", "eth1"),
        ("{% for n in all_nodes %}{{ n.id }} {{ n.tags.a }}{% endfor %}", "n1 1"),
        ("{{ ipaddr }} {{ netmask }} {{ network }} {{ network_cidr }} {{ ip_cidr }}",
         "10.0.0.1 255.255.0.0 10.0.0.0 10.0.0.0/16 10.0.0.1/16"),
        ("{{ ipaddr6 }} {{ ipv6 }} {{ network_cidr6 }}", "fd00::ff true fd00::/64"),
        ("{{ warewulf.port }} {{ settings.warewulf.port }} {{ nfs.enabled }} {{ ssh.key_types[0] }}",
         "9873 9873 true ed25519"),
        ("{{ overlay }} {{ build_source | basename }} {{ build_time_unix | int > 0 }}", "o file.j2 true"),
        ("{{ resources.fstab[0].spec }}{{ resources.deep.flag }}{{ resources.deep.number + 1 }}", "server:/hometrue4"),
        ("{{ comment }}|{{ asset_key }}|{{ profiles }}|{{ disks['/dev/sda'].wipe_table }}", "||[]|true"),
        ("{{ ipmi.write | bool }} {{ ''|bool }} {{ ''|bool(true) }} {{ 'no'|bool(true) }}", "true false true false"),
        ("{{ tags.gone | default('x') }}{% if tags.gone is defined %}never{% endif %}", "x"),
        ("{{ '255.255.0.0'|prefixlen }} {{ 24|netmask }} {{ '10.0.3.4'|network('255.255.0.0') }}",
         "16 255.255.255.0 10.0.0.0/16"),
        ("{{ '10.0.3.4/16'|address }} {{ '10.0.3.4/16'|host(5) }} {{ '52-54-00-AA-BB-CC'|mac }}",
         "10.0.3.4 10.0.0.5 52:54:00:aa:bb:cc"),
        ("{{ ['eth10','eth2']|natsort|join(',') }} {{ \"it's\"|shell_quote }}", "eth2,eth10 'it'\"'\"'s'"),
        ("{{ ['b\u00b2','b1']|natsort|join(',') }}", "b1,b\u00b2"),
        ("{{ 'x'|b64encode }} {{ 'eA=='|b64decode }} {{ ''|sha256|length }}", "eA== x 64"),
        ("{{ resources.deep|to_json }} {{ '[1]'|from_json|first }}", '{"flag": true, "number": 3} 1'),
        ("{{ 'a1b2'|regex_replace('[0-9]','') }} {{ 'a, b'|regex_split(', *')|join('+') }}", "ab a+b"),
        ("{{ '10.0.0.1' is ipv4 }}{{ 'fd00::1' is ipv6 }}{{ '10.0.0.1' is cidr }}", "truetruefalse"),
        ("{% if 'DNS12' is match('^DNS[0-9]*$') %}yes{% endif %}", "yes"),
        ("{{ systemd_escape_path('/srv/my disk') }} {{ systemd_escape('a-b/c') }}", "srv-my\\x20disk a\\x2db-c"),
        ("{{ unique_field(':', 0, 'a:1\\nb:2\\na:3\\n\\n') }}", "a:1\nb:2\n\n"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(id) }}", "<n1>"),
        ("{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
    ],
)  # fmt: skip
def test_overlay_template_values(site: Site, source: str, expected: str) -> None:
    assert text(site, source) == expected


def test_overlay_template_files_links_and_abort(site: Site) -> None:
    found = outputs(
        site, "lost{{ file('a') }}A{% do nobackup() %}{{ file('/x/b') }}B{{ file('c') }}{{ softlink('/t') }}no"
    )
    assert found == (
        Output("etc/a", "file", b"A", False, False),
        Output("x/b", "file", b"B", False, True),
        Output("etc/c", "link", b"/t", False, False),
    )
    assert outputs(site, "text {% if id == 'n1' %}{{ abort() }}{% endif %}") == ()
    in_macro = "{% macro conf(n) %}{{ file(n) }}it is {{ n }}{% endmacro %}{{ conf('m') }}{{ conf('n') }}"
    assert [(it.path, it.content) for it in outputs(site, in_macro)] == [("etc/m", b"it is m"), ("etc/n", b"it is n")]
    assert outputs(site, "{{ file('empty') }}") == (Output("etc/empty", "file", b"", True, False),)


def test_overlay_template_value_cannot_pass_for_a_mark(site: Site) -> None:
    site.nodes(FULL.replace('"2"', '"\\0FFFF/etc/shadow\\0"'))
    (output,) = outputs(site, "{{ tags.b }}")
    assert output.path == "etc/file"


@pytest.mark.parametrize("name", ["../../x", "/../x", "a/../../../x", "", "/", ".", "..", "sub/", "/etc/.."])
def test_overlay_template_output_stays_below_the_root(site: Site, name: str) -> None:
    with pytest.raises(WwfastError, match="does not name a file below the root"):
        outputs(site, f"{{{{ file('{name}') }}}}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ id.__class__ }}",
        "{{ this_node.__class__ }}",
        "{{ this_node['__class__'] }}",
        "{{ this_node | attr('__class__') }}",
        "{{ tags.__class__.__base__ }}",
        "{{ '{0.__class__}'.format(id) }}",
        "{{ '%s' | format(id) | attr('__class__') }}",
        "{{ settings.__struct_fields__ }}",
        "{{ include.__globals__ }}",
        "{{ file.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ lipsum.__globals__ }}",
        "{{ cycler.__init__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% set ns = namespace() %}{{ ns.__class__ }}",
        "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
        "{% do tags.update({'a': 'b'}) %}",
        "{% do tags.pop('a') %}",
        "{% do kernel.args.append('x') %}",
        "{% set tags.a = 'x' %}",
        "{{ range(999999999) }}",
        "{{ environ }}",
        "{{ os }}",
    ],
)
def test_overlay_template_cannot_leave_the_sandbox(site: Site, source: str) -> None:
    with pytest.raises(WwfastError, match=r"etc/file\.j2"):
        outputs(site, source)
    assert site.node().tags == {"a": "1", "b": "2", "items": "odd"}
    assert site.node().kernel.args == ["quiet", "splash"]


@pytest.mark.parametrize("word", ["include 'x'", "import 'x' as y", "from 'x' import y", "extends 'x'"])
def test_overlay_template_cannot_load_others(site: Site, word: str) -> None:
    with pytest.raises(WwfastError, match=r"overlay o, etc/file\.j2, line 2: a template cannot"):
        outputs(site, f"one\n{{% {word} %}}")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a\nb\n{{ tags.nothing }}", ["line 3", "node n1", "nothing", "{{ tags.nothing }}"]),
        ("a\n{{ nothing }}", ["line 2", "node n1", "'nothing' is undefined"]),
        ("{% for d in network_devices.values() %}\n{{ d.colour }}\n{% endfor %}", ["line 2", "colour"]),
        ("{% macro m() %}\n\n{{ gone }}\n{% endmacro %}\n{{ m() }}", ["line 3", "gone"]),
        ("\n{% if %}", ["line 2"]),
        ("{{ 'x' | nofilter }}", ["line 1", "nofilter"]),
        ("\n\n{{ 1 // 0 }}", ["line 3", "division"]),
        ("{{ 'no json' | from_json }}", ["line 1", "node n1"]),
        ("{{ include('/etc/shadow') }}", ["line 1", "/etc/shadow", "neither below /etc/warewulf nor listed"]),
    ],
)
def test_overlay_template_errors_say_where_and_what(site: Site, source: str, words: list[str]) -> None:
    with pytest.raises(WwfastError) as caught:
        outputs(site, source)
    assert caught.value.message.startswith("overlay o, etc/file.j2")
    assert [word for word in words if word not in caught.value.message] == []


def test_overlay_template_recursion_is_an_error(site: Site) -> None:
    with pytest.raises(WwfastError, match="recursion"):
        outputs(site, "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")


def test_overlay_template_includes(site: Site) -> None:
    etc = site.paths.etc
    (etc / "sub").mkdir()
    (etc / "sub/note").write_text("a\nb\n# MARK\nc\n\n")
    (site.paths.root / "etc/passwd").write_text("root:x:0:0\n")
    assert text(site, "{{ include('sub/note') }}") == "a\nb\n# MARK\nc\n"
    assert text(site, "{{ include('/etc/warewulf/sub/note') | length }}") == "13"
    assert text(site, "[{{ include('none') }}{{ include('sub') }}]") == "[]"
    assert text(site, "{{ include_block('sub/note', 'MARK') }}") == "a\nb\nMARK"
    assert text(site, "{{ include('/etc/passwd') }}") == "root:x:0:0", "of the root given, not of this host"
    (site.paths.root / "etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    assert text(site, "[{{ readlink('/etc/localtime') }}]") == "[]", "its target is not below the root"
    zone = site.paths.root / "usr/share/zoneinfo/UTC"
    zone.parent.mkdir(parents=True)
    zone.write_text("")
    site.new_service()
    (output,) = outputs(site, "{{ import_link('/etc/localtime') }}")
    assert (output.kind, output.content) == ("link", b"/usr/share/zoneinfo/UTC")


@pytest.mark.parametrize("path", ["../shadow", "/etc/warewulf/../shadow", "sub/../../shadow", "/root/.ssh/id_rsa"])
def test_overlay_template_include_stays_below_its_root(site: Site, path: str) -> None:
    (site.paths.root / "etc/shadow").write_text("secret\n")
    with pytest.raises(WwfastError, match="may not read"):
        outputs(site, f"{{{{ include('{path}') }}}}")


def test_overlay_template_include_follows_no_link_out(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    for target in (str(tmp_path / "secret"), "../../secret"):
        link = site.paths.etc / "note"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        site.new_service()
        with pytest.raises(WwfastError, match="cannot read"):
            outputs(site, "{{ include('note') }}")


def test_overlay_include_can_be_extended(site: Site) -> None:
    (site.paths.root / "etc/motd").write_text("hi\n")
    site.conf("wwfast: {include: [/etc/motd]}\n")
    site.new_service()
    assert text(site, "{{ include('/etc/motd') }}") == "hi"


@pytest.mark.parametrize("native", [True, False])
def test_overlay_paths_stay_beneath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    if not native:
        monkeypatch.setattr(beneath, "_have_openat2", False)
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d/file").write_text("inside")
    (tmp_path / "file").write_text("outside")
    (root / "up").symlink_to("../file")
    (root / "absolute").symlink_to("/d/file")
    (root / "loop").symlink_to("loop")
    (root / "good").symlink_to("d/../d/file")

    def read(path: str, in_root: bool) -> str:
        fd = beneath.open_beneath(root, path, in_root=in_root)
        with os.fdopen(fd) as file:
            return file.read()

    for path in ("d/file", "good", "d/../good"):
        assert read(path, in_root=False) == read(path, in_root=True) == "inside"
    assert read("absolute", in_root=True) == "inside"
    assert read("../../d/file", in_root=True) == "inside"
    for path in ("up", "absolute", "../file", str(tmp_path / "file"), "loop"):
        with pytest.raises(OSError):
            read(path, in_root=False)
    with pytest.raises(FileNotFoundError):
        read("up", in_root=True)


@pytest.mark.parametrize(
    ("source", "edit", "again"),
    [
        ("{{ tags.rack }}", "rack: r1, colour: red", ["n1"]),
        ("{{ comment }}", "rack: r1, colour: red", []),
        ("{{ this_node }}", "rack: r1, colour: red", ["n1"]),
        ("{{ this_node.comment }}", "rack: r1, colour: red", []),
        ("{% set x = this_node %}{{ x.tags.rack }}", "rack: r1, colour: red", ["n1"]),
        ("{{ tags | length }}{{ id }}", "rack: r1, colour: red", ["n1"]),
        ("{% if id == 'n2' %}{{ tags }}{% endif %}", "rack: r1, colour: red", []),  # names are looked up first
        ("{% if id == 'n2' %}{{ this_node.tags }}{% endif %}", "rack: r1, colour: red", []),
        ("{{ id }}{% for n in all_nodes %}{{ n.comment }}{% endfor %}", "rack: r1, colour: red", []),
        ("{{ id }}{% for n in all_nodes %}{{ n.tags.rack }}{% endfor %}", "rack: r1, colour: red", ["n1", "n2"]),
        ("{{ id }}{% for n in all_nodes %}{{ n }}{% endfor %}", "rack: r1, colour: red", ["n1", "n2"]),
        ("{{ id }}{{ all_nodes | length }}", "rack: r1, colour: red", []),
        ("{{ id }}{{ all_nodes | map(attribute='tags') | list }}", "rack: r1, colour: red", ["n1", "n2"]),
        ("{{ id }}{{ all_nodes[0].tags }}", "rack: r1, colour: red", ["n1", "n2"]),
        ("{{ id }}{{ all_nodes | to_json }}", "rack: r1, colour: red", ["n1", "n2"]),
        ("{{ id }}{{ all_nodes | join }}", "rack: r1, colour: red", ["n1", "n2"]),
        ("{{ id }}{{ (all_nodes | sort(attribute='tags.rack'))[0].id }}", "rack: r1, colour: red", ["n1", "n2"]),
        ("{{ id }}{{ this_node in all_nodes }}", "rack: r1, colour: red", ["n1", "n2"]),
        ("{{ id }}{{ '%s' | format(all_nodes[0]) }}", "rack: r1, colour: red", ["n1", "n2"]),
        ("{{ ignition_json() }}", "rack: r1, colour: red", []),
        ("{% macro m(d) %}{{ d.rack }}{% endmacro %}{{ m(tags) }}", "rack: r1, colour: red", ["n1"]),
        ("{% block b scoped %}{{ tags.rack }}{% endblock %}{{ self.b() }}", "rack: r1, colour: red", ["n1"]),
    ],
)  # fmt: skip
def test_overlay_templates_run_again_where_what_they_looked_at_changed(
    paths: Paths, source: str, edit: str, again: list[str]
) -> None:
    """Every node is asked once before and once after an edit of a tag of n1."""
    nodes = NODES.replace("  n2:\n", "  n2:\n    tags: {rack: r2}\n")
    site = Site(paths, nodes=nodes)
    site.put("base", "etc/made.j2", source)
    for name in ("n1", "n2"):
        site.ask(name)
    site.nodes(nodes.replace("rack: r1", edit))
    made = []
    for name in ("n1", "n2"):
        runs = site.service.builder.runs
        site.ask(name)
        made += [name] * (site.service.builder.runs - runs)
    assert made == again


def test_overlay_edit_of_an_unread_field_renders_nothing(paths: Paths) -> None:
    site = Site(paths)
    site.put("base", "etc/rack.j2", "{{ tags.rack | default('none') }}")
    site.put("base", "etc/name.j2", "{{ id }}")
    site.put("live", "etc/all.j2", "{% for n in all_nodes %}{{ n.id }} {% endfor %}")
    site.service.build(site.snapshot)
    runs = site.service.builder.runs
    site.nodes(NODES.replace("    tags: {rack: r1}", "    comment: new\n    tags: {rack: r1}"))
    site.service.build(site.snapshot)
    assert site.service.builder.runs == runs
    site.nodes(NODES.replace("rack: r1", "rack: r2"))
    site.service.build(site.snapshot)
    assert site.service.builder.runs == runs + 1


def test_overlay_ignition_has_starts_and_whole_options() -> None:
    disks = {"/dev/sda": Disk(True, {"root": Partition("2", "100", "8"), "boot": Partition("1")})}
    systems = {"/dev/x": FileSystem("ext4", "/", mount_options="noatime,ro", options=["-L", "x"])}
    said = json.loads(ignition_json(disks, systems))
    assert said["ignition"]["version"] == "3.1.0"
    boot, root = said["storage"]["disks"][0]["partitions"]
    assert (boot["label"], root["startMiB"], root["sizeMiB"]) == ("boot", 8, 100)
    assert said["storage"]["filesystems"][0]["mountOptions"] == ["noatime", "ro"]
    assert ignition_json({}, {}) == ""
    with pytest.raises(WwfastError, match="whole number"):
        ignition_json({"/dev/sda": Disk(None, {"a": Partition("one")})}, {})


def test_overlay_unique_field_keeps_lines_without_it() -> None:
    assert filters.unique_field(":", 1, "a\nb\nx:1\ny:1\nz:\nw:") == "a\nb\nx:1\nz:\nw:"


def test_overlay_filters_take_quoted_values_of_either_file(site: Site) -> None:
    """Both files may be JSON; a quoted scalar is text also where it looks like a number."""
    site.conf(
        '{"ipaddr": "10.0.0.1/16", "tftp": {"enabled": true, "ipxe": {"00:07": "a.efi"}},'
        '"warewulf": {"port": 9873}, "dhcp": {"enabled": true, "range start": "10.0.0.5"}, "nfs": {"enabled": false}}'
    )
    site.nodes(
        '{"nodes": {"n1": {"system overlay": ["t"], "tags": {"k": "010"}, "resources": {"r": {"l": ["1", 1]}}}}}',
    )
    site.put("t", "conf.j2", "{{ tftp.ipxe | to_json }}{{ dhcp | to_json }}{{ warewulf | to_json }}{{ nfs | to_json }}")
    site.put("t", "node.j2", "{{ tags | to_json }}{{ resources.r | to_json }}{{ resources.r | to_yaml }}")
    site.new_service()
    assert '"00:07": "a.efi"' in site.text("conf")
    assert '"range start": "10.0.0.5"' in site.text("conf")
    assert site.text("node").startswith('{"k": "010"}{"l": ["1", 1]}')
