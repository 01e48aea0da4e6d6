"""The way in which an image comes to a node: a table of images, machines and what nodes ask for."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from wwfast.archive.artefact import DISK, EROFS, FILESYSTEMS, PIECES, SQUASHFS, TMPFS, Artefact, Extent
from wwfast.boot import stage1, ways
from wwfast.boot.standing import ServedImage, ServedKernel
from wwfast.boot.ways import BIOS, MIB, UEFI, Machine
from wwfast.cli.main import main
from wwfast.config import checks
from wwfast.errors import WwfastError
from wwfast.nodes.model import Kernel, Node, Wwfast
from wwfast.paths import SHARE, Paths

RELEASE = "6.1.0-1"
ALL = (TMPFS, SQUASHFS, EROFS)


def artefact(size: int) -> Artefact:
    return Artefact("x", "zst", (Extent("/x", 0, size * MIB),), "0", ("zst",), 0)


def image(*roots: str, unpacked: int = 378, packed: int = 101, mounted: int = 95) -> ServedImage:
    """An image of so many MiB, by default Debian's, with stage-1 and what it takes for these roots."""
    stage1 = artefact(10)
    least = (unpacked + packed + 192) * MIB
    made = {kind: artefact(mounted if kind == SQUASHFS else mounted * 4 // 3) for kind in roots}
    made |= {kind + PIECES: artefact(1) for kind in roots}
    return ServedImage(
        "debian", "debian@1", "amd64", "zst", least, unpacked * MIB, {"zst": artefact(packed)},
        made, {RELEASE: stage1} if roots else {}, {RELEASE: (*FILESYSTEMS, TMPFS, DISK)} if roots else {},
    )  # fmt: skip


def large(*roots: str, packed: int = 5000) -> ServedImage:
    return image(*roots, unpacked=2 * packed, packed=packed, mounted=packed * 9 // 10)


def node(root: str = "", said: str = "", cache: str = "", disk_root: str = "") -> Node:
    return Node(id="n1", root=root, wwfast=Wwfast(two_stage=said, cache=cache, disk_root=disk_root))


def chosen(
    image: ServedImage, memory: int = 0, firmware: str = "", root: str = "", said: str = "", release: str = RELEASE,
    cache: str = "",
) -> str:  # fmt: skip
    """The root that stage-1 makes, `one` for one stage, or `none`."""
    try:
        found = ways.choose(image, node(root, said, cache), release, Machine(memory, firmware))
    except WwfastError:
        return "none"
    return found.root or "one"


@pytest.mark.parametrize(
    ("offers", "memory", "expected"),
    [
        # As measured in virtual machines: the least memory that came to a login, and what ran full.
        (ALL, 3072, "one"), (ALL, 896, "one"), (ALL, 768, TMPFS), (ALL, 640, TMPFS), (ALL, 512, TMPFS),
        (ALL, 384, SQUASHFS), (ALL, 256, SQUASHFS), (ALL, 128, "none"),
        ((SQUASHFS, EROFS), 768, SQUASHFS), ((EROFS,), 512, EROFS), ((EROFS,), 384, EROFS),
        ((TMPFS,), 384, "none"), ((), 896, "one"), ((), 768, "none"),
    ],
)  # fmt: skip
def test_way_of_a_node_that_asks_for_no_root_is_the_first_that_fits(
    offers: tuple[str, ...], memory: int, expected: str
) -> None:
    assert chosen(image(*offers), memory, BIOS) == expected


@pytest.mark.parametrize(
    ("root", "said", "memory", "expected"),
    [
        ("initramfs", "", 512, TMPFS), ("tmpfs", "", 512, TMPFS), ("ramfs", "auto", 512, TMPFS),
        ("initramfs", "", 384, "none"), ("UNDEF", "UNDEF", 384, SQUASHFS),
        ("initramfs", "", 3072, "one"), ("initramfs", "always", 3072, TMPFS), ("", "always", 3072, TMPFS),
        ("", "always", 384, SQUASHFS), ("", "never", 768, "none"), ("", "never", 896, "one"),
        ("squashfs", "", 3072, SQUASHFS), ("erofs", "", 3072, EROFS), ("squashfs", "always", 3072, SQUASHFS),
        ("squashfs", "never", 3072, "none"), ("squashfs", "", 128, "none"),
        ("/dev/sda1", "", 3072, "one"), ("/dev/sda1", "", 512, DISK), ("/dev/sda1", "never", 3072, "one"),
        ("LABEL=root", "always", 3072, DISK), ("/dev/sda1", "", 128, "none"), ("/dev/sda1", "never", 512, "none"),
        ("/dev/disk/by-path/x", "", 3072, "one"), ("/dev/disk/by-path/x", "always", 3072, "none"),
    ],
)  # fmt: skip
def test_way_is_what_root_and_two_stage_ask_for(root: str, said: str, memory: int, expected: str) -> None:
    assert chosen(image(*ALL), memory, BIOS, root, said) == expected


@pytest.mark.parametrize(
    ("root", "said", "memory", "expected"),
    [
        ("", "", 3072, TMPFS), ("initramfs", "auto", 3072, TMPFS), ("", "", 0, TMPFS), ("", "", 384, SQUASHFS),
        ("squashfs", "", 3072, SQUASHFS), ("LABEL=root", "", 3072, DISK), ("/dev/disk/by-path/x", "", 3072, "one"),
        ("", "never", 3072, "one"), ("", "always", 3072, TMPFS), ("", "", 128, "none"),
    ],
)  # fmt: skip
def test_way_of_a_node_with_a_cache_is_in_two_stages_where_that_can_be(
    root: str, said: str, memory: int, expected: str
) -> None:
    assert chosen(image(*ALL), memory, BIOS, root, said, cache="LABEL=cache") == expected
    unable = replace(image(*ALL), mounts={RELEASE: (*FILESYSTEMS, TMPFS)})  # no programs for disks
    without = chosen(image(*ALL), memory, BIOS, root, said)
    assert chosen(unable, memory, BIOS, root, said, cache="LABEL=cache") == (without if without != DISK else "none")
    assert chosen(image(*ALL), memory, BIOS, root, said, cache="UNDEF") == without


def test_way_of_a_node_whose_stage1_did_not_come_up_is_not_for_its_cache() -> None:
    cached = node(cache="LABEL=cache")
    ways_of = [ways.choose(image(*ALL), cached, RELEASE, Machine(3072, BIOS, silent=it)).root for it in (False, True)]
    assert ways_of == [TMPFS, ""]


@pytest.mark.parametrize(
    ("offers", "firmware", "expected"),
    [
        (image(*ALL, unpacked=180, packed=60), UEFI, "one"),  # 452 MiB: safe on whatever there is
        (image(*ALL), UEFI, TMPFS),  # 889: above what is taken for granted
        (image(SQUASHFS), "", SQUASHFS),
        (image(*ALL, unpacked=900), UEFI, SQUASHFS),  # so is tmpfs
        (image(TMPFS, unpacked=3000), UEFI, TMPFS),  # stage-1 looks before it fetches
        (image(), UEFI, "one"),
        (image(unpacked=900, packed=300), UEFI, "one"),  # there is no other way, and it may be a large machine
        (large(*ALL), "", SQUASHFS), (large(), UEFI, "one"), (large(), BIOS, "none"),
    ],
)  # fmt: skip
def test_way_on_a_machine_that_does_not_tell_its_memory(offers: ServedImage, firmware: str, expected: str) -> None:
    assert chosen(offers, 0, firmware) == expected


@pytest.mark.parametrize(
    ("packed", "offers", "firmware", "expected"),
    [
        (1900, ALL, BIOS, "one"), (1950, ALL, BIOS, TMPFS), (1950, ALL, UEFI, "one"), (2048, ALL, UEFI, TMPFS),
        (2048, (), UEFI, "one"), (2048, (), BIOS, "one"), (3100, (), BIOS, "none"), (5000, (), UEFI, "one"),
        (5000, ALL, BIOS, TMPFS), (5000, (SQUASHFS,), BIOS, SQUASHFS),
    ],
)  # fmt: skip
def test_way_does_not_ask_boot_loaders_for_more_than_they_hold(
    packed: int, offers: tuple[str, ...], firmware: str, expected: str
) -> None:
    assert chosen(large(*offers, packed=packed), 1 << 18, firmware) == expected


@pytest.mark.parametrize("args", [["root=/dev/ram0"], ["quiet", "rootfstype=ramfs"]])
def test_way_in_one_stage_needs_less_where_the_initramfs_is_no_tmpfs(args: list[str]) -> None:
    """The kernel makes it one unless root= or rootfstype= say otherwise (init/do_mounts.c), and half is its limit."""
    asks = Node(id="n1", kernel=Kernel(args=args))
    assert ways.choose(image(), asks, RELEASE, Machine(700, BIOS)).why == "in one stage: needs 671 MiB of 700"
    asks = Node(id="n1", kernel=Kernel(args=["rootfstype=tmpfs,ramfs"]))
    with pytest.raises(ways.UnfitError, match="which has 700 MiB of memory: in one stage it needs 889"):
        ways.choose(image(), asks, RELEASE, Machine(700, BIOS))


@pytest.mark.parametrize("size", [100, 378, 600, 650, 1000, 2000, 10_000, 200_000])
def test_way_in_two_stages_leaves_room_for_pieces_and_overlays(size: int) -> None:
    for way in ways.offered(image(*ALL, unpacked=size, mounted=size), RELEASE)[1:4]:
        assert ways.FILLED * ways.total(way.need) - size >= 20, way


def test_way_in_one_stage_comes_first_for_who_was_silent_in_two() -> None:
    machine = Machine(0, UEFI, silent=True)
    assert ways.choose(image(*ALL), node(), RELEASE, machine).root == ""
    assert ways.choose(image(*ALL), node("squashfs"), RELEASE, machine).root == SQUASHFS
    assert ways.choose(large(*ALL), node(), RELEASE, Machine(0, BIOS, silent=True)).root, "which BIOS cannot load"


def test_way_in_two_stages_is_none_where_something_is_missing() -> None:
    whole = image(SQUASHFS)
    assert chosen(whole, 384) == SQUASHFS
    for lacking in (replace(whole, stage1={}), replace(whole, mounts={}), replace(whole, roots={})):
        assert chosen(lacking, 384) == "none"
        assert chosen(lacking, 3072) == "one"
        assert chosen(lacking, 3072, root="squashfs") == "none"
    assert chosen(whole, 384, release="6.1.0-2") == "none"
    kernel = ServedKernel("6.6.0", whole.artefacts["zst"])
    apart = Node(id="n1", root="squashfs", kernel=Kernel(override="mine"))
    with pytest.raises(WwfastError, match="kernel mine has no drivers for stage-1"):
        ways.choose(stage1.with_kernel(replace(whole, programs=whole.artefacts), kernel), apart, "6.6.0", Machine())


def test_way_is_said_with_its_numbers() -> None:
    def why(memory: int, root: str = "", said: str = "", former: bool = False) -> str:
        return ways.choose(image(*ALL), node(root, said), RELEASE, Machine(memory, BIOS, former)).why

    assert why(3072) == "in one stage: needs 889 MiB of 3072"
    assert why(512) == "in two stages as tmpfs: needs 489 MiB of 512; in one stage it would need 889"
    assert why(384, former=True) == (
        "in two stages as squashfs: needs 226 MiB of 384 (as it last reported); in one stage it would need 889"
    )
    assert why(3072, "erofs") == "in two stages as erofs: needs 257 MiB of 3072; root is erofs"
    assert why(3072, said="always").endswith("; two stage is always")
    cached = ways.choose(image(*ALL), node(cache="LABEL=cache"), RELEASE, Machine(3072, BIOS)).why
    assert cached == "in two stages as tmpfs: needs 489 MiB of 3072; it has a cache"
    kept = node("LABEL=root", cache="LABEL=cache", disk_root="update")
    told = ways.choose(image(*ALL), kept, RELEASE, Machine(3072, BIOS)).why
    assert told == "in two stages as disk: needs 201 MiB of 3072; its root on the disk is updated"
    one = ways.choose(image(*ALL), node("", disk_root="update"), RELEASE, Machine(3072, BIOS))
    assert one.root == "", "it is on no disk"
    assert why(0) == (
        "in two stages as tmpfs: needs 489 MiB of a memory that it does not tell; "
        "in one stage it would need 889, and 512 are taken for granted"
    )
    told = ways.choose(large(SQUASHFS), node(), RELEASE, Machine(1 << 16, BIOS)).why
    assert told.endswith("in one stage the boot loader would hold 5000 MiB, and 1920 are safe")


def test_way_that_is_none_is_told_with_the_numbers_of_each() -> None:
    def none(image: ServedImage, memory: int, root: str = "", said: str = "") -> tuple[str, str]:
        with pytest.raises(WwfastError) as caught:
            ways.choose(image, node(root, said), RELEASE, Machine(memory, BIOS))
        return caught.value.message, caught.value.hint or ""

    said, _ = none(image(*ALL), 128)
    assert said.startswith("image debian does not fit node n1, which has 128 MiB of memory: in one stage it needs 889")
    assert re.findall(r"(\w+) it needs (\d+)", said) == [
        ("stage", "889"), ("tmpfs", "489"), ("squashfs", "226"), ("erofs", "257"),
    ]  # fmt: skip
    assert none(image(SQUASHFS), 384, "initramfs")[1] == "wwfast node set n1 --root squashfs"
    assert none(image(*ALL), 512, said="never")[1] == "wwfast node set n1 --twostage auto"
    assert none(image(), 512)[1].startswith("wwfast image build")
    assert none(image(), 512, said="always")[0].startswith("image debian is not built as tmpfs; ")
    assert "in one stage 5000 MiB are to be loaded, and bios has room for 3072" in none(large(), 1 << 16)[0]


def test_way_a_memory_and_what_linux_has_of_it_are_one_figure() -> None:
    for memory in (256, 512, 3072, 1 << 20):
        assert ways.whole(ways.total(memory)) == pytest.approx(memory, abs=2)
    assert (ways.whole(0), ways.total(16)) == (0, 0)
    # MemTotal of the machines on which the need was measured.
    assert ways.total(ways.offered(image(*ALL), RELEASE)[1].need) < 470
    assert "size=90%" in (SHARE / "stage1/init").read_text(), "what stage-1 fills is what is judged with"
    assert ways.FILLED == 0.9


@pytest.mark.parametrize("said", ["", *checks.TWO_STAGE, "UNDEF"])
def test_two_stage_is_one_of_a_few_words(said: str) -> None:
    assert checks.two_stage(said) == "" if said else True
    assert checks.two_stage("yes") == "'yes' is none of auto, always, never"


def test_two_stage_that_does_not_fit_the_root_is_refused_where_it_is_written(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.etc.mkdir(parents=True, exist_ok=True)
    paths.nodes_conf.write_text(
        "nodeprofiles:\n  default: {}\n  big: {root: squashfs}\n"
        "nodes:\n  n1: {profiles: [default]}\n  n2: {profiles: [big]}\n"
    )

    def refused(*words: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(paths.root), *words, "--yes"])
        said = capsys.readouterr().err
        assert (caught.value.code != 0) == bool(said), said
        return said

    told = "root squashfs always comes in two stages, and two stage is never"
    before = paths.nodes_conf.read_bytes()
    assert f"node n1: {told}" in refused("node", "set", "n1", "--root", "squashfs", "--twostage", "never")
    assert f"node n2: {told}" in refused("node", "set", "n2", "--twostage", "never")
    assert f"node n2: {told}" in refused("profile", "set", "big", "--twostage", "never")
    assert "is none of auto, always, never" in refused("node", "set", "n1", "--twostage", "on")
    for device in ("yes", "tmpfs", "LABEL=a cache"):
        assert f"'{device}' is no device for a cache" in refused("node", "set", "n1", "--cache", device)
    assert "which iPXE would run" in refused("node", "set", "n1", "--cache", "/dev/x || y")
    assert "is none of tmpfs, zram" in refused("node", "set", "n1", "--upper", "disk")
    assert "is none of rebuild, update" in refused("node", "set", "n1", "--diskroot", "keep")
    assert paths.nodes_conf.read_bytes() == before
    assert refused("node", "set", "n1", "--twostage", "never") == ""
    assert "wwfast: {two stage: never}" in paths.nodes_conf.read_text()
    assert f"node n1: {told}" in refused("profile", "set", "default", "--root", "squashfs")
    assert refused("node", "set", "n1", "--root", "/dev/sda1", "--twostage", "always") == ""
    assert refused("node", "set", "n1", "--cache", r"LABEL=a\x20cache") == ""
    assert r"cache: 'LABEL=a\x20cache'" in paths.nodes_conf.read_text()
    assert refused("node", "set", "n1", "--diskroot", "update") == ""
    assert "disk root: update" in paths.nodes_conf.read_text()
