"""The script of stage-1, its parts run by the shell of this machine with a real curl, against servers that fail."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import trees
from support.chroot import furnish
from support.patience import until
from support.stage1 import BODY, Server, archive, bare, inside, listed, run, serving
from wwfast.archive.artefact import TAR_GZ, TAR_ZST
from wwfast.images import archives, filesystems
from wwfast.images.stage1 import programs
from wwfast.pack.build import build, load

#: Words that are programs elsewhere: of the shell itself, arguments of others, and what `chroot` finds in the image.
BUILTIN = {"kill", "echo", "[", "test", "true", "false", "read", "wait", "cd", "umask", "printf", "time"}
ARGUMENTS = {"link", "size", "route", "sum", "node", "wwfast"}
IN_THE_IMAGE = {"gzip", "cpio"}
#: Time for a curl that waits until nothing is sent, twenty times as fast.
FAST = """
curl() {
    before=''
    for word; do
        shift
        if [ "$before" = --speed-time ]; then word=$((word / 20)); fi
        set -- "$@" "$word"
        before=$word
    done
    command curl "$@"
}
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as made:
        yield made


FAULTS = [[], ["cut"], ["503", "cut", "cut"], ["flipped"], ["flipped", "cut", "503", "flipped"]]


@pytest.mark.parametrize("size", [300_000, 40_000], ids=["one in a run", "six in a run"])
@pytest.mark.parametrize("faults", FAULTS, ids=str)
def test_stage1_image_arrives_whole_whatever_happens_on_the_way(
    tmp_path: Path, server: Server, faults: list[str], size: int
) -> None:
    server.faults = list(faults)
    done = run(tmp_path, server, f"fetch_image {listed(tmp_path, size)} {tmp_path}/root")
    assert done.returncode == 0, done
    assert (tmp_path / "root").read_bytes() == BODY
    assert len(server.asked) >= (4 if size == 300_000 else 5) + len(faults)
    assert not list(tmp_path.glob("run.*"))
    assert len(server.told) == faults.count("flipped")


def test_stage1_piece_that_an_image_has_twice_is_fetched_again_once(tmp_path: Path, server: Server) -> None:
    first, *others = (bytes([number]) * 40_000 for number in range(5))
    server.body = b"".join((first, others[0], first, *others[1:]))
    server.faults = ["flipped"]  # at a third: the one that comes again
    done = run(tmp_path, server, f"fetch_image {listed(tmp_path, 40_000, server.body)} {tmp_path}/root")
    assert (done.returncode, (tmp_path / "root").read_bytes() == server.body) == (0, True)
    assert len(server.told) == 1


def test_stage1_cut_piece_goes_on_where_it_ended(tmp_path: Path, server: Server) -> None:
    server.faults = ["cut"]
    listed(tmp_path, len(BODY))
    assert run(tmp_path, server, f"fetch_image {tmp_path}/pieces {tmp_path}/root").returncode == 0
    assert server.asked == [f"bytes=0-{len(BODY) - 1}", f"bytes={len(BODY) // 2}-{len(BODY) - 1}"]


def test_stage1_piece_that_is_wrong_for_ever_stops_the_boot(tmp_path: Path, server: Server) -> None:
    server.always = "flipped"
    done = run(tmp_path, server, f"fetch_image {listed(tmp_path)} {tmp_path}/root")
    assert done.returncode == 9
    assert re.search(r"BOOT STOPPED: the piece of the image at byte \d+ is not what was built, however", done.stdout)
    assert len(server.asked) <= 10
    assert any(words.startswith("BOOT STOPPED: the piece") for words in server.told), (
        "another piece may be told behind it"
    )


@pytest.mark.root
def test_stage1_piece_that_is_wrong_for_ever_restarts_the_node(tmp_path: Path) -> None:
    root = bare(tmp_path)
    (root / "served").write_text("wrong")
    words = f"mkdir /run/wwfast; echo 5 {hashlib.sha256(b'right').hexdigest()} > /list; fetch_image /list /root"
    done = inside(root, words)
    assert done.returncode == 1, done
    *asked, minute, end = (root / "calls").read_text().splitlines()
    assert asked == ["curl"] * 5
    assert (minute, end) == ("sleep 60 ", "sleep 60 b"), "it can be read on the console before"
    assert (root / "proc/sys/kernel/sysrq").read_text() == "1\n"
    stopped = "BOOT STOPPED: the piece of the image at byte 0 is not what was built, however often it is fetched"
    assert f"stage-1: {stopped}\nstage-1: the node reboots in 60 seconds" in done.stdout
    assert (root / "told").read_text().splitlines()[-1] == stopped


@pytest.mark.root
def test_stage1_that_stopped_gives_a_shell_to_who_asked_and_restarts_the_node_after_it(tmp_path: Path) -> None:
    root = bare(tmp_path, "wwinit.shell")
    done = inside(root, "fail it", said='echo "here: $(cat /proc/sysrq-trigger)."\nexit 3\n')
    assert "here: .\n" in done.stdout, "it is not restarted meanwhile"
    assert (root / "calls").read_text() == "sleep 60 b\n"


def test_stage1_next_run_is_fetched_while_one_is_used_and_no_other(tmp_path: Path, server: Server) -> None:
    """What is delivered, and a pipe has no room for, is taken when the test says so."""
    result: list[subprocess.CompletedProcess[str]] = []
    taken = f"{{ until [ -e {tmp_path}/go ]; do command sleep 0.02; done; cat > {tmp_path}/root; }}"
    command = f"RUN=1; deliver {listed(tmp_path, 200_000)} | {taken}"
    node = threading.Thread(target=lambda: result.append(run(tmp_path, server, command)))
    node.start()
    try:
        until((tmp_path / "run.2/taken").exists, 30.0)
        time.sleep(0.5)
        asked = sorted(server.asked)
    finally:
        (tmp_path / "go").touch()
        node.join()
    assert asked == ["bytes=0-199999", "bytes=200000-399999"]
    assert (result[0].returncode, (tmp_path / "root").read_bytes() == BODY) == (0, True)


def test_stage1_two_runs_are_fetched_at_a_time(tmp_path: Path, server: Server) -> None:
    server.faults, server.always = ["two", "two"], "slow"
    done = run(tmp_path, server, f"RUN=1; fetch_image {listed(tmp_path, 100_000)} {tmp_path}/root")
    assert (done.returncode, (tmp_path / "root").read_bytes() == BODY) == (0, True)
    assert (server.most, len(server.asked)) == (2, 11)


def test_stage1_pauses_grow_and_are_not_in_step(tmp_path: Path, server: Server) -> None:
    server.faults = ["503"] * 9
    assert run(tmp_path, server, f"small {server.url} {tmp_path}/file").returncode == 0
    assert (tmp_path / "file").read_bytes() == BODY
    pauses = [float(line) for line in (tmp_path / "pauses").read_text().split()]
    for pause, least in zip(pauses, [1, 2, 4, 8, 16, 32, 32, 32, 32], strict=True):
        assert least <= pause <= 1.5 * least
    assert any(pause != int(pause) for pause in pauses[:4]), "the first ones, too"
    assert len(set(pauses[5:])) > 1


#: A root with an empty /newroot, in which both have this machine's programs, and the directory of the test.
ROOT = """
root=$1; place=$2; shift 2
mkdir -p "$root$place"
mount --bind "$place" "$root$place"
for usr in "$root/usr" "$root/newroot/usr"; do mount --bind /usr "$usr"; mount -o remount,bind,ro "$usr"; done
for each in /proc /dev; do mount --rbind "$each" "$root$each"; done
cd /
exec chroot "$root" "$@"
"""


@pytest.mark.root
@pytest.mark.parametrize("what", ["list", "overlay"])
def test_stage1_server_that_is_not_there_yet_is_waited_for(tmp_path: Path, what: str) -> None:
    """Its connections are refused, and then it is there; so it is for pieces, below."""
    tree, root = tmp_path / "overlay", tmp_path / "root"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/motd").write_text("of the overlay\n")
    archive = subprocess.run(["cpio", "-o", "-H", "newc"], input=b"etc\netc/motd\n", cwd=tree, capture_output=True)
    body = BODY if what == "list" else gzip.compress(archive.stdout)
    for place in (root, root / "newroot"):
        furnish(place)
    given = f"given={hashlib.sha256(body).hexdigest()}"
    command = f"{given}; fetch_list {tmp_path}/list" if what == "list" else "overlay system"
    within = ["unshare", "-m", "sh", "-euc", ROOT, "root", str(root), str(tmp_path)]
    with serving(Server()) as former:
        pass
    result: list[subprocess.CompletedProcess[str]] = []
    node = threading.Thread(target=lambda: result.append(run(tmp_path, former, command, within=within)))
    node.start()
    pauses = tmp_path / "pauses"
    until(lambda: bool(result) or (pauses.exists() and len(pauses.read_text().split()) > 3), 30.0)
    assert not result, "it waits for ever"
    with serving(Server(body, former.server_port)) as server:
        node.join()
    assert result[0].returncode == 0, result
    assert "curl: (7)" in result[0].stderr, "the reason is on the console"
    assert (server.told, len(server.asked)) == ([], 1)
    if what == "list":
        assert (tmp_path / "list").read_bytes() == body
    else:
        assert (root / "newroot/etc/motd").read_text() == "of the overlay\n"
        assert not (root / "newroot/.wwfast.gz").exists()


@pytest.mark.parametrize("answer", ["403", "404"])
@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("fetch_list list", "{url}"),
        ("fetch_image pieces root", "the image"),
        ("unpack_image pieces .", "the image"),
        ("small $base/overlay overlay", "{base}/overlay"),
    ],
)
def test_stage1_server_that_refuses_stops_the_boot(
    tmp_path: Path, server: Server, command: str, what: str, answer: str
) -> None:
    server.always = answer
    listed(tmp_path)
    done = run(tmp_path, server, f"cd {tmp_path}; {command}")
    what = what.format(url=f"{server.url}", base=server.base)
    assert done.returncode == 9
    assert server.told == [f"BOOT STOPPED: the server refuses {what}: it answers {answer}"]
    pauses = [float(line) for line in (tmp_path / "pauses").read_text().split()]
    assert sum(pauses) > 120, "some minutes, in which it may be that the server knows better"
    assert len(server.asked) <= 20, "ten for each range"


def test_stage1_server_that_is_away_or_busy_is_asked_for_ever(tmp_path: Path, server: Server) -> None:
    server.faults = ["404"] * 9 + ["503"] * 20 + ["403"] * 9 + ["500"] * 11 + ["429"] * 11
    assert run(tmp_path, server, f"small {server.url} {tmp_path}/file").returncode == 0
    assert (tmp_path / "file").read_bytes() == BODY
    assert not server.told


def test_stage1_node_is_held_until_it_is_its_turn(tmp_path: Path, server: Server) -> None:
    server.faults = ["held"]
    done = run(tmp_path, server, f"{FAST}stretch 0 {len(BODY)} {tmp_path}/file")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(server.asked) == 1
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.root
def test_stage1_connection_that_is_dead_is_noticed_soon(tmp_path: Path, server: Server) -> None:
    server.faults = ["gone"]
    begun = time.monotonic()
    done = run(tmp_path, server, f"stretch 0 {len(BODY)} {tmp_path}/file")
    assert done.returncode == 0, done
    assert time.monotonic() - begun < 30
    assert "the image stopped at byte" in done.stdout
    assert (tmp_path / "file").read_bytes() == BODY


#: As Linux shows them (20 octets of InfiniBand, 6 of others), and as the firmware of the card or a boot loader does.
IB0 = "80:00:02:08:fe:80:00:00:00:00:00:00:ec:0d:9a:03:00:9c:81:e2"


@pytest.mark.root
@pytest.mark.parametrize(
    ("wwid", "card"),
    [
        ("ec:0d:9a:9c:81:e2", "ib0"),
        ("ec:0d:9a:03:00:9c:81:e2", "ib0"),
        (IB0, "ib0"),
        ("ec:0d:9a:9c:81:e3", "eth0"),
        ("ec:0d:9a:03:00:9c", ""),
        ("03:00:9c:81:e2", ""),
    ],
)
def test_stage1_finds_the_card_that_the_firmware_told(tmp_path: Path, server: Server, wwid: str, card: str) -> None:
    """A card of InfiniBand is no network device before its module is loaded, for which nothing asks."""
    command = f"""
mount -t tmpfs tmpfs /sys/class
mkdir -p /sys/class/infiniband/mlx5_0 /sys/class/net/eth0 /sys/class/net/lo
echo 00:00:00:00:00:00 > /sys/class/net/lo/address
echo ec:0d:9a:9c:81:e3 > /sys/class/net/eth0/address
echo 1 > /sys/class/net/eth0/carrier
modprobe() {{
    [ "$*" = "-q -b ib_ipoib" ] && mkdir -p /sys/class/net/ib0
    echo {IB0} > /sys/class/net/ib0/address
    echo 1 > /sys/class/net/ib0/carrier
}}
ip() {{ echo "ip $*"; }}
given=10.0.0.9/24 wwid={wwid}
network_up"""
    done = run(tmp_path, server, command, within=["unshare", "-m"])
    if card:
        assert (done.returncode, done.stderr) == (0, "")
        assert f"ip address add 10.0.0.9/24 dev {card}\n" in done.stdout
    else:
        assert done.returncode == 9
        assert f"no network device has the address {wwid}" in done.stdout


@pytest.mark.root
def test_stage1_names_the_cards_that_it_has_no_driver_for(tmp_path: Path, server: Server) -> None:
    devices = {"0": "0x020000 0x8086 0x1533", "1": "0x020000 0x1af4 0x1000", "2": "0x030000 0x1002 0x73bf"}
    made = ""
    for slot, facts in devices.items():
        place = f"/sys/bus/pci/devices/0000:00:0{slot}.0"
        made += f"mkdir -p {place}\n"
        for name, value in zip(("class", "vendor", "device"), facts.split(), strict=True):
            made += f"echo {value} > {place}/{name}\n"
    command = f"""
mount -t tmpfs tmpfs /sys
mkdir -p /sys/class/net/lo
echo 00:00:00:00:00:00 > /sys/class/net/lo/address
{made}
ln -s ../../drivers/virtio-pci /sys/bus/pci/devices/0000:00:01.0/driver
mkdir -p /sys/bus/pci/drivers/virtio-pci
network_up"""
    done = run(tmp_path, server, command, within=["unshare", "-m"])
    assert done.returncode == 9
    said = "no network device has the address 52:54:00:00:00:01; cards without a driver: 8086:1533\n"
    assert done.stdout == f"stage-1: BOOT STOPPED: {said}"


#: A boot in which nothing is loaded, configured or fetched, but noted.
ORDER = """
for name in load_drivers network_up fetch_list unpack_image fetch_image overlay; do
    eval "$name() { noted $name; }"
done
noted() {
    left=$(ls -d /lib/modules/x /lib/firmware/x /usr/lib/modules/x /usr/lib/firmware/x | wc -l)
    echo "$1 $left" >> /calls
} 2> /dev/null
"""


@pytest.mark.root
def test_stage1_drivers_leave_the_memory_before_the_image_comes(tmp_path: Path) -> None:
    root = bare(tmp_path, "wwfast.root=tmpfs wwid=n")
    for place in ("lib", "usr/lib"):
        for kind in ("modules/x", "firmware/x", "libc"):
            (root / place / kind).mkdir(parents=True)
    (root / "newroot").mkdir()
    (root / "newroot/init").touch(0o755)
    done = inside(root, ORDER, main=True)
    assert (done.returncode, done.stderr) == (0, "")
    calls = [line for line in (root / "calls").read_text().splitlines() if not line.startswith("mount ")]
    assert calls == [
        "load_drivers 4", "network_up 4", "fetch_list 0", "unpack_image 0", "overlay 0", "switch_root /newroot /init",
    ]  # fmt: skip
    assert (root / "lib/libc").exists()
    assert (root / "usr/lib/libc").exists()


@pytest.mark.root
@pytest.mark.parametrize(("heads", "meanwhile"), [("", "15"), (" wwfast.heads=http://a,http://b", "6")])
def test_follow_stage1_request_that_nobody_hears_is_given_up_soon(tmp_path: Path, heads: str, meanwhile: str) -> None:
    """By TCP itself, where there is another head; the system has what it had."""
    root = bare(tmp_path, f"wwfast.root=tmpfs wwid=n{heads}")
    tries = root / "proc/sys/net/ipv4/tcp_retries2"
    tries.parent.mkdir(parents=True)
    tries.write_text("15\n")
    (root / "newroot").mkdir()
    (root / "newroot/init").touch(0o755)
    done = inside(root, f"{ORDER}\nfetch_list() {{ echo tries $(cat {TRIES}) >> /calls; }}", main=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"tries {meanwhile}\n" in (root / "calls").read_text()
    assert tries.read_text() == "15\n"


TRIES = "/proc/sys/net/ipv4/tcp_retries2"


@pytest.mark.root
@pytest.mark.parametrize("lacks", ["", "device", "size", "mkfs.ext4"])
def test_stage1_writes_to_a_tmpfs_where_there_is_no_zram(tmp_path: Path, lacks: str) -> None:
    root = bare(tmp_path, "wwfast.root=squashfs wwfast.upper=zram wwid=n")
    for place in ("newroot", "sys/block/zram0"):
        (root / place).mkdir(parents=True)
    (root / "newroot/init").touch(0o755)
    if lacks != "device":
        os.mknod(root / "dev/zram0", 0o600 | stat.S_IFBLK, os.makedev(0, 0))
    if lacks == "size":
        (root / "sys/block/zram0/disksize").mkdir()
    if lacks != "mkfs.ext4":
        (root / "bin/mkfs.ext4").write_text("#!/bin/sh\necho mkfs.ext4 >> /calls\n")
        (root / "bin/mkfs.ext4").chmod(0o755)
    words = """
mount() { echo mount "$@" >> /calls; case "$*" in *zram0*) mkdir "$6/lost+found" ;; esac; }
fetch_image() { echo image > "$2"; }
"""
    done = inside(root, ORDER + words, main=True)
    assert done.returncode == 0, done
    calls = (root / "calls").read_text()
    at = "/run/wwfast/written"
    assert "mount -t tmpfs -o mode=0700,size=90% tmpfs /run/wwfast\n" in calls
    assert f"upperdir={at}/upper,workdir={at}/work overlay /newroot\n" in calls
    assert (f"/dev/zram0 {at}\n" in calls) == (not lacks)
    said = "no zram, or no mkfs.ext4: what is written is kept in a tmpfs\n"
    assert (root / "told").read_text() == (said if lacks else "")
    assert done.stdout.count("kept in a tmpfs") == (1 if lacks else 0)
    assert sorted(path.name for path in (root / at.lstrip("/")).iterdir()) == ["upper", "work"]


def test_stage1_calls_what_it_says_it_calls() -> None:
    """Or one would be missing that no image builds in: each word that is a program on this machine is looked at."""
    text = re.sub(r"(?m)^\s*#.*$|\s#\s.*$", "", programs.INIT.read_text())
    text = re.sub(r'\b(say|fail|ailing [a-z]+|report) "[^"]*"', "", text)
    words = set(re.findall(r"(?<![\w$/.-])[a-z][a-z0-9_]*(?:\.ext4)?(?![\w=])", text))
    called = {word for word in words if shutil.which(word)} - BUILTIN - ARGUMENTS
    assert {"curl", "switch_root", "sha256sum", "modprobe"} <= called
    assert called == set(programs.wanted()) | set(programs.optional()) | set(programs.for_what_stays()) | IN_THE_IMAGE


def test_disk_script_calls_what_it_says_it_calls() -> None:
    """By the places where a command may stand."""
    text = re.sub(r"(?m)^\s*#.*$|\s#\s.*$|`[^`]*`", "", programs.DISKS.read_text())
    functions = set(re.findall(r"(?m)^([a-z_]+)\(\) \{", text))
    text = re.sub(r"\b(if|then|do|else|until|while)\s", ";", text)
    found = re.findall(r"(?m)(?:^|[|;&(!)]|\{\s)\s*([a-z][a-z0-9_.]+)(?![\w=)])", text)
    called = {word for word in found if shutil.which(word)} - BUILTIN - functions
    said = set(programs.for_disks()) | set(programs.for_some_disks())
    assert called <= said, called - said
    assert {"blkid", "sfdisk", "partx", "wipefs", "e2label", "xfs_db", "fatlabel", "head", "tail", "tr", "rm"} <= called


def test_stage1_list_of_pieces_is_what_the_script_reads(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "PIECE", 1 << 18)
    (tmp_path / "squashfs").write_bytes(BODY)
    info = filesystems.listed(tmp_path / "squashfs")
    beside = tmp_path / "squashfs.pieces"
    assert hashlib.sha256(beside.read_bytes()).hexdigest() == info.pieces
    done = run(tmp_path, server, f"fetch_image {beside} {tmp_path}/root")
    assert (done.returncode, (tmp_path / "root").read_bytes() == BODY, len(server.asked)) == (0, True, 4)


@pytest.mark.parametrize("faults", FAULTS, ids=str)
@pytest.mark.parametrize("form", [TAR_ZST, TAR_GZ])
def test_stage1_archive_is_unpacked_whatever_happens_on_the_way(tmp_path: Path, faults: list[str], form: str) -> None:
    body, tree, pieces = archive(tmp_path, form)
    without = "command() { return 1; }; " if form == TAR_GZ else ""
    with serving(Server(body)) as server:
        server.faults = list(faults)
        done = run(tmp_path / "store", server, f"{without}RUN=1000000; unpack_image {pieces} {tmp_path}/new")
        assert len(server.asked) < 7 + len(faults) * 2, "pieces that stand one behind the other are one request"
    assert done.returncode == 0, done
    assert trees.read(tmp_path / "new") == trees.read(tree)
    assert "tar:" not in done.stdout + done.stderr, "nothing is said of times that are in the future"


def test_stage1_server_is_killed_inside_a_piece_and_another_one_goes_on_in_it(tmp_path: Path) -> None:
    body, tree, pieces = archive(tmp_path)
    with serving(Server(body)) as first:
        first.faults = ["killed"]
        result: list[subprocess.CompletedProcess[str]] = []
        command = f"RUN=1; unpack_image {pieces} {tmp_path}/new"
        node = threading.Thread(target=lambda: result.append(run(tmp_path / "store", first, command)))
        node.start()
        pauses = tmp_path / "store/pauses"
        until(lambda: pauses.exists() and len(pauses.read_text().split()) > 3, 30.0)
        assert not result, "it waits for ever"
        with serving(Server(body, first.server_port)) as second:
            node.join()
            sizes = [int(line.split()[0]) for line in pieces.read_text().splitlines()]
            starts = {sum(sizes[:number]) for number in range(len(sizes))}
            went_on = [int(asked.removeprefix("bytes=").partition("-")[0]) for asked in second.asked]
    assert result[0].returncode == 0
    assert trees.read(tmp_path / "new") == trees.read(tree)
    assert set(went_on) - starts, "at a byte that is no start of a piece"
    assert "curl: (7)" in result[0].stderr, "the reason is on the console"


@pytest.mark.parametrize(
    "command", ["fetch_list list", "fetch_image pieces root", "unpack_image pieces .", "small $base/overlay overlay"]
)
def test_stage1_server_that_is_away_too_long_stops_the_boot_of_who_limits_it(tmp_path: Path, command: str) -> None:
    with serving(Server()) as server:
        pass
    listed(tmp_path)
    done = run(tmp_path, server, f"cd {tmp_path}; patience=1; {command}")
    assert done.returncode == 9
    assert "BOOT STOPPED: " in done.stdout
    assert "in 1 s" in done.stdout


def test_stage1_list_of_another_build_stops_the_boot(tmp_path: Path, server: Server) -> None:
    right = hashlib.sha256(BODY).hexdigest()
    assert run(tmp_path, server, f"given={right}; fetch_list {tmp_path}/list").returncode == 0
    server.faults = ["flipped"]
    done = run(tmp_path, server, f"given={right}; fetch_list {tmp_path}/list")
    assert done.returncode == 9
    assert server.told == ["BOOT STOPPED: the list of the image's pieces is not that of this boot"]
    assert server.memory == ["512"] * 3, "told with each request, and with what stopped the boot"


@pytest.mark.root
@pytest.mark.parametrize("full", ["new", "store"])
def test_stage1_memory_that_is_full_stops_the_boot_and_says_so(tmp_path: Path, full: str) -> None:
    body, _, pieces = archive(tmp_path)
    mounted = f"mount -t tmpfs -o size=3m tmpfs {tmp_path}/{full}"
    with serving(Server(body)) as server:
        done = run(
            tmp_path / "store", server, f"{mounted}; unpack_image {pieces} {tmp_path}/new", within=["unshare", "-m"]
        )
        told = server.told
    assert done.returncode == 9
    if full == "store":
        assert told == ["BOOT STOPPED: there is no room for the image in memory"]
    else:
        assert "the image cannot be unpacked into 512 MiB of memory: tar: usr/" in told[0]
        assert "No space left on device" in done.stdout or "Wrote only" in done.stdout


@pytest.mark.root
@pytest.mark.parametrize("limit", ["size=512k", "nr_inodes=1"], ids=["bytes", "files"])
@pytest.mark.parametrize(
    ("command", "what"),
    [("small $base/system full/file", "{base}/system"), ("fetch_image pieces full/root", "the image")],
    ids=["overlay", "image"],
)
def test_stage1_file_that_has_no_room_stops_the_boot(
    tmp_path: Path, server: Server, command: str, what: str, limit: str
) -> None:
    listed(tmp_path)
    (tmp_path / "full").mkdir()
    words = f"cd {tmp_path}; mount -t tmpfs -o {limit} tmpfs full; STORE={tmp_path}/full; {command}"
    done = run(tmp_path, server, words, within=["unshare", "-m"])
    assert done.returncode == 9
    assert server.told == [f"BOOT STOPPED: there is no room for {what.format(base=server.base)} in memory"]


@pytest.mark.root
def test_stage1_tells_what_the_file_system_of_the_root_cannot_keep(tmp_path: Path) -> None:
    """tmpfs has user.* since Linux 6.6; ramfs has none of any kernel."""
    body, tree, pieces = archive(tmp_path)
    os.setxattr(tree / "usr/file7", "user.x", b"1")
    made = build(tree, tmp_path / "again", name="t", formats=("zst",), archive=TAR_ZST, frames=tmp_path / "frames")
    archives.listed(tmp_path / "again", made)
    packed = load(tmp_path / "again", TAR_ZST)
    assert packed is not None
    body = b"".join(Path(path).read_bytes()[at : at + length] for path, at, length in packed.extents)
    pieces = tmp_path / "again/tmpfs.pieces"
    mounted = f"mount -t ramfs ramfs {tmp_path}/new"
    with serving(Server(body)) as server:
        done = run(
            tmp_path / "store", server, f"{mounted}; unpack_image {pieces} {tmp_path}/new", within=["unshare", "-m"]
        )
    assert done.returncode == 0
    assert "user.x" in done.stdout
