"""`overlay lint`: what will not run is said before a node asks, with its place; and nothing of what runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from wwfast.cli.main import main
from wwfast.overlays.files import model
from wwfast.overlays.templates.porting.lint import Linter
from wwfast.paths import Paths

DATA = Path(__file__).parents[1] / "data/go"


def put(paths: Paths, path: str, text: str) -> None:
    file = paths.site_overlays / "o/rootfs" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def told(paths: Paths) -> list[str]:
    return [said.removeprefix("overlay o, ") for said in Linter(paths).overlay(model.find(paths, "o"))]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ if .Id }}", "line 1, column 13: unexpected EOF"),
        ("\n  {{ nosuch 1 }}", "line 2, column 6: function 'nosuch' not defined"),
        ("{{ env `HOME` }}", "line 1, column 4: function 'env' is not there: a template does not see"),
        ("{{ .Nope }}", "line 1, column 4: there is no field Nope at the top level"),
        ("{{ $.Nope }}", "line 1, column 4: there is no field Nope at the top level"),
        ("{{ .Kernel.Vers }}", "line 1, column 4: there is no field Vers of the kernel"),
        ("{{ range .AllNodes }}{{ .Ip }}{{ end }}", "line 1, column 25: there is no field Ip of a node"),
        ("{{ range $n, $d := .NetDevs }}{{ $d.Ip }}{{ end }}", "line 1, column 34: there is no field Ip of a network"),
        ("{{ with .ThisNode }}{{ .Get }}{{ end }}", "line 1, column 24: there is no field Get of a node"),
        ("{{ $d := index .NetDevs `a` }}{{ $d.Ip }}", "line 1, column 34: there is no field Ip of a network device"),
        ("{{ (index .Disks `a`).Foo }}", "line 1, column 22: there is no field Foo of a disk"),
        ("{{ if false }}{{ lower 1 }}{{ end }}", "line 1, column 24: expected string; found 1"),
        ("{{ lower }}", "line 1, column 4: wrong number of args for lower: want 1 got 0"),
        ("{{ template `x` }}", "line 1, column 4: template 'x' is not defined"),
        ("{{ define `x` }}{{ .Anything }}{{ end }}{{ template `x` .Id }}", ""),
        ("{{ .Tags.anything }}{{ .Resources.any.thing }}{{ range .Tags }}{{ .x }}{{ end }}", ""),
        ("{{ $n := .ThisNode }}{{ $n = dict }}{{ $n.anything }}", ""),
    ],
)
def test_go_template_that_will_not_run_is_told_with_its_place(paths: Paths, source: str, said: str) -> None:
    put(paths, "etc/t.ww", source)
    found = told(paths)
    assert len(found) == bool(said), found
    assert all(each.startswith(f"etc/t.ww, {said}") for each in found), found


def test_go_template_lint_reads_templates_of_jinja_too(paths: Paths) -> None:
    put(paths, "a.j2", "{{ id }}\n{{ hostnam }}{% for x in all_nodes %}{{ x.id }}{{ loop.index }}{% endfor %}\n")
    put(paths, "b.j2", "{{ id | nosuch }}")
    put(paths, "c.j2", "{% if %}")
    put(paths, "d", "{{ neither }}")
    found = told(paths)
    assert [said.partition(":")[0] for said in found] == ["a.j2, line 2", "b.j2, line 1", "c.j2, line 1"]
    assert "'hostnam' is undefined" in found[0]


def test_go_template_lint_finds_nothing_in_what_runs(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped overlays, and those of sites that Go runs."""
    for file in (DATA / "overlays").iterdir():
        put(paths, f"etc/{file.name}", file.read_text())
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(paths.root), "overlay", "lint"])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert said.endswith("overlays: nothing is wrong with them\n"), said
    assert int(said.split()[0]) > 40


def test_go_template_lint_ends_with_a_fault_and_reads_scripts(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    put(paths, "etc/t.ww", "{{ .Nope }}")
    (paths.etc / "ipxe").mkdir(parents=True)
    (paths.etc / "ipxe/ours.ipxe").write_text("#!ipxe\n{{ .Nope }}{{ range .NetDevs }}{{ .Foo }}{{ end }}\n")
    (paths.etc / "ipxe/mine.ipxe.j2").write_text("#!ipxe\n{% if %}\n")
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(paths.root), "overlay", "lint"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "overlay o, etc/t.ww, line 1, column 4: there is no field Nope" in said.out
    assert "ours.ipxe:2:4: there is no field Nope in a script" in said.out
    assert "ours.ipxe:2:35: there is no field Foo of a network device" in said.out
    assert "mine.ipxe.j2:2: " in said.out
    assert "4 will not run" in said.err
    with pytest.raises(SystemExit):
        main(["--root", str(paths.root), "overlay", "lint", "nowhere"])
    assert "no overlay nowhere" in capsys.readouterr().err
