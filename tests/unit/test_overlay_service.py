"""Overlays from files to what a node is sent, and that it is always fresh."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import signal
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import msgspec
import pytest
import zstandard

from support.everycommand import in_child
from support.overlays import NODES, Site, body, kept
from wwfast._ext import calls
from wwfast.config.settings import load
from wwfast.errors import WwfastError
from wwfast.nodes.registry import Snapshot
from wwfast.overlays.making import orders, worker
from wwfast.overlays.making import service as service_module
from wwfast.overlays.making.generation import Generation
from wwfast.overlays.making.messages import Begin, Know, Make, Render
from wwfast.overlays.making.plan import SYSTEM
from wwfast.overlays.making.service import OverlayService
from wwfast.overlays.templates import render
from wwfast.overlays.templates.data import Rests
from wwfast.overlays.templates.render import Template
from wwfast.paths import Paths

HOSTS = """\
{% for node in all_nodes %}
{% for name, dev in node.network_devices.items() %}
{{ dev.ipaddr }} {{ node.id }}
{% endfor %}
{% endfor %}
"""


@pytest.fixture
def site(paths: Paths) -> Site:
    made = Site(paths)
    made.put("base", "etc/motd", "hello\n")
    made.put("base", "etc/hostname.j2", "{{ id }}\n")
    made.put("base", "etc/hosts.j2", HOSTS)
    made.put("base", "etc/rack.j2", "{{ tags.rack | default('none') }}\n")
    made.put("live", "etc/server.j2", "{{ ipaddr }} {{ warewulf.port }}\n")
    return made


def test_overlay_files_reach_the_node(site: Site) -> None:
    assert site.unpacked() == {
        "etc/motd": b"hello\n",
        "etc/hostname": b"n1\n",
        "etc/hosts": b"10.0.1.1 n1\n10.0.1.2 n2\n",
        "etc/rack": b"r1\n",
    }
    assert site.text("etc/rack", "n2") == "none\n"
    assert site.unpacked(context="runtime") == {"etc/server": b"10.0.0.1 9873\n"}


def test_overlay_forms_hold_the_same(site: Site) -> None:
    raw = body(site.ask(fmt="raw"))
    assert gzip.decompress(body(site.ask(fmt="gz"))) == raw
    frames = io.BytesIO(body(site.ask(fmt="zst")))
    with zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True) as reader:
        assert reader.read() == raw
    assert all(site.ask(fmt=fmt).size % 4 == 0 for fmt in ("raw", "gz"))
    with tarfile.open(fileobj=io.BytesIO(body(site.ask(fmt="tar")))) as tar:
        assert tar.extractfile("etc/hostname").read() == b"n1\n"  # type: ignore[union-attr]
        assert [member.name for member in tar if member.issym()] == []
    assert raw.count(b"TRAILER!!!") == 1


def test_overlay_parts_are_shared_between_nodes(site: Site) -> None:
    first, second = site.ask("n1"), site.ask("n2")
    shared = set(first.extents) & set(second.extents)
    assert len(shared) == 2  # files without template, and the hosts file
    assert first.etag != second.etag


def test_overlay_etag_changes_with_the_content_only(site: Site) -> None:
    before = site.ask()
    file = site.put("base", "etc/motd", "hello\n")
    file.touch()
    assert site.ask().etag == before.etag
    site.put("base", "etc/motd", "changed\n")
    assert site.ask().etag != before.etag
    site.put("base", "etc/motd", "hello\n")
    assert site.ask().etag == before.etag


@pytest.mark.parametrize(
    ("edit", "path", "expected"),
    [
        (lambda site: site.put("base", "etc/motd", "new\n"), "etc/motd", "new\n"),
        (lambda site: site.put("base", "etc/hostname.j2", "x-{{ id }}\n"), "etc/hostname", "x-n1\n"),
        (lambda site: site.put("base", "etc/new/deep", "deep\n"), "etc/new/deep", "deep\n"),
        (lambda site: site.nodes(NODES.replace("r1", "r9")), "etc/rack", "r9\n"),
        (lambda site: site.nodes(NODES.replace("10.0.1.2", "10.0.1.9")), "etc/hosts", "10.0.1.1 n1\n10.0.1.9 n2\n"),
    ],
    ids=["static", "template", "new directory", "tag", "address of another node"],
)
def test_overlay_edits_are_seen_at_once(site: Site, edit, path: str, expected: str) -> None:
    site.ask()
    assert site.peek() is not None
    edit(site)
    assert site.peek() is None
    assert site.text(path) == expected
    site.service.look()
    assert site.peek() is not None


def test_overlay_edit_of_one_template_leaves_what_the_others_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker runs again what was edited and what read a file that was, and no other; all of it for other nodes."""
    ran: list[str] = []
    run = Template.run

    def noted(self: Template, *args: Any, **named: Any) -> Any:
        ran.append(self.item.path)
        return run(self, *args, **named)

    monkeypatch.setattr(Template, "run", noted)
    site.put("base", "etc/note.j2", "{{ tags.rack | default('-') }}: {{ include('note') }}\n")
    note = site.paths.etc / "note"
    note.write_text("one\n")
    paths = {it.name: str(getattr(site.paths, it.name)) for it in fields(site.paths) if getattr(site.paths, it.name)}
    made = worker.Worker(Begin(paths, load(site.paths).conf, ignore_go_templates=False), bytearray(4096))
    made.know(Know(list(site.snapshot.nodes.values()), list(site.snapshot.nodes), last=True))

    def again() -> set[str]:
        ran.clear()
        made.look()
        for node in site.snapshot.nodes:
            made.make(Make(node, SYSTEM))
        return set(ran)

    everything = {"etc/hostname.j2", "etc/hosts.j2", "etc/rack.j2", "etc/note.j2"}
    assert again() == everything
    assert again() == set()
    site.put("base", "etc/hostname.j2", "x-{{ id }}\n")
    assert again() == {"etc/hostname.j2"}
    told = made.make(Make("n1", SYSTEM))
    rests = msgspec.msgpack.decode(told.rests, type=Rests)
    assert set(rests.node) == {"id", "tags"}, "what was looked at for what is told again counts"
    note.write_text("two\n")
    assert again() == {"etc/note.j2"}
    site.nodes(NODES.replace("r1", "r9"))
    made.know(Know(list(site.snapshot.nodes.values()), list(site.snapshot.nodes), last=True))
    assert again() == everything
    rendered = made.render(Render("n1", "base", "etc/note"))
    assert rendered.outputs[0].content == b"r9: two\n"


def test_overlay_settings_are_part_of_the_key(site: Site) -> None:
    assert site.text("etc/server", context="runtime") == "10.0.0.1 9873\n"
    kept = site.ask(context="system")
    site.conf("ipaddr: 10.0.0.1/16\nwarewulf: {port: 80}\n")
    site.service.reconfigure(load(site.paths))
    assert site.text("etc/server", context="runtime") == "10.0.0.1 80\n"
    assert site.ask(context="system").etag == kept.etag


@pytest.mark.parametrize(("whose", "then"), [("n1", "{{ id }}"), ("all", "all")], ids=["a node's", "everybody's"])
def test_overlay_included_file_is_part_of_the_key(site: Site, whose: str, then: str) -> None:
    note = site.paths.etc / "note"
    note.write_text("one\n")
    site.put("live", "etc/note.j2", f"{{{{ include('note') }}}} for {then}\n")
    for text in ("one", "two", "three"):
        note.write_text(f"{text}\n")
        assert site.text("etc/note", context="runtime") == f"{text} for {whose}\n"
    site.new_service()
    note.unlink()
    assert site.text("etc/note", context="runtime") == f" for {whose}\n"


def test_overlay_cache_is_found_by_the_next_process(site: Site) -> None:
    before = site.ask(fmt="zst")
    site.new_service()
    assert site.ask(fmt="zst").extents == before.extents
    assert site.service.builder.runs == 0


def test_overlay_damaged_cache_is_made_anew(site: Site) -> None:
    good = body(site.ask())
    site.service.close()
    for pack in kept(site.paths):
        data = bytearray(pack.read_bytes())
        for at in range(100, len(data), 50):
            data[at] ^= 0xFF
        pack.write_bytes(data)
    site.new_service()
    assert body(site.ask()) == good


def test_overlay_failure_keeps_the_last_good_one(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    good = site.ask()
    site.put("base", "etc/rack.j2", "one\n{{ tags.rak }}\n")
    assert site.ask().etag == good.etag
    failure = site.service.failures["n1", "system"]
    assert "overlay base, etc/rack.j2, line 2, node n1" in failure.message
    assert "'rak'" in failure.message
    assert "overlay base, etc/rack.j2, line 2" in caplog.text
    site.new_service()
    assert site.ask().etag == good.etag, "also after a restart"
    site.put("base", "etc/rack.j2", "fixed\n")
    assert site.text("etc/rack") == "fixed\n"
    assert not site.service.failures


def test_overlay_without_anything_good_says_why(site: Site) -> None:
    site.put("base", "etc/rack.j2", "{{ tags.rak }}\n")
    with pytest.raises(WwfastError, match=r"etc/rack\.j2, line 1, node n1"):
        site.ask()


def test_overlay_autobuild_false_freezes_until_build(site: Site) -> None:
    site.conf("ipaddr: 10.0.0.1/16\nwarewulf: {autobuild overlays: false}\n")
    site.new_service()
    with pytest.raises(WwfastError) as caught:
        site.ask()
    assert caught.value.hint == "wwfast overlay build n1"
    site.service.build(site.snapshot)
    frozen = site.ask()
    site.put("base", "etc/motd", "later\n")
    assert site.ask().etag == frozen.etag
    site.service.build(site.snapshot)
    assert site.text("etc/motd") == "later\n"


def test_overlay_link_to_a_go_template_is_refused_by_name(site: Site) -> None:
    site.put("base", "etc/old.ww", "{{ .Id }}").with_name("other.ww").symlink_to("old.ww")
    with pytest.raises(WwfastError, match=r"overlay base: etc/other\.ww is a symbolic link to a template"):
        site.ask()


def test_overlay_missing_is_named(site: Site) -> None:
    site.nodes(NODES.replace("[live]", "[nowhere]"))
    with pytest.raises(WwfastError, match="no overlay nowhere"):
        site.ask(context="runtime")
    site.put("nowhere", "etc/found", "yes\n")
    assert site.text("etc/found", context="runtime") == "yes\n"


def test_overlay_of_a_node_whose_image_is_unknown_is_not_built(site: Site) -> None:
    """Nobody would know which of its paths are links; a node that was served goes on with what it had."""
    rootfs = site.paths.chroots / "img/rootfs"
    (rootfs / "usr/lib").mkdir(parents=True)
    (rootfs / "lib").symlink_to("usr/lib")
    (rootfs / "var").mkdir()
    (rootfs / "var/run").symlink_to("../run")
    site.put("base", "lib/file", "through the link\n")
    site.put("base", "var/run/file", "through one that is not at the top\n")
    site.nodes(
        NODES.replace("  n1:\n", "  n1:\n    image name: img\n").replace("  n2:\n", "  n2:\n    image name: no\n")
    )
    good = body(site.ask("n1"))
    assert b"lib/file" in good
    assert b"var/run/file" in good
    assert b"\0lib\0" not in good, "no entry for a directory that is a link in the image"
    assert b"\0var/run\0" not in good
    with pytest.raises(WwfastError, match="there is no image no"):
        site.ask("n2")
    rootfs.parent.rename(site.paths.chroots / "other")
    site.service.images_changed()
    assert site.peek() is None
    assert body(site.ask("n1")) == good
    assert "there is no image img" in site.service.failures["n1", "system"].message


@pytest.mark.parametrize(
    ("old", "path"),
    [
        ("debian.interfaces", "etc/network/interfaces"),
        ("wwclient.x86_64", "warewulf/wwclient"),
        ("wwclient.aarch64", "warewulf/wwclient"),
    ],
)
def test_overlay_names_of_warewulf_work(site: Site, old: str, path: str) -> None:
    site.nodes(NODES.replace("[base]", f"[{old}]"))
    assert path in site.unpacked()
    site.put(old, "etc/own", "the site's\n")
    assert site.unpacked() == {"etc/own": b"the site's\n"}


def test_overlay_cache_is_private(site: Site) -> None:
    site.ask()
    assert site.paths.overlay_cache.stat().st_mode & 0o777 == 0o700
    files = list(site.paths.overlay_cache.rglob("*"))
    assert {file.stat().st_mode & 0o777 for file in files if file.is_dir()} == {0o700}
    assert {file.stat().st_mode & 0o777 for file in files if file.is_file()} == {0o600}


def test_overlay_build_by_processes_equals_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "BATCH", 2)
    nodes = "nodes:\n" + "".join(
        f"  n{n}: {{system overlay: [base], runtime overlay: [live], tags: {{rack: r{n}}}}}\n" for n in range(1, 21)
    )
    site.nodes(nodes)
    report = site.service.build(site.snapshot, processes=3)
    assert (report.asked, report.changed, report.failures) == (40, 40, {})
    digests = [site.ask(f"n{n}").etag for n in range(1, 21)]
    site.service.close()
    shutil.rmtree(site.paths.overlay_cache)
    site.new_service()
    assert [site.ask(f"n{n}").etag for n in range(1, 21)] == digests


@pytest.mark.parametrize("killed", [False, True])
def test_overlay_templates_of_a_command_are_compiled_by_two_processes(
    site: Site, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """What the other one did not say is compiled when it runs; what is wrong with a template is said in any case."""
    for n in range(6):
        site.put("base", f"etc/{n}.j2", f"{n} {{{{ id }}}}\n" + "#" * n)
    site.nodes("nodes:\n  n1: {system overlay: [base]}\n  n2: {system overlay: [base, wrong]}\n")
    for n in range(2):
        site.put("wrong", f"etc/wrong{n}.j2", "\n{% if %}\n")

    def built() -> tuple[list[str], dict[tuple[str, str], str]]:
        mine: list[str] = []
        here = os.getpid()

        def noted(env: Any, source: str, where: str, at: str) -> render.Code:
            if os.getpid() == here:
                mine.append(where)
            elif killed and not mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return compiled(env, source, where, at)

        monkeypatch.setattr(render, "compiled", noted)
        service = OverlayService(site.paths, load(site.paths), alone=True)
        report = service.build(site.snapshot, processes=2)
        service.close()
        return mine, {key: failure.message for key, failure in report.failures.items()}

    compiled = render.compiled
    mine, failures = in_child(built)
    assert sorted(where[-4] for where in mine if re.search(r"base, etc/\d", where)) == ["1", "3", "5"]
    assert failures.keys() == {("n2", "system")}
    assert failures["n2", "system"].startswith("overlay wrong, etc/wrong0.j2, line 2: ")
    assert [site.text(f"etc/{n}") for n in range(6)] == [f"{n} n1\n" + "#" * n for n in range(6)]


def test_overlay_worker_is_not_asked_again_before_what_it_shares_is_taken_in(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that once; who asked it for the next node meanwhile would take all files for changed."""
    site.put("base", "etc/name.j2", "{{ id }}\n")
    site.put("base", "etc/same.j2", "{{ paths.sysconfdir }}\n")
    monkeypatch.setattr(site.service.orders, "_count", 1)
    take_in, others = orders.Orders._take_in, []

    def slowly(self: orders.Orders, *answered: Any) -> None:
        if not others:
            others.append(threading.Thread(target=site.ask, args=("n2",)))
            others[0].start()
            others[0].join(0.3)
        take_in(self, *answered)

    monkeypatch.setattr(orders.Orders, "_take_in", slowly)
    site.ask("n1")
    others[0].join()
    assert site.service.builder.runs == 2
    assert site.service.builder.generation is not None
    assert site.service.builder.generation.number == 1


def test_overlay_asked_for_after_an_edit_of_what_another_node_was_first_to_read_is_that_of_the_edit(site: Site) -> None:
    """What a template reads for the first time is not watched before its answer is taken in."""
    folder = site.paths.etc / "motd.d"
    folder.mkdir()
    (folder / "m").write_text("v1\n")
    site.put("base", "etc/motd.j2", '{{ include("motd.d/m") }}{{ id }}\n')
    assert site.text("etc/motd", "n1").startswith("v1")
    (folder / "m").write_text("v2\n")
    assert site.text("etc/motd", "n2").startswith("v2")
    assert site.text("etc/motd", "n1").startswith("v2")


def test_overlay_worker_that_read_what_was_edited_meanwhile_is_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given to the next one before its answer is taken in; what it has read of unwatched files may be old."""
    folder = site.paths.etc / "motd.d"
    folder.mkdir()
    (folder / "m").write_text("v1\n")
    site.nodes("nodes:\n" + "".join(f"  n{n}: {{system overlay: [base]}}\n" for n in range(3)))
    site.put("base", "etc/motd.j2", '{% if id != "n0" %}{{ include("motd.d/m") }}{% endif %}{{ id }}\n')
    monkeypatch.setattr(site.service.orders, "_count", 1)
    site.ask("n0")
    take_in, seen = orders.Orders._take_in, []

    def asked() -> None:
        seen.append(site.text("etc/motd", "n2"))

    def slowly(self: orders.Orders, *answered: Any) -> None:
        if not others:
            (folder / "m").write_text("v2\n")
            others.append(threading.Thread(target=asked))
            others[0].start()
            others[0].join(0.3)
        take_in(self, *answered)

    others: list[threading.Thread] = []
    monkeypatch.setattr(orders.Orders, "_take_in", slowly)
    site.ask("n1")
    others[0].join()
    assert seen == ["v2n2\n"]


def test_overlay_that_cannot_be_taken_in_keeps_no_other_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all, serve = calls.put_all, orders.Orders.serve

    def broken(_: object) -> list[int]:
        raise MemoryError

    monkeypatch.setattr(calls, "put_all", broken)
    with pytest.raises(MemoryError):
        site.ask("n1")
    monkeypatch.setattr(calls, "put_all", put_all)
    assert site.ask("n1").size
    monkeypatch.setattr(orders.Orders, "serve", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        site.ask("n2")
    monkeypatch.setattr(orders.Orders, "serve", serve)
    with ThreadPoolExecutor(2) as pool:
        assert pool.submit(site.ask, "n2").result(timeout=60).size


@pytest.mark.parametrize("looked", [False, True])
def test_overlay_whose_own_part_got_lost_is_built_again_though_others_stand_on_the_same(
    site: Site, looked: bool
) -> None:
    """What many nodes stand on is looked at once; what is each node's own must not pass for looked at with it."""
    site.nodes("nodes:\n" + "".join(f"  n{n}: {{system overlay: [base], runtime overlay: []}}\n" for n in range(1, 9)))
    site.put("base", "etc/name.j2", "{{ id }}\n")
    site.service.build(site.snapshot)
    record = site.service.builder.given(site.node("n5"), "system")
    assert record is not None
    name = record.own.hex()
    own = site.paths.overlay_cache / name[:2] / f"{name[2:]}.zst"
    own.unlink()
    site.service.builder.store.forget()
    if looked:
        site.service.images_changed()
    runs = site.service.builder.runs
    site.service.build(site.snapshot)
    assert own.exists()
    assert site.service.builder.runs - runs == 1
    assert site.text("etc/name", "n5") == "n5\n"


def test_overlay_functions_work_as_statements_too(site: Site) -> None:
    """`{% do file(...) %}` and `{{ file(...) }}` are the same."""
    site.put("base", "etc/many.j2", '{% do file("a") %}\nA {{ id }}\n{% do file("b") %}\nB\n')
    site.put("base", "etc/link.j2", '{% do softlink("a") %}\n')
    assert site.text("etc/a") == "A n1\n"
    assert site.text("etc/b") == "B\n"
    assert "etc/many" not in site.unpacked()
    assert site.unpacked()["etc/link"] == b"-> a"


def test_overlay_of_two_profiles_is_no_clash_with_itself(site: Site) -> None:
    """Lists of profiles are joined, so `wwinit`, which writes a link, may come twice."""
    site.nodes(
        "nodeprofiles:\n  a: {system overlay: [base]}\n  b: {system overlay: [base]}\n"
        "nodes:\n  n1: {profiles: [a, b]}\n"
    )
    site.put("base", "etc/link.j2", '{% do softlink("a") %}\n')
    assert site.unpacked()["etc/link"] == b"-> a"


def test_overlay_asked_before_an_edit_is_that_of_the_edit(site: Site) -> None:
    """Requests of before and after an edit come mixed: what is known is not thrown away for each in turn."""
    site.put("base", "etc/tag.j2", "{{ tags.rack }}\n")
    text = "nodes:\n" + "".join(f"  n{n}: {{system overlay: [base], tags: {{rack: OLD}}}}\n" for n in range(1, 9))
    site.nodes(text)
    old = site.snapshot
    site.ask("n1")
    site.nodes(text.replace("OLD", "new"))
    site.ask("n1")
    service, now = site.service, site.service.builder.generation
    for n in range(2, 9):
        found = service.artefact(old, old.nodes[f"n{n}"], SYSTEM, "raw")
        assert b"new\n" in body(found)
        site.ask(f"n{n}")
    assert service.builder.generation is now


def test_overlay_is_begun_after_an_edit_that_is_taken_in_and_waits_for_none_that_is_stuck(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ask("n1")
    began = threading.Event()
    prepare = site.service.builder.prepare

    def prepared(snapshot: Snapshot) -> Generation:
        began.set()
        return prepare(snapshot)

    monkeypatch.setattr(site.service.builder, "prepare", prepared)
    with ThreadPoolExecutor(1) as pool:
        with site.service.aside():
            asked = pool.submit(site.ask, "n1")
            assert not began.wait(0.2)
        assert asked.result(10)
        monkeypatch.setattr(service_module, "ASIDE", 0.1)
        with site.service.aside():
            assert pool.submit(site.ask, "n1").result(10)


def test_overlay_template_that_fails_for_all_is_told_of_each(site: Site) -> None:
    """What nodes share is made first, for one of them; when that fails the others are told the same, however many."""
    names = [f"n{number}" for number in range(40)]
    entry = "{{profiles: [], system overlay: [base], network devices: {{default: {{ipaddr: 10.0.2.{}}}}}}}"
    site.nodes("nodes:\n" + "".join(f"  {name}: {entry.format(at)}\n" for at, name in enumerate(names, 1)))
    site.put("base", "etc/bad.j2", "{{ nothing.at_all }}\n")
    report = site.service.build(site.snapshot, contexts=[SYSTEM])
    assert sorted(name for name, _ in report.failures) == sorted(names)
    assert {"bad.j2" in failure.message for failure in report.failures.values()} == {True}
