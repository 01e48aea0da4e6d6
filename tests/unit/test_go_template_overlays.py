"""`.ww` files in overlays, through the service as nodes get them: outputs, sharing, freshness, errors, limits."""

from __future__ import annotations

import pytest

from support.overlays import NODES, Site
from wwfast.errors import WwfastError
from wwfast.paths import Paths


@pytest.fixture
def site(paths: Paths) -> Site:
    return Site(paths)


def test_go_template_makes_files_and_links(site: Site) -> None:
    site.put("base", "etc/motd.ww", "node {{ .Id }}, rack {{ .Tags.rack }}\n", 0o600)
    site.put(
        "base",
        "etc/net/all.ww",
        '{{ range $n, $d := .NetDevs }}{{ file (printf "%s.conf" $n) }}{{ $d.IpCIDR }}{{ end }}',
    )
    site.put("base", "etc/localtime.ww", '{{ softlink "/usr/share/zoneinfo/UTC" }}')
    site.put("base", "etc/none.ww", "{{ abort }}")
    site.put("base", "etc/plain", "as it is\n")
    site.put("live", "etc/plain.ww", "{{ nobackup }}live\n")
    found = site.unpacked()
    assert found == {
        "etc/motd": b"node n1, rack r1\n",
        "etc/net/default.conf": b"10.0.1.1/16",
        "etc/localtime": b"-> /usr/share/zoneinfo/UTC",
        "etc/plain": b"as it is\n",
    }
    assert site.text("etc/motd", "n2") == "node n2, rack <no value>\n"
    assert site.unpacked(context="runtime") == {"etc/plain": b"live\n"}


def test_go_template_beside_one_of_jinja_gives_way(site: Site) -> None:
    site.put("base", "etc/motd.ww", "{{ .Id }} of Go\n")
    assert site.text("etc/motd") == "n1 of Go\n"
    site.put("base", "etc/motd.j2", "{{ id }} of Jinja\n")
    assert site.unpacked() == {"etc/motd": b"n1 of Jinja\n"}


def test_go_template_of_no_node_is_shared_and_of_one_is_not(site: Site) -> None:
    """What a template looked at decides: the same parts for nodes that it does not tell apart, nothing stale."""
    site.put(
        "base", "etc/all.ww", "{{ range .AllNodes }}{{ .Id }} {{ range .NetDevs }}{{ .Ipaddr }}{{ end }}\n{{ end }}"
    )
    site.put("base", "etc/rack.ww", "{{ .Tags.rack }} {{ .Warewulf.Port }} {{ .ThisNode.Kernel.Args }}\n")
    first, second = site.ask("n1"), site.ask("n2")
    assert first.extents[0] == second.extents[0], "one part for all"
    assert site.text("etc/all") == "n1 10.0.1.1\nn2 10.0.1.2\n"
    same = NODES.replace("tags: {rack: r1}", "tags: {rack: r1, other: x}\n    comment: new")
    site.nodes(same.replace("tags: {rack: r1, other: x}", "tags: {rack: r1}"))
    assert site.ask("n1").etag == first.etag, "nothing that was looked at changed"
    site.nodes(NODES.replace("rack: r1", "rack: r2"))
    assert site.ask("n1").etag != first.etag
    assert site.ask("n2").etag == second.etag
    assert site.text("etc/rack") == "r2 9873 []\n"
    site.nodes(NODES.replace("10.0.1.2", "10.0.1.3"))
    assert site.text("etc/all") == "n1 10.0.1.1\nn2 10.0.1.3\n"
    site.conf("ipaddr: 10.0.0.1/16\nwarewulf: {port: 9999}\n")
    site.new_service()
    assert site.text("etc/rack") == "r1 9999 []\n"


def test_go_template_notices_files_that_it_included(site: Site) -> None:
    (site.paths.etc / "note").write_text("one\n")
    site.put("base", "etc/note.ww", '{{ Include "note" }}|{{ Include "nosuch" }}|{{ IncludeBlock "note" "two" }}\n')
    assert site.text("etc/note") == "one||one\n\ntwo\n"
    (site.paths.etc / "note").write_text("two\n")
    site.new_service()
    assert site.text("etc/note") == "two||two\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x\n  {{ lower .Id", r"overlay base, etc/t\.ww, line 2, column 15: unclosed action"),
        ("{{ nosuch .Id }}", r"line 1, column 4: function 'nosuch' not defined"),
        ("{{ env `HOME` }}", r"line 1, column 4: function 'env' is not there: a template does not see the environment"),
        ("{{ uuidv4 }}", r"line 1, column 4: function 'uuidv4' is not there: what it gives differs each time"),
        ("é {{ .Nope }}", r"etc/t\.ww, line 1, column 6, node n1: can't evaluate field Nope: there is no such field"),
        ("\n{{ if true }}\n {{ lower .Tags.none }}{{ end }}", r"line 3, column 11, node n1: invalid value; expected"),
        ("{{ index .Kernel.Args 3 }}", r"line 1, column 4, node n1: index out of range: there are 0"),
        ("{{ fail `not here` }}", r"column 4, node n1: fail: not here"),
        ("{{ $x := (index .NetDevs `x`) }}{{ $x.Ipaddr }}", r"column 36, node n1: nil pointer evaluating"),
        ("{{ file `/../x` }}", r"line 1, column 4, node n1: file\('/\.\./x'\) does not name a file"),
    ],
)  # fmt: skip
def test_go_template_errors_tell_where_and_for_whom(site: Site, source: str, said: str) -> None:
    site.put("base", "etc/t.ww", source)
    with pytest.raises(WwfastError, match=said):
        site.ask()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ range until 9999 }}{{ range until 9999 }}{{ range until 9999 }}{{ end }}{{ end }}{{ end }}", "CPU time"),
        (
            "\n{{ regexMatch `.*a.*b` (repeat 9999 `a`) }}",
            r"line 2, column 4, node n1: function regexMatch: it ran for more than 1 s of CPU",
        ),
        ("{{ $x := list `x` }}{{ range until 60 }}{{ $x = concat $x $x }}{{ end }}", "memory"),
        ("{{ range until 9999 }}{{ repeat 9999 `x` }}{{ end }}", "wrote more than 1 MiB"),
    ],
)
def test_go_template_stays_within_its_limits(paths: Paths, source: str, said: str) -> None:
    limits = "wwfast: {template seconds: 1, template memory: 200, template output: 1}\n"
    site = Site(paths, conf="ipaddr: 10.0.0.1/16\n" + limits)
    site.put("base", "etc/t.ww", source)
    with pytest.raises(WwfastError, match=said) as caught:
        site.ask()
    assert "overlay base, etc/t.ww" in caught.value.message


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "^(a|a)*$", "(a|aa)+$", "(a*)*b", "^(a?){30}a{30}$", "(.*)(.*)(.*)(.*)x", "((a{1,9}){1,9}){1,9}x"],
)
def test_go_template_patterns_take_the_time_that_their_text_does(site: Site, pattern: str) -> None:
    """Trying one way after another would not end within the limit of templates, nor in a life."""
    site.put("base", "etc/t.ww", f"{{{{ regexMatch `{pattern}` (print (repeat 999 `a`) `c`) }}}}")
    assert site.text("etc/t") == "false"
