"""The overlay cache on a disk that is full, broken, read-only or emptied: nodes get what is right, or a reason."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard

from support.daemon import MAC, NODES, overlay, serving, tiny_image, write_conf
from support.faultydisk import BROKEN, FULL, READ_ONLY, FaultyDisk
from support.overlays import Site, body, kept
from wwfast.archive.artefact import Artefact
from wwfast.errors import WwfastError
from wwfast.images import building
from wwfast.paths import Paths

NAMES = [f"n{number}" for number in range(6)]
FORMS = ("raw", "zst", "gz", "tar")
VERSION = "{{ id }} has %s\n"


@pytest.fixture
def site(paths: Paths) -> Site:
    nodes = "".join(f"  {name}: {{system overlay: [base], tags: {{rack: r{name}}}}}\n" for name in NAMES)
    made = Site(paths, nodes=f"nodes:\n{nodes}")
    made.put("base", "etc/version.j2", VERSION % 0)
    made.put("base", "etc/rack.j2", "{{ tags.rack }}\n")
    made.put("base", "etc/static", "all the same\n" * 1000)
    return made


@pytest.fixture
def disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyDisk]:
    made = FaultyDisk(site.paths.overlay_cache, monkeypatch)
    yield made
    made.heal()


def version_in(artefact: Artefact) -> str:
    """The line of etc/version. Every byte is looked at: the form is unpacked as a node does, with its checksums."""
    data = body(artefact)
    if artefact.format == "tar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
        assert files["etc/static"] == b"all the same\n" * 1000
        return files["etc/version"].decode()
    if artefact.format == "gz":
        data = gzip.decompress(data)
    if artefact.format == "zst":
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
            data = reader.read()
    done = subprocess.run(
        ["cpio", "-i", "--quiet", "--to-stdout", "etc/version", "etc/static"],
        input=data,
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"all the same\n" * 1000)
    return done.stdout.removeprefix(b"all the same\n" * 1000).decode()


def edit(site: Site, version: int) -> None:
    site.put("base", "etc/version.j2", VERSION % version)


def everybody_has(site: Site, version: int, forms: tuple[str, ...] = FORMS) -> None:
    for fmt in forms:
        for name in NAMES:
            assert version_in(site.ask(name, fmt=fmt)) == f"{name} has {version}\n", (name, fmt)


@pytest.mark.parametrize("good", [True, False], ids=["had one", "had none"])
@pytest.mark.parametrize("code", [FULL, BROKEN, READ_ONLY])
def test_overlay_cache_that_cannot_be_written_serves_what_is_right_from_memory(
    site: Site, disk: FaultyDisk, code: int, good: bool
) -> None:
    if good:
        everybody_has(site, 0)
    disk.fail(code)
    for version in (1, 2, 3):
        edit(site, version)
        everybody_has(site, version)
    assert disk.struck
    assert not site.service.failures
    disk.heal()
    edit(site, 4)
    everybody_has(site, 4)
    site.service.build(site.snapshot)
    site.new_service()
    everybody_has(site, 4)


@pytest.mark.parametrize("after", [0, 1, 52, 53, 54, 300, 700, 1500, 4000])
def test_overlay_record_written_half_is_never_served_nor_what_comes_after(
    site: Site, disk: FaultyDisk, after: int
) -> None:
    """The write fails within a record, at once or some records later, and the disk takes the next ones."""
    everybody_has(site, 0, ("raw",))
    for version in range(1, 4):
        edit(site, version)
        disk.fail(FULL, after=after)
        assert version_in(site.ask(NAMES[version])) == f"{NAMES[version]} has {version}\n"
        disk.heal()
        everybody_has(site, version)
    site.new_service()
    everybody_has(site, 3)


def test_overlay_last_good_one_is_served_when_nothing_can_be_written(
    site: Site, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither disk nor memory: who had one keeps it, the others are told why, and it ends with the fault."""

    def no_memory(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    had, new = NAMES[:3], NAMES[3:]
    before = {(name, fmt): site.ask(name, fmt=fmt) for name in had for fmt in FORMS}
    with monkeypatch.context() as patched:
        patched.setattr(os, "memfd_create", no_memory)
        disk.fail(FULL, after=100)
        edit(site, 1)
        for _ in range(3):
            for (name, fmt), artefact in before.items():
                found = site.ask(name, fmt=fmt)
                assert (found.etag, version_in(found)) == (artefact.etag, f"{name} has 0\n")
            for name in new:
                with pytest.raises(WwfastError, match=r"memory|space"):
                    site.ask(name)
        assert set(site.service.failures) == {(name, "system") for name in NAMES}
        disk.heal()
    everybody_has(site, 1)
    assert not site.service.failures


def test_overlay_last_good_one_is_served_from_a_full_disk_when_its_build_fails(site: Site, disk: FaultyDisk) -> None:
    everybody_has(site, 0)
    disk.fail(FULL)
    edit(site, 1)
    everybody_has(site, 1)
    site.put("base", "etc/version.j2", "{{ nothing_of_that_name }}\n")
    everybody_has(site, 1)
    disk.heal()
    everybody_has(site, 1)


def test_overlay_bytes_damaged_since_they_were_written_are_made_anew(site: Site) -> None:
    """Also by the process that wrote them, and whatever form of them is asked for first."""
    for version, fmt in enumerate(FORMS):
        edit(site, version)
        site.service.build(site.snapshot)
        for file in kept(site.paths):
            data = bytearray(file.read_bytes())
            for at in range(28, len(data), 40):
                data[at] ^= 0xFF
            with file.open("r+b") as out:
                out.write(data)
        everybody_has(site, version, (fmt,))
        assert not site.service.failures


def test_overlay_records_that_were_confused_on_disk_give_no_node_what_is_anothers(site: Site) -> None:
    """Digests that stand in several places of the cache are put in place of each other: whatever is said there, and
    has no right checksum, is not believed by the next process."""
    everybody_has(site, 0)
    site.service.close()
    whole = {file: file.read_bytes() for file in kept(site.paths)}
    names = sorted({name for data in whole.values() for name in digests(data)})
    assert len(names) > 1
    chance = random.Random(1)
    for _ in range(40):
        one, other = chance.sample(names, 2)
        for file, data in whole.items():
            file.write_bytes(data.replace(one, other))
        site.new_service()
        everybody_has(site, 0)
        site.service.close()


def digests(data: bytes) -> list[bytes]:
    """What is 16 bytes long in a record's msgpack (bin 8)."""
    return re.findall(rb"\xc4\x10(.{16})", data, re.DOTALL)


def test_overlay_cache_emptied_under_the_server_is_made_anew(site: Site) -> None:
    for version in range(3):
        edit(site, version)
        everybody_has(site, version)
        shutil.rmtree(site.paths.overlay_cache)
        everybody_has(site, version)
        for file in kept(site.paths):
            file.unlink()
    everybody_has(site, 2)
    site.new_service()
    everybody_has(site, 2)


@pytest.mark.parametrize("code", [FULL, BROKEN])
def test_overlay_build_that_is_not_on_the_disk_says_so_and_the_next_one_works(
    site: Site, disk: FaultyDisk, code: int
) -> None:
    everybody_has(site, 0)
    for version, what in enumerate(({"writes": False, "creates": False}, {"syncs": False}, {"after": 100}), 1):
        edit(site, version)
        disk.fail(code, **what)  # type: ignore[arg-type]
        with pytest.raises(WwfastError, match=rf"{site.paths.overlay_cache}.*{os.strerror(code)}"):
            site.service.build(site.snapshot)
        everybody_has(site, version)
        disk.heal()
        site.new_service()
    site.service.build(site.snapshot)
    site.new_service()
    everybody_has(site, 3)


@pytest.mark.parametrize("what", [{}, {"writes": False, "creates": False}, {"writes": False}])
def test_overlay_tidying_on_a_disk_that_fails_loses_nothing(
    site: Site, disk: FaultyDisk, what: dict[str, bool]
) -> None:
    for version in range(3):
        edit(site, version)
        everybody_has(site, version)
    disk.fail(FULL, **what)
    with suppress(OSError, WwfastError):
        site.service.tend(anyway=True)
    everybody_has(site, 2)
    disk.heal()
    site.service.tend(anyway=True)
    everybody_has(site, 2)
    site.new_service()
    everybody_has(site, 2)


@pytest.mark.parametrize("seconds", [900.0, -1.0], ids=["transfers", "years"])
def test_overlay_memory_that_stands_in_is_bounded(
    site: Site, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """More than it holds is made: what nodes were told of is whole or cut off, never another's."""
    from wwfast.overlays.making import store

    def arenas() -> int:
        return sum("memfd:overlays" in str(Path(fd).resolve()) for fd in Path("/proc/self/fd").iterdir())

    monkeypatch.setattr(store, "MEMORY", 40_000)
    monkeypatch.setattr(store, "GRACE", seconds)
    disk.fail(FULL)
    told = []
    for version in range(12):
        edit(site, version)
        everybody_has(site, version, ("raw", "gz"))
        told.append((site.ask(fmt="raw"), body(site.ask(fmt="raw"))))
        assert 1 <= arenas() <= (2 if seconds < 0 else version + 1)
    for artefact, was in told if seconds > 0 else []:
        for extent in artefact.extents:
            with Path(extent.path).open("rb") as file:
                file.seek(extent.offset)
                part = file.read(extent.length)
            assert not part or part in was
    disk.heal()
    everybody_has(site, 11)


def fill(file: Path) -> None:
    """Take all the room that is left."""
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while out.write(b"\0" * 4096):
            pass


@pytest.mark.root
def test_http_overlays_on_a_full_disk_are_right_and_stay_so_when_there_is_room(paths: Paths) -> None:
    """A real file system of 128 KiB, filled, emptied and filled again under a server."""
    tiny_image(paths)
    building.build(paths, "tiny")
    write_conf(paths)
    overlay(paths, text="version 0\n")
    paths.nodes_conf.write_text(NODES)
    text = paths.site_overlays / "motd/rootfs/etc/motd.j2"
    paths.overlay_cache.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(paths.overlay_cache)], check=True)
    ballast = paths.overlay_cache / "ballast"
    try:
        with serving(paths) as server:

            def answers(version: int) -> None:
                for _ in range(2):
                    status, data, _ = server.get(f"/runtime/{MAC}?format=tar")
                    assert status == 200
                    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                        found = archive.extractfile("etc/motd").read()  # type: ignore[union-attr]
                    status, data, _ = server.get(f"/system/{MAC}?compress=gz")
                    assert (status, found) == (200, b"version %d\n" % version + b"x" * 3000 * version)
                    assert found in gzip.decompress(data)

            answers(0)
            for version in range(1, 7):
                if version in (1, 4):
                    fill(ballast)
                if version == 3:
                    assert "No space left" in server.status()["troubles"]["overlay cache"]["error"]
                    ballast.unlink()
                text.write_text(f"version {version}\n" + "x" * 3000 * version)
                answers(version)
        ballast.unlink(missing_ok=True)
        with serving(paths) as server:
            answers(6)
    finally:
        subprocess.run(["umount", "--lazy", str(paths.overlay_cache)], check=True)
