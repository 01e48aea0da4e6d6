"""`overlay convert`: what is written writes the same; what has no counterpart, or differs, stays as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wwfast.cli.main import main
from wwfast.config.settings import load
from wwfast.nodes.registry import Registry
from wwfast.overlays.files import model
from wwfast.overlays.templates.porting.compare import Ported, Porter
from wwfast.paths import Paths

DATA = Path(__file__).parents[1] / "data/go"


@pytest.fixture
def site(paths: Paths) -> Paths:
    paths.etc.mkdir(parents=True, exist_ok=True)
    for name in ("nodes.conf", "warewulf.conf"):
        shutil.copy(DATA / name, paths.etc / name)
    return paths


def put(paths: Paths, path: str, text: str) -> Path:
    file = paths.site_overlays / "o/rootfs" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o640)
    return file


def ported(paths: Paths, tmp_path: Path, source: str) -> Ported:
    put(paths, "etc/t.ww", source)
    porter = Porter(paths, load(paths), Registry(paths).snapshot().nodes, tmp_path)
    (found,) = porter.overlay(model.find(paths, "o"))
    return found


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("plain\n  text {not} a tag\n", "plain\n  text {not} a tag\n"),
        ("{{ .Id }} {{ .ImageName }} {{ .Ipaddr }}", "{{ id }} {{ image_name }} {{ ipaddr }}"),
        ("{{ .Warewulf.Port }} {{ .Kernel.Version }}", "{{ warewulf.port }} {{ kernel.version }}"),
        ("{{ if .Tags.gpu }}a{{ else }}b{{ end }}", '{% if tags.get("gpu") %}a{% else %}b{% endif %}'),
        ("{{ if eq .Tags.gpu `a100` }}a{{ end }}\nb", '{% if tags.get("gpu") == "a100" %}a{% endif +%}\nb'),
        ("{{ .Tags.none | default `x` | upper }}", '{{ ((tags.get("none") or "x") | upper) }}'),
        ("{{ range .Kernel.Args }}{{ . }},{{ end }}", "{% for item1 in kernel.args %}{{ item1 }},{% endfor %}"),
        ("a\n  {{ if .Id }}b{{ end }}\n", "a\n  {%+ if id %}b{% endif +%}\n"),
        (
            "{{ range $n, $d := .NetDevs }}{{ $n }}={{ $d.Device }} {{ $d.IpCIDR }}\n{{ end }}",
            "{% for n, d in network_devices.items() %}{{ n }}={{ d.device }} {{ d.ip_cidr }}\n{% endfor %}",
        ),
        ("{{ $x := printf `%s-%v` .Id 3 }}{{ $x }}", '{% set x = "%s-%s" % (id, 3,) %}{{ x }}'),
        ("{{ file `a` }}{{ .Id }}{{ softlink `/b` }}", '{{ file("a") }}{{ id }}{{ softlink("/b") }}'),
        ("{{ if .Tags.none }}x{{ end }}{{ abort }}", '{% if tags.get("none") %}x{% endif %}{{ abort() }}'),
    ],
)
def test_go_template_converts_to_one_that_writes_the_same(site: Paths, tmp_path: Path, source: str, made: str) -> None:
    assert ported(site, tmp_path, source)[1:] == (made, "", True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ define `x` }}{{ end }}", "line 1, column 1: it defines templates"),
        (
            "\n{{ $n := 0 }}{{ range .Tags }}{{ $n = inc $n }}{{ end }}",
            "line 2, column 34: $n is changed inside a range",
        ),
        ("{{ toPrettyJson .Tags }}", "line 1, column 4: toPrettyJson has no counterpart here"),
        ("{{ if .Id", "line 1, column 10: unclosed action"),
        ("{{ .Tags.none }}", "there is no such key in this map: 'none'"),
        ("{{ .Ipmi.Gateway }}", "it writes something else for node e1"),
    ],
)
def test_go_template_that_has_no_counterpart_is_told(site: Paths, tmp_path: Path, source: str, said: str) -> None:
    found = ported(site, tmp_path, source)
    assert said in found.wrong
    assert not found.same


def test_go_template_convert_writes_only_what_is_the_same(site: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(site, "etc/same.ww", "{{ .Id }}\n")
    put(site, "etc/other.ww", "{{ .Tags.none }}\n")
    for words in (["overlay", "convert", "--print", "o"], ["overlay", "convert", "o"]):
        with pytest.raises(SystemExit) as ended:
            main(["--root", str(site.root), *words])
        assert not ended.value.code
    said = capsys.readouterr().out
    assert "etc/same.j2 takes the place of etc/same.ww, and writes the same" in said
    assert "etc/other.ww stays: " in said
    made = file.with_name("same.j2")
    assert (made.read_text(), made.stat().st_mode & 0o777) == ("{{ id }}\n", 0o640)
    assert sorted(each.name for each in file.parent.iterdir()) == ["other.ww", "same.j2", "same.ww"]


def test_go_template_convert_keeps_what_somebody_wrote(site: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    put(site, "etc/same.ww", "{{ .Id }}\n")
    mine = put(site, "etc/same.j2", "{{ id }} of mine\n")
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(site.root), "overlay", "convert", "o"])
    assert not ended.value.code
    assert "etc/same.j2 is there already, and stays as it is" in capsys.readouterr().out
    assert mine.read_text() == "{{ id }} of mine\n"
