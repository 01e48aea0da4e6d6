"""Stage-1's cache on a disk: full, read-only, damaged, foreign or half written, it costs time and no wrong byte."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import trees
from support.stage1 import Server, archive, listed, run, serving
from wwfast.archive.artefact import TAR_GZ, TAR_ZST
from wwfast.images.stage1 import programs

SIZE = 300_000
BODY = random.Random(1).randbytes(1 << 20)
PRIVATE = ["unshare", "-m"]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server(BODY)) as made:
        yield made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    made = tmp_path / "partition/wwfast-cache"
    made.mkdir(parents=True)
    return made


def boot(
    place: Path, server: Server, cache: Path, size: int = SIZE, before: str = "", within: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Fetches the image, which must be right whatever the cache is; what it asked of the server before is forgotten."""
    for former in place.glob("told.*"):
        shutil.rmtree(former)
    server.asked.clear()
    server.told.clear()
    pieces = listed(place, size, server.body)
    words = f"cache={cache} device=LABEL=cache; {before}\nfetch_image {pieces} {place}/root; cat {place}/reused"
    done = run(place, server, words, within=within)
    assert done.returncode == 0, done
    assert (place / "root").read_bytes() == server.body
    assert not list(place.glob("run.*"))
    return done


def named(data: bytes, size: int = SIZE) -> dict[str, bytes]:
    """The pieces of an image by their names."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return {hashlib.sha256(piece).hexdigest(): piece for piece in pieces}


def kept(cache: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in cache.iterdir()}


@pytest.mark.parametrize("size", [SIZE, 40_000], ids=["one in a run", "six in a run"])
def test_stage1_cache_has_at_the_next_boot_what_was_fetched_at_the_first(
    tmp_path: Path, server: Server, cache: Path, size: int
) -> None:
    first = boot(tmp_path, server, cache, size)
    assert (kept(cache), first.stdout, server.told) == (named(BODY, size), "0 of 1 MiB\n", [])
    assert all(file.stat().st_mode & 0o077 == 0 for file in cache.iterdir()), "there are secrets in images"
    second = boot(tmp_path, server, cache, size)
    assert (server.asked, second.stdout, server.told) == ([], "1 of 1 MiB\n", [])
    server.body = BODY[:SIZE] + b"changed" + BODY[SIZE + 7 :]
    boot(tmp_path, server, cache, size)
    changed = [f"bytes={at}-{at + size - 1}" for at in range(0, len(BODY), size) if at <= SIZE < at + size]
    assert server.asked == changed
    assert kept(cache) == named(BODY, size) | named(server.body, size)


def test_stage1_cache_has_once_what_an_image_has_often(tmp_path: Path, server: Server, cache: Path) -> None:
    server.body = bytes(1 << 20)
    boot(tmp_path, server, cache, 1 << 15)
    assert kept(cache) == named(server.body, 1 << 15)
    boot(tmp_path, server, cache, 1 << 15)
    assert server.asked == []


@pytest.mark.parametrize("fault", ["flipped", "cut", "503"])
def test_stage1_cache_gets_nothing_that_came_wrong(tmp_path: Path, server: Server, cache: Path, fault: str) -> None:
    server.faults = [fault]
    boot(tmp_path, server, cache)
    assert kept(cache) == named(BODY)


WRONG = ["flipped", "short", "empty", "long", "link", "directory", "pipe"]


@pytest.mark.parametrize("size", [SIZE, 40_000], ids=["one in a run", "six in a run"])
@pytest.mark.parametrize("fault", WRONG)
def test_stage1_cache_that_is_damaged_costs_the_pieces_that_are(
    tmp_path: Path, server: Server, cache: Path, fault: str, size: int
) -> None:
    boot(tmp_path, server, cache, size)
    good = named(BODY, size)
    name = next(iter(good))
    file, piece = cache / name, good[name]
    written = {"flipped": b"x" + piece[1:], "short": piece[:-1], "empty": b"", "long": piece + b"more"}
    if fault in written:
        file.write_bytes(written[fault])
    else:
        file.unlink()
        if fault == "link":
            file.symlink_to("/dev/zero")
        elif fault == "pipe":
            os.mkfifo(file)
        else:
            file.mkdir()
    done = boot(tmp_path, server, cache, size)
    assert server.asked == [f"bytes=0-{size - 1}"], "no more than was lost"
    if fault in written:
        assert server.told == [f"the cache LABEL=cache is damaged, as the piece {name}, which is fetched again"]
        assert done.stderr.startswith("stage-1: the cache LABEL=cache is damaged")
    if fault != "directory":
        assert kept(cache) == good, "mended"
        assert not file.is_symlink()
        assert boot(tmp_path, server, cache, size).stdout == "1 of 1 MiB\n"


def test_stage1_piece_that_the_cache_lost_may_come_wrong_from_the_server_too(
    tmp_path: Path, server: Server, cache: Path
) -> None:
    boot(tmp_path, server, cache)
    for file in cache.iterdir():
        file.write_bytes(b"")
    server.faults = ["flipped", "cut", "flipped"]
    boot(tmp_path, server, cache)
    assert kept(cache) == named(BODY)


def test_stage1_cache_that_fails_to_be_read_is_asked_no_more(tmp_path: Path, server: Server, cache: Path) -> None:
    boot(tmp_path, server, cache)
    done = boot(tmp_path, server, cache, before="cp() { false; }")
    assert len(server.asked) == len(named(BODY)), "each once"
    assert "the cache LABEL=cache cannot be read, and is used no more" in server.told
    assert done.stdout.endswith("0 of 1 MiB\n")


@pytest.mark.root
def test_stage1_cache_that_is_read_only_is_read(tmp_path: Path, server: Server, cache: Path) -> None:
    boot(tmp_path, server, cache)
    server.body = b"changed" + BODY[7:]
    before = f"mount --bind {cache} {cache}; mount -o remount,ro,bind {cache}"
    done = boot(tmp_path, server, cache, before=before, within=("unshare", "-m"))
    assert server.asked == [f"bytes=0-{SIZE - 1}"]
    assert server.told == ["the cache LABEL=cache takes no more pieces: Read-only file system"]
    assert done.stderr.count("takes no more pieces") == 1
    assert kept(cache) == named(BODY)


def others(cache: Path) -> list[str]:
    """What is in a cache from before, the first one used longest ago: pieces of other images, and files of somebody."""
    names = [hashlib.sha256(word).hexdigest() for word in (b"1", b"2", b"3", b"4")]
    for number, name in enumerate([*strange(names[0]), *names]):
        (cache / name).write_bytes(bytes(SIZE if name in names else 10))
        os.utime(cache / name, (number + 1, number + 1))
    return names


def strange(name: str) -> list[str]:
    """Files that are no pieces, by what somebody who has had the disk may have called them."""
    line = f"- 1 0 0 a[$(:>run-by-a-name)] Jan 1 00:00 {name}"
    return [
        "letters",
        f"{name}.txt",
        f"a {name}",
        f"{name} ",
        f" {name}",
        f"{name}\n",
        f"x\n{line}",
        f"x\n{name}x",
        "-rf",
        "*",
    ]


def filled(place: Path, cache: Path, size: str) -> str:
    """Words that put a file system of this size there, with what is in the directory."""
    return f"cp -a {cache} {place}/were; mount -t tmpfs -o size={size} tmpfs {cache}; cp -a {place}/were/. {cache}"


def seen(place: Path, cache: Path) -> str:
    """Words that show it when the image is there: the mount is gone afterwards."""
    return f"trap 'command cp -a {cache} {place}/are' EXIT"


@pytest.mark.root
@pytest.mark.parametrize("size", [SIZE, 40_000], ids=["one in a run", "six in a run"])
def test_stage1_cache_that_is_full_drops_what_was_used_longest_ago(
    tmp_path: Path, server: Server, cache: Path, size: int
) -> None:
    names = others(cache)
    before = f"{filled(tmp_path, cache, '2100k')}; {seen(tmp_path, cache)}"
    done = boot(tmp_path, server, cache, size, before, ("unshare", "-m"))
    are = kept(tmp_path / "are")
    assert named(BODY, size).items() <= are.items(), done
    left = [name for name in names if name in are]
    assert left == names[len(names) - len(left) :], "the oldest first"
    assert 0 < len(left) < 4, "no more than it takes"
    assert set(strange(names[0])) <= are.keys(), "files of others are none of its business"
    assert not list(tmp_path.rglob("run-by-a-name"))
    assert server.told == []


@pytest.mark.root
def test_stage1_piece_that_is_used_is_not_the_oldest_any_more(tmp_path: Path, server: Server, cache: Path) -> None:
    boot(tmp_path, server, cache)
    for number, name in enumerate(named(BODY)):
        os.utime(cache / name, (number, number))
    names = others(cache)
    boot(tmp_path, server, cache)
    assert all((cache / name).stat().st_mtime > 1_000_000 for name in named(BODY))
    server.body = bytes(BODY[::-1])
    before = f"{filled(tmp_path, cache, '2700k')}; {seen(tmp_path, cache)}"
    boot(tmp_path, server, cache, before=before, within=("unshare", "-m"))
    are = kept(tmp_path / "are")
    assert named(BODY).keys() <= are.keys()
    assert named(server.body).keys() <= are.keys()
    assert not set(names[:2]) & are.keys()


@pytest.mark.root
@pytest.mark.parametrize("size", [SIZE, 40_000], ids=["one in a run", "six in a run"])
def test_stage1_cache_that_is_smaller_than_the_image_keeps_a_part_of_it(
    tmp_path: Path, server: Server, cache: Path, size: int
) -> None:
    piece = next(iter(named(b"of another image")))
    for name in strange(piece):
        (cache / name).write_bytes(b"not of ours")
    before = f"{filled(tmp_path, cache, '700k')}; {seen(tmp_path, cache)}"
    boot(tmp_path, server, cache, size, before, ("unshare", "-m"))
    are = kept(tmp_path / "are")
    assert {are.pop(name) for name in strange(piece)} == {b"not of ours"}
    assert are
    assert are.items() <= named(BODY, size).items(), "nothing half, nothing else"
    assert server.told == ["the cache LABEL=cache takes no more pieces: No space left on device"]
    for name, data in are.items():
        (cache / name).write_bytes(data)
    shutil.rmtree(tmp_path / "are")
    shutil.rmtree(tmp_path / "were")
    boot(tmp_path, server, cache, size, before, ("unshare", "-m"))
    assert are.items() <= kept(tmp_path / "are").items(), "what the image has of it is not thrown out for the rest"


@pytest.mark.parametrize("form", [TAR_ZST, TAR_GZ])
def test_stage1_archive_comes_out_of_the_cache_but_for_what_changed(tmp_path: Path, form: str, cache: Path) -> None:
    body, tree, pieces = archive(tmp_path, form)
    before = "command() { return 1; }; " if form == TAR_GZ else ""
    before += f"cache={cache} device=LABEL=cache RUN=1000000; unpack_image"
    with serving(Server(body)) as server:
        assert run(tmp_path / "store", server, f"{before} {pieces} {tmp_path}/new").returncode == 0
        shutil.rmtree(tmp_path / "new")
        (tmp_path / "new").mkdir()
        (tree / "usr/file7").write_text("changed\n")
        server.body, _, pieces = archive(tmp_path, form, tree)
        server.asked.clear()
        done = run(tmp_path / "store", server, f"{before} {pieces} {tmp_path}/new")
        spans = [tuple(map(int, asked.removeprefix("bytes=").split("-"))) for asked in server.asked]
    assert done.returncode == 0, done
    assert trees.read(tmp_path / "new") == trees.read(tree)
    assert 0 < sum(last - first + 1 for first, last in spans) < len(body) // 10
    assert server.told == []


def partition(place: Path, kind: str) -> Path:
    """A file that is a partition, of this kind."""
    made = place / "device"
    with made.open("wb") as file:
        file.truncate(16 << 20)
    if kind == "random":
        made.write_bytes(os.urandom(1 << 20))
    elif kind == "ext4":
        subprocess.run(["mkfs.ext4", "-q", "-F", made], check=True, capture_output=True)
    return made


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "blank", "random"])
def test_stage1_partition_of_the_cache_is_mounted_or_left_alone(tmp_path: Path, server: Server, kind: str) -> None:
    """With what was half written when power went, and with files of somebody."""
    device = partition(tmp_path, kind)
    digest = hashlib.sha256(device.read_bytes()).digest()
    begun = f"""CACHE={tmp_path}/mounted device=LABEL=cache; mount_cache {device}
if [ -n "$cache" ]; then
    mkdir -p "$cache/new.3"; echo half > "$cache/new.3/piece"; echo mine > "$CACHE/letters"
    close_cache
fi
mount_cache {device}
grep mounted /proc/mounts; cd {tmp_path}/mounted; ls -A . wwfast-cache; cd /; [ -z "$cache" ] || close_cache"""
    done = run(tmp_path, server, begun, within=PRIVATE)
    if kind in ("blank", "random"):
        assert "mounted " not in done.stdout, "nothing is mounted"
        assert hashlib.sha256(device.read_bytes()).digest() == digest
        (told,) = server.told
        assert told.startswith("the cache LABEL=cache is not used: mount: ")
        assert "dmesg" not in told, "one line of it"
    else:
        for option in ("nosuid", "nodev", "noexec"):
            assert option in done.stdout
        assert "letters" in done.stdout
        assert "new.3" not in done.stdout
        assert server.told == []


@pytest.mark.root
@pytest.mark.parametrize("there", ["link", "file"])
def test_stage1_cache_whose_directory_is_something_else_is_not_used(tmp_path: Path, server: Server, there: str) -> None:
    device = partition(tmp_path, "ext4")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    make = f"ln -s {elsewhere}" if there == "link" else "touch"
    words = f"""mkdir {tmp_path}/mounted; mount {device} {tmp_path}/mounted; {make} {tmp_path}/mounted/wwfast-cache
umount {tmp_path}/mounted; CACHE={tmp_path}/mounted device=LABEL=cache; mount_cache {device}; echo "cache: $cache."
grep -c mounted /proc/mounts"""
    done = run(tmp_path, server, words, within=PRIVATE)
    assert done.stdout.endswith("cache: .\n0\n"), done
    assert server.told == ["the cache LABEL=cache is not used: it has no directory wwfast-cache, and none can be made"]


def opened(place: Path, server: Server, words: str) -> str:
    """What is told of a cache that cannot be opened, where the boot goes on."""
    (place / "overlay/warewulf").mkdir(parents=True)
    (place / "overlay/warewulf/disks.sh").symlink_to(programs.DISKS)
    before = f"mount -t tmpfs tmpfs /run; modprobe() {{ :; }}; root=tmpfs CACHE={place}/mounted device=LABEL=cache"
    done = run(place, server, f'{before}\n{words}\nopen_cache; echo "cache: $cache."', within=PRIVATE)
    assert (done.returncode, done.stdout.endswith("cache: .\n")) == (0, True), done
    (told,) = server.told
    return told


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("ready_disks() { :; }", "there is no LABEL=cache; this node has "),
        ("ready_disks() { reason='/dev/vda is read-only' && return 1; }", "/dev/vda is read-only"),
        ("ready_disks() { :; }; rm -r $STORE/overlay", "its system overlay lacks wwinit"),
        ('ready_disks() { :; }; command() { [ "$2" != touch ]; }', "the image has no touch"),
    ],
)
def test_stage1_cache_that_cannot_be_opened_stops_no_boot(tmp_path: Path, server: Server, words: str, why: str) -> None:
    assert opened(tmp_path, server, words).startswith(f"the cache LABEL=cache is not used: {why}")
