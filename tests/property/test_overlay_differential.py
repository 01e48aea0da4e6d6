"""What a service that lives long says is what one says that begins now, with empty caches: after any edit of anything.

Edits are made at random from a seed: files that are written in place, replaced, linked, removed and made again,
directories that are renamed and made again, links on every way that are pointed elsewhere, images, settings, nodes;
the service is started anew now and then, and another process builds beside it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.overlays import Oracle, Site
from wwfast.config.settings import load
from wwfast.errors import WwfastError
from wwfast.images import building
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import Paths

SEEDS = range(int(os.environ.get("WWFAST_SEEDS", "2")))
EDITS = int(os.environ.get("WWFAST_EDITS", "30"))
CONF = "ipaddr: 10.0.0.1/16\n"
NAMES = ("n1", "n2")
JINJA = (
    "{{ include('note') }}",
    "{{ id }}{{ include('sub/note') }}{{ tags.a | default('-') }}",
    "{{ include('link/note') }}",
    "{{ include_from('one', 'etc/x') }}{{ include_from('two', '/etc/x') }}",
    "{{ readlink('/srv/link') }}",
    "{{ 8 // (include('note') | length - 1) }}{{ id }}",
    "{{ 8 // (include('note') | length - 2) }}",
    "{% for n in all_nodes %}{{ n.id }}{{ n.tags.a | default('') }}{% endfor %}",
    "{{ include('/srv/file') }}",
    "{{ import_link('/srv/link') }}{{ id }}",
    "{% if include('note') == '1' %}{{ include('sub/note') }}{% endif %}{{ kernel.version }}",
    "{{ dhcp.enabled }}{{ image_name }}{{ include_block('note', '2') }}",
    "{{ include('note') if tags.a is defined }}",
    "{% do file(include('note') or 'none') %}{{ include('sub/note') }}",
)
GO = (
    '{{ Include "note" }}{{ .Id }}',
    '{{ IncludeFrom "one" "/etc/x" }}',
    '{{ readlink "/srv/link" }}{{ .Tags.a }}',
    '{{ IncludeBlock "/etc/warewulf/sub/note" "2" }}',
    "{{ range $n := .AllNodes }}{{ $n.Id }}{{ end }}{{ .Kernel.Version }}",
)
WORDS = ("", "1", "22", "333", "1\n2\n3", "22\n")


class Editor:
    """Edits of a site; each says what it did."""

    def __init__(self, site: Site, rng: random.Random) -> None:
        self.site, self.rng = site, rng
        paths = site.paths
        self.etc, self.srv, self.aside = paths.etc, paths.root / "srv", paths.root / "aside"
        self.overlays = (paths.site_overlays, paths.warewulf_overlays)
        self.taken = 0
        self.tags: dict[str, str] = {}
        self.lists = ["[base, more]", "[live]"]
        self.image, self.allowed, self.dhcp = "", True, False
        for place in (self.srv, self.aside, *self.overlays, self.etc / "sub"):
            place.mkdir(parents=True, exist_ok=True)
        self.nodes()
        self.conf()

    def edit(self) -> str:
        edits = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        weights = [getattr(each, "weight", 4) for each in edits]
        (chosen,) = self.rng.choices(edits, weights)
        try:
            return f"{chosen.__name__}: {chosen()}"
        except (OSError, WwfastError) as error:  # as the random tree has it
            return f"{chosen.__name__} in vain: {error}"

    def new(self) -> Path:
        self.taken += 1
        return self.aside / str(self.taken)

    def write(self, file: Path, text: str) -> str:
        """In one of the ways in which files are written."""
        file.parent.mkdir(parents=True, exist_ok=True)
        how = self.rng.choice(
            ("place", "place", "rename", "link", "hard link", "other name", "again", "copy with times")
        )
        fresh = self.new()
        if how in ("place", "copy with times"):
            before = file.stat() if file.exists() else None
            file.write_text(text)
            if how != "place" and before is not None:
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif how == "rename":
            fresh.write_text(text)
            fresh.rename(file)
        elif how == "link" and file.is_relative_to(self.etc):
            inside = self.etc / f"of-{fresh.name}"
            inside.write_text(text)
            fresh.symlink_to(inside.name if file.parent == self.etc else f"../{inside.name}")
            fresh.rename(file)
        elif how == "hard link":
            fresh.write_text(text)
            file.unlink(missing_ok=True)
            file.hardlink_to(fresh)
        elif how == "other name" and file.is_file():
            fresh.hardlink_to(file.resolve())
            fresh.write_text(text)
        else:
            file.unlink(missing_ok=True)
            file.write_text(text)
        return f"{file} {how} {text!r}"

    def nodes(self) -> None:
        image = f"\n    image name: {self.image}" if self.image else ""
        tags = "".join(f"\n    tags: {{a: {self.tags[name]}}}" if name in self.tags else "" for name in ("n2",))
        text = f"""\
nodeprofiles:
  all:
    system overlay: {self.lists[0]}
    runtime overlay: {self.lists[1]}{image}
nodes:
  n1:
    profiles: [all]
  n2:
    profiles: [all]{tags}
"""
        self.site.nodes(text)

    def conf(self) -> None:
        include = "wwfast: {include: [/srv/file, /srv/link]}\n" if self.allowed else "wwfast: {include: [/srv/link]}\n"
        self.site.conf(f"{CONF}dhcp: {{enabled: {str(self.dhcp).lower()}}}\n{include}")

    def place(self) -> Path:
        """A directory of an overlay."""
        return self.rng.choice(self.overlays) / self.rng.choice(("base", "more", "live", "hosts")) / "rootfs"

    # -- edits ---------------------------------------------------------------------------------------------------

    def do_note(self) -> str:
        return self.write(self.etc / self.rng.choice(("note", "sub/note", "two/note")), self.rng.choice(WORDS))

    def do_note_too(self) -> str:
        return self.do_note()

    def do_template(self) -> str:
        kind = self.rng.choice((JINJA, JINJA, GO))
        name = f"etc/t{self.rng.randrange(3)}" + (".ww" if kind is GO else ".j2")
        return self.write(self.place() / name, self.rng.choice(kind) + "\n")

    def do_file(self) -> str:
        name = self.rng.choice(("etc/plain", "etc/t0", "etc/deep/er", "opt/x"))
        return self.write(self.place() / name, self.rng.choice(WORDS))

    def do_mode(self) -> str:
        files = [it for top in self.overlays for it in sorted(top.rglob("*")) if not it.is_symlink()]
        file, mode = self.rng.choice(files or [self.etc]), self.rng.choice((0o700, 0o755, 0o711))
        file.chmod(mode)
        return f"{file} {mode:o}"

    def do_remove(self) -> str:
        tops = (*self.overlays, self.etc / "sub", self.etc / "two", self.srv, self.etc / "link", self.etc / "note")
        files = [it for top in tops for it in (top, *sorted(top.rglob("*"))) if it.is_symlink() or it.exists()]
        file = self.rng.choice([it for it in files if it not in (*self.overlays, self.srv)])
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
        return str(file)

    def do_again(self) -> str:
        """A directory is removed and made again, often with the very inode; then something is written there."""
        place = self.rng.choice((self.etc / "sub", self.place() / "etc", self.place().parent))
        if place.is_symlink() or not place.is_dir():
            return "nothing"
        kept = [(it.name, it.read_text()) for it in sorted(place.iterdir()) if it.is_file()]
        shutil.rmtree(place)
        place.mkdir()
        for name, text in kept:
            (place / name).write_text(text)
        return str(place)

    def do_swap(self) -> str:
        """A directory is renamed, and another one comes to its place; or a link to it."""
        tops = (self.etc / "sub", self.place(), self.place().parent, *self.overlays, self.site.paths.state, self.srv)
        place = self.rng.choice(tops)
        aside, other = self.new(), self.new()
        if not place.is_dir():
            return "nothing"
        shutil.copytree(place, other, symlinks=True)
        for file in sorted(other.rglob("*")):
            if file.is_file() and not file.is_symlink() and file.name in ("note", "plain", "x", "er"):
                file.write_text(self.rng.choice(WORDS))
        place.rename(aside)
        link = self.rng.random() < 0.4 and not place.is_relative_to(self.etc)
        place.symlink_to(other) if link else other.rename(place)
        return f"{place}{' is a link' if link else ''}"

    def do_current(self) -> str:
        """A link in the middle of the way is pointed elsewhere."""
        place = self.rng.choice((self.place().parent, self.place(), self.etc / "sub", self.overlays[0]))
        top = self.etc / "versions" if place.is_relative_to(self.etc) else self.aside
        versions = [top / name for name in ("v1", "v2")]
        current, fresh = top / "current", top / "fresh"
        for version in versions:
            if place.is_dir() and not (version / place.name).exists():
                shutil.copytree(place, version / place.name, symlinks=False, ignore_dangling_symlinks=True)
                for file in sorted(version.rglob("*")):
                    if file.is_file() and file.name in ("note", "plain", "x", "er"):
                        file.write_text(self.rng.choice(WORDS))
        fresh.symlink_to(self.rng.choice(versions).name)
        fresh.rename(current)
        if self.rng.random() < 0.5 and not place.is_symlink() and place.is_dir():
            place.rename(self.new())
            place.symlink_to(os.path.relpath(current / place.name, place.parent))
        return f"{current} for {place}"

    def do_link(self) -> str:
        link = self.rng.choice((self.etc / "link", self.srv / "link"))
        fresh = self.new()
        fresh.symlink_to(self.rng.choice(("sub", "two", "none", "note", "../srv/file")))
        fresh.rename(link)
        return f"{link} -> {link.readlink()}"

    def do_srv(self) -> str:
        return self.write(self.srv / "file", self.rng.choice(WORDS))

    def do_image(self) -> str:
        top = self.rng.choice((self.site.paths.chroots, self.site.paths.warewulf_chroots))
        name = self.rng.choice(("one", "two"))
        rootfs = top / name / "rootfs"
        what = self.rng.choice(("write", "write", "write", "build", "build", "gone", "link", "directory", "back"))
        if what == "gone":
            shutil.rmtree(rootfs.parent)
            return f"{rootfs} gone"
        for each in ("etc", "bin", "boot"):
            (rootfs / each).mkdir(parents=True, exist_ok=True)
        (rootfs / "bin/sh").touch()
        if what == "write":
            return self.write(rootfs / "etc/x", self.rng.choice(WORDS))
        for each in (rootfs / "boot").iterdir():
            each.unlink()
        (rootfs / f"boot/vmlinuz-6.{self.rng.randrange(3)}.0").write_text("kernel")
        opt = rootfs / "opt"
        opt.unlink() if opt.is_symlink() else shutil.rmtree(opt, ignore_errors=True)
        opt.symlink_to("etc") if what == "link" else opt.mkdir()
        if what == "back":
            building.rollback(self.site.paths, name)
        else:
            building.build(self.site.paths, name)
        return f"{rootfs} {what}"

    def do_nodes(self) -> str:
        what = self.rng.randrange(4)
        if what == 0:
            self.tags = {} if self.tags else {"n2": self.rng.choice(("1", "2"))}
        elif what == 1:
            built = [it for it in ("one", "two") if (self.site.paths.images / it / "current").exists()]
            self.image = self.rng.choice(["", *built])
        else:
            at = self.rng.randrange(2)
            self.lists[at] = self.rng.choice(("[base]", "[more, base]", "[live]", "[hosts]", "[base, live]", "[]"))
        self.nodes()
        return f"{self.tags} {self.image} {self.lists}"

    def do_conf(self) -> str:
        self.allowed, self.dhcp = self.rng.random() < 0.7, self.rng.random() < 0.5
        self.conf()
        self.site.service.reconfigure(load(self.site.paths))
        return f"{self.allowed} {self.dhcp}"

    def do_restart(self) -> str:
        self.site.service.close()
        self.site.new_service()
        return ""

    def do_other_process(self) -> str:
        other = OverlayService(self.site.paths, load(self.site.paths))
        try:
            other.build(self.site.snapshot)
        finally:
            other.close()
        return ""

    def do_tend(self) -> str:
        self.site.service.tend(anyway=True)
        return ""

    def do_times(self) -> str:
        """The clock of whoever wrote it was elsewhere."""
        files = [it for top in (self.etc, *self.overlays) for it in sorted(top.rglob("*")) if it.is_file()]
        for file in files:
            when = self.rng.choice((1, 10**9, 4 * 10**9))
            os.utime(file, (when, when))
        return ""


@pytest.fixture
def site(paths: Paths) -> Iterator[Site]:
    made = Site(paths, conf=CONF)
    yield made
    made.service.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_overlay_service_of_long_life_says_what_a_new_one_says(site: Site, seed: int) -> None:
    editor, oracle = Editor(site, random.Random(seed)), Oracle(site)
    site.new_service()
    for name in ("base", "more", "live"):
        site.put(name, "etc/t0.j2", JINJA[len(name)])
    done: list[str] = []
    for _ in range(EDITS):
        done.append(editor.edit())
        assert not (found := oracle.differences()), (done[-8:], found)
