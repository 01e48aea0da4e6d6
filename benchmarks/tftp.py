"""TFTP against dnsmasq, tftpd-hpa and atftpd: window sizes, a lossy link, thousands of clients at once.

All serve the same files from page cache in a namespace; the clients (wwfast._ext.tftpload) are in another one. A
longer round trip is made by the client, which holds back its acknowledgements; loss is nftables' `numgen random` in
the clients' namespace, both ways.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks._harness import Bench, alternate
from benchmarks._udp import ONE_CORE, PYTHON, Namespace, most_files, network, ours, program, ready, unpack

ADDRESS = "10.99.0.1"
#: A peer that takes this many times as long as we do with the lossy crowd is stopped.
SLOWER = 2.2
IPXE = {"blksize": "1432", "tsize": "0"}
CLIENT = """
import json, sys
from pathlib import Path
from wwfast._ext.tftpload import Crowd
from wwfast.net.dhcp.packet import number
from wwfast.net.tftp import packet
ask = json.loads(sys.argv[1])
crowd = Crowd(number(ask["server"]), 69, packet.request(ask["name"], ask["options"]), Path(ask["file"]).read_bytes(),
              count=ask["count"], delay=ask["delay"], patience=60.0)
crowd.run()
print(json.dumps({name: getattr(crowd, name) for name in ("seconds", "completed", "failed", "wrong")}))
"""

Server = Callable[..., contextlib.AbstractContextManager[Any]]


def servers(bench: Bench, space: Namespace, files: str) -> dict[str, Server]:
    """Each by its best known settings for many clients."""
    hpa, dnsmasq = program("in.tftpd", "tftpd-hpa"), program("dnsmasq", "dnsmasq-base")
    atftpd = unpack("atftpd", "usr/sbin/atftpd")
    bench.peer("dnsmasq", dnsmasq, "--version")
    bench.peer("tftpd-hpa", hpa, "-V")
    bench.peer("atftpd", atftpd, "--version")
    return {
        "wwfast": partial(ours, space, address=ADDRESS, files=files, dhcp=False),
        "dnsmasq": partial(
            ready, space, dnsmasq, "-k", "-p", "0", "-C", "/dev/null", "--user=root", "--enable-tftp",
            f"--tftp-root={files}", "--tftp-max=20000", "--tftp-no-fail", f"--listen-address={ADDRESS}",
            "--log-facility=/dev/null", port=69,
        ),
        "tftpd-hpa": partial(ready, space, hpa, "-L", "-s", "-u", "root", "-a", f"{ADDRESS}:69", files, port=69),
        "atftpd": partial(
            ready, space, atftpd, "--daemon", "--no-fork", "--user", "root", "--group", "root", "--maxthread", "20000",
            "--bind-address", ADDRESS, "--logfile", "/dev/null", files, port=69,
        ),
    }  # fmt: skip


def fetch(
    space: Namespace,
    file: str,
    options: dict[str, str],
    *,
    count: int = 1,
    delay: float = 0.0,
    seconds: float = 300.0,
    prefix: Sequence[str] = (),
) -> dict[str, Any]:
    """What a crowd of clients got: seconds, completed, failed, wrong (blocks)."""
    name = os.path.basename(file)  # noqa: PTH119
    ask = {"server": ADDRESS, "name": name, "file": file, "options": options, "count": count, "delay": delay}
    return json.loads(space.run(*prefix, PYTHON, "-c", CLIENT, json.dumps(ask), timeout=seconds).splitlines()[-1])


@contextlib.contextmanager
def loss(space: Namespace, percent: int) -> Iterator[None]:
    """Drop packets of eth0 in both directions, each by itself."""
    space.run("nft", "add", "table", "inet", "loss")
    for hook, word in (("input", "iifname"), ("output", "oifname")):
        space.run("nft", "add", "chain", "inet", "loss", hook, f"{{ type filter hook {hook} priority 0; }}")
        rule = ("udp", "length", ">", "8", "numgen", "random", "mod", "100", "<", str(percent), "drop")
        space.run("nft", "add", "rule", "inet", "loss", hook, word, "eth0", *rule)
    try:
        yield
    finally:
        space.run("nft", "delete", "table", "inet", "loss")


def run(bench: Bench) -> None:
    most_files()
    with network() as net:
        space, clients = net.join("server", f"{ADDRESS}/24"), net.join("clients", "10.99.0.2/24")
        net.folder.chmod(0o755)
        files = net.folder / "files"
        files.mkdir()
        sizes = {"large": 8 << 20, "boot": 1 << 20, "small": 128 << 10}
        for name, size in sizes.items():
            (files / name).write_bytes(os.urandom(size))
        all_of_them = servers(bench, space, str(files))
        peers = [name for name in all_of_them if name != "wwfast"]

        def rate(server: str, options: dict[str, str], delay: float = 0.0) -> float:
            """MB/s of one client."""
            with all_of_them[server](prefix=ONE_CORE):
                got = fetch(clients, str(files / "large"), options, delay=delay, prefix=ONE_CORE)
            assert got["completed"] == 1, f"{server}: {got}"
            assert got["wrong"] == 0, f"{server}: {got}"
            return sizes["large"] / got["seconds"] / 1e6

        def best(values: dict[str, list[float]]) -> str:
            return max(peers, key=lambda name: statistics.median(values[name]))

        window = {size: {**IPXE, "windowsize": str(size)} for size in (4, 16)}
        works = [partial(rate, name, IPXE) for name in all_of_them] + [partial(rate, "wwfast", window[4])]
        measured = alternate(works, bench.runs())
        lockstep = dict(zip(all_of_them, measured, strict=False))
        common = {"unit": "MB/s", "better": "higher"}
        first = best(lockstep)
        bench.record(
            "5-window-1", "8 MiB, window 1", lockstep["wwfast"], theirs=lockstep[first], peer=first,
            target=">= 0.95 x the best", **common,
        )  # fmt: skip
        bench.record(
            "5-window-4", "8 MiB, window 4, theirs: ours with window 1", measured[-1], theirs=lockstep["wwfast"],
            peer="wwfast window 1", target=">= 2.5 x", **common,
        )  # fmt: skip

        far = 0.0005
        measured = alternate(
            [partial(rate, "wwfast", window[16], far), partial(rate, "atftpd", window[16], far)]
            + [partial(rate, name, IPXE, far) for name in peers],
            bench.runs(3),
        )
        slow = dict(zip(peers, measured[2:], strict=True))
        first = best(slow)
        bench.record(
            "5-window-16", "8 MiB, window 16, 0.5 ms round trip; theirs: window 1", measured[0], theirs=slow[first],
            peer=first, target=">= 8 x the best lockstep peer", **common,
        )  # fmt: skip
        bench.record(
            "5-window-16-atftpd", "8 MiB, window 16, 0.5 ms round trip, both", measured[0], theirs=measured[1],
            peer="atftpd window 16", target="not slower", **common,
        )  # fmt: skip

        crowd = 200 if bench.quick else 2000
        outcome: dict[str, dict[str, Any]] = {}
        limit = 300.0
        for name, server in all_of_them.items():
            what = f"1 % loss, {crowd} x 1 MiB, {name}"
            with loss(clients, 1), server():
                try:
                    outcome[name] = fetch(clients, str(files / "boot"), IPXE, count=crowd, seconds=limit)
                    bench.note(f"{what}: {outcome[name]['seconds']:.1f} s, {outcome[name]['failed']} failed")
                except subprocess.TimeoutExpired:
                    outcome[name] = {"seconds": limit, "failed": crowd if name == "wwfast" else None}
                    bench.note(f"{what}: stopped after {limit:.0f} s, which counts as its time")
            if name == "wwfast":
                limit = max(SLOWER * outcome[name]["seconds"], 30.0)
        whole = [name for name in peers if not outcome[name]["failed"]] or peers
        first = min(whole, key=lambda name: outcome[name]["seconds"])
        bench.record(
            "5-lossy", f"{crowd} x 1 MiB at once, 1 % loss: the last one done", outcome["wwfast"]["seconds"],
            theirs=outcome[first]["seconds"], peer=first, target="below the peers'",
        )  # fmt: skip
        lost = [outcome[name]["failed"] for name in peers if outcome[name]["failed"] is not None]
        bench.record(
            "5-lost", f"{crowd} x 1 MiB at once, 1 % loss: transfers failed", outcome["wwfast"]["failed"],
            theirs=min(lost) if lost else None, peer="best of those that ended", unit="transfers", target="0",
        )  # fmt: skip

        crowd = 1000 if bench.quick else 10000
        with all_of_them["wwfast"]():
            got = fetch(clients, str(files / "small"), IPXE, count=crowd, seconds=600)
        bench.note(f"{crowd} x 128 KiB at once: all done after {got['seconds']:.1f} s")
        bench.record(
            "5-10000-failed", f"{crowd} x 128 KiB at once: failed", got["failed"] + got["wrong"],
            unit="transfers", target="0",
        )  # fmt: skip
