"""Names in an overlay are bytes: what no UTF-8 decoder takes comes to nodes as it is, and is told in text."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from support.overlays import Site, body
from wwfast.archive import newc
from wwfast.errors import WwfastError
from wwfast.paths import Paths

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture
def site(paths: Paths) -> Site:
    """A directory, a file, a link and its target, a template of all nodes and one of each, named in Latin-1."""
    site = Site(paths)
    site.put("base", f"etc/{LATIN}/file{LATIN}", "content")
    (paths.site_overlays / "base/rootfs/etc" / f"link{LATIN}").symlink_to(LATIN)
    site.put("base", f"etc/{LATIN}/all{LATIN}.j2", "{{ build_source|length > 0 }}\n")
    site.put("base", f"etc/own{LATIN}.j2", "{{ id }}\n")
    site.put("base", f"srv/{LATIN}.ww", "{{ .Id }}\n")
    return site


def entries(site: Site, node: str) -> dict[bytes, bytes]:
    return {it.name: it.data for it in newc.entries(body(site.ask(node)))}


def test_overlay_names_that_are_no_text_come_to_nodes_as_they_are(site: Site) -> None:
    for node in ("n1", "n2", "n1"):
        wanted = {
            b"etc/caf\xe9": b"",
            b"etc/caf\xe9/filecaf\xe9": b"content",
            b"etc/linkcaf\xe9": b"caf\xe9",
            b"etc/caf\xe9/allcaf\xe9": b"true\n",
            b"etc/owncaf\xe9": f"{node}\n".encode(),
            b"srv/caf\xe9": f"{node}\n".encode(),
        }
        found = entries(site, node)
        assert {name: found.get(name) for name in wanted} == wanted
        with tarfile.open(fileobj=io.BytesIO(body(site.ask(node, fmt="tar"))), errors="surrogateescape") as tar:
            assert {os.fsencode(it.name) for it in tar} >= wanted.keys()


def test_overlay_what_is_kept_of_such_names_is_found_by_the_next_process(site: Site) -> None:
    before = [site.ask(node).digest for node in ("n1", "n2")]
    site.new_service()
    assert [site.ask(node).digest for node in ("n1", "n2")] == before
    site.put("base", f"etc/own{LATIN}.j2", "{{ id }} anew\n")
    site.new_service()
    assert entries(site, "n2")[b"etc/owncaf\xe9"] == b"n2 anew\n"
    _, [output] = site.service.render(site.snapshot, site.node(), "base", f"etc/own{LATIN}")
    assert (output.path, output.content) == (f"etc/own{LATIN}", b"n1 anew\n")


@pytest.mark.parametrize("name", ["j2", "ww"])
def test_overlay_failure_of_such_a_name_is_told_in_text(site: Site, name: str) -> None:
    site.put("base", f"etc/bad{LATIN}.{name}", "{{ nope }}")
    with pytest.raises(WwfastError, match=r"overlay base, etc/badcaf\\udce9\.") as caught:
        site.ask()
    for failure in (caught.value, *site.service.failures.values()):
        assert f"{failure.message}{failure.hint}".encode()


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_overlay_commands_tell_such_names_whatever_the_locale(site: Site, errors: str) -> None:
    def run(*words: str) -> str:
        argv = [sys.executable, "-m", "wwfast", "--root", str(site.paths.root), "overlay", *words]
        done = subprocess.run(
            argv, capture_output=True, env={**os.environ, "PYTHONIOENCODING": f"utf-8:{errors}"}, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    assert "etc/caf\\udce9" in run("list", "-a", "base")
    listed = json.loads(run("list", "--json", "base"))
    assert f"etc/{LATIN}" in {it["path"] for it in listed["base"]["entries"]}
    assert "2 of 2 overlay images changed" in run("build", "--system")
    assert run("show", "base", f"etc/link{LATIN}") == "-> caf\\udce9\n"
    assert "nothing is wrong" in run("lint", "base")
    run("mkdir", "base", f"srv/{LATIN}")
    assert Path(site.paths.site_overlays / "base/rootfs/srv" / LATIN).is_dir()
