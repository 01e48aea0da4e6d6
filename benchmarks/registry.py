"""The registry: a nodes.conf as a real site exports it, at ten thousand nodes.

Six profiles, forty racks, about 500 bytes a node: two devices, tags, a BMC. Commands are whole processes, start of the
interpreter included.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._harness import Bench, child

PORT = 19873
CONF = f"""\
ipaddr: 127.0.0.1
netmask: 255.0.0.0
warewulf:
  port: {PORT}
  secure: false
dhcp:
  enabled: false
tftp:
  enabled: false
"""
# A child that loads the whole registry and prints: seconds, growth of its resident memory in bytes, nodes.
LOAD = """
import gc, sys, time
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
before, start = resident(), time.perf_counter()
snapshot = Registry(Paths.at(sys.argv[1])).reload()
seconds = time.perf_counter() - start
gc.collect()
print(seconds, resident() - before, len(snapshot.nodes))
"""
PEER = "import sys, yaml; yaml.load(open(sys.argv[1]), yaml.CSafeLoader)"

SYSTEM = [
    "wwinit",
    "wwclient",
    "hosts",
    "fstab",
    "hostname",
    "ssh.host_keys",
    "issue",
    "resolv",
    "udev.netname",
    "systemd.netname",
    "ifcfg",
    "ifupdown",
    "NetworkManager",
    "wicked",
    "ignition",
]
KINDS = ("compute", "gpu", "bigmem", "login", "storage")


def site(nodes: int) -> str:
    """The text of nodes.conf, in the form Warewulf writes."""
    lines = ["nodeprofiles:"]
    for kind in KINDS:
        lines += [
            f"  {kind}:",
            f"    comment: {kind} nodes",
            "    profiles:",
            "      - default",
            f"    image name: rocky9-{kind}",
            "    kernel:",
            "      args:",
            f"        - {kind}.tune=1",
            "    tags:",
            f"      kind: {kind}",
        ]
    lines += [
        "  default:",
        "    comment: This profile is automatically included for each node",
        "    image name: rocky9",
        "    ipxe template: default",
        "    runtime overlay:",
        "      - hosts",
        "      - ssh.authorized_keys",
        "    system overlay:",
        *(f"      - {name}" for name in SYSTEM),
        "    kernel:",
        "      args:",
        "        - quiet",
        "        - crashkernel=no",
        "        - net.ifnames=1",
        "    ipmi:",
        "      username: root",
        "      password: calvin",
        "      netmask: 255.255.0.0",
        "      template: ipmitool.tmpl",
        "    init: /sbin/init",
        "    root: initramfs",
        "    network devices:",
        "      default:",
        "        type: ethernet",
        "        device: eno1",
        "        netmask: 255.255.0.0",
        "        gateway: 10.0.0.1",
        "nodes:",
    ]
    width = len(str(nodes))
    for index in range(nodes):
        high, low = index // 250, index % 250 + 1
        octets = f"{index >> 16 & 255:02x}:{index >> 8 & 255:02x}:{index & 255:02x}"
        lines += [
            f"  n{index + 1:0{width}d}:",
            "    profiles:",
            f"      - {KINDS[index % 40 % len(KINDS)]}",
            f"    comment: row {index % 8 + 1}, slot {index // 40 % 42 + 1}",
            f"    cluster name: rack{index % 40 + 1:02d}",
            "    ipmi:",
            f"      ipaddr: 10.{64 + high // 250}.{high % 250}.{low}",
            "    network devices:",
            "      default:",
            f"        hwaddr: 52:54:00:{octets}",
            f"        ipaddr: 10.0.{high}.{low}"
            if nodes <= 60000
            else f"        ipaddr: 10.{16 + high // 250}.{high % 250}.{low}",
            "      ib0:",
            "        type: infiniband",
            "        device: ib0",
            f"        ipaddr: 10.2.{high}.{low}"
            if nodes <= 60000
            else f"        ipaddr: 10.{32 + high // 250}.{high % 250}.{low}",
            "        netmask: 255.255.0.0",
            '        mtu: "2044"',
            "    tags:",
            f"      rack: r{index % 40 + 1:02d}",
            f"      serial: CZ{index * 7919 % 10**8:08d}",
        ]
    return "\n".join(lines) + "\n"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=10000, help="size of the cluster (default 10000)")


def run(bench: Bench) -> None:
    nodes = 1000 if bench.quick else bench.args.nodes
    with tempfile.TemporaryDirectory(prefix="wwfast-registry-") as name:
        root = Path(name)
        conf = root / "etc/warewulf/nodes.conf"
        conf.parent.mkdir(parents=True)
        text = site(nodes)
        conf.write_text(text)
        bench.note(f"{nodes} nodes, {len(text) / nodes:.0f} bytes each; commands are whole processes")
        commands(bench, root, conf, nodes)
        daemon(bench, root, conf)
    with tempfile.TemporaryDirectory(prefix="wwfast-registry-") as name:
        large(bench, Path(name), 10000 if bench.quick else 100_000)


def wwfast(root: Path, *words: str) -> float:
    return child([sys.executable, "-m", "wwfast", "--root", root, *words]).wall


def commands(bench: Bench, root: Path, conf: Path, nodes: int) -> None:
    kept = root / "var/cache/wwfast/registry/short.msgpack"

    def fresh() -> float:
        kept.unlink(missing_ok=True)
        return wwfast(root, "node", "list")

    name = f"n{nodes // 2:0{len(str(nodes))}d}"
    bench.compare(
        "1-list",
        f"node list, {nodes} nodes, no cache",
        ours=fresh,
        theirs=lambda: child([sys.executable, "-c", PEER, conf]).wall,
        peer="PyYAML CSafeLoader, the load alone",
        target="<= 0.6",
    )
    bench.compare("1-list-cached", "the same again", ours=lambda: wwfast(root, "node", "list"), target="<= 0.35")
    bench.compare("1-one", f"node list {name}", ours=lambda: wwfast(root, "node", "list", name), target="<= 0.25")
    bench.compare("1-help", "--help", ours=lambda: wwfast(root, "--help"), target="<= 0.15")
    bench.compare("1-version", "version", ours=lambda: wwfast(root, "version"), target="<= 0.1")
    width = len(str(nodes))
    many = f"n[{1:0{width}d}-{500:0{width}d}]"
    count = iter(range(1000))
    bench.compare(
        "2-set-500",
        f"node set {many} --tagadd x=N --yes",
        ours=lambda: wwfast(root, "node", "set", many, "--tagadd", f"x={next(count)}", "--yes"),
        target="<= 1",
    )
    upgraded(bench, nodes)
    imported(bench, nodes)


def upgraded(bench: Bench, nodes: int) -> None:
    """A nodes.conf as Warewulf 4.5 wrote it, in place; each run on a file of its own."""
    entries = "".join(
        f"  n{number:05d}:\n    profiles: [default]\n    container name: el9\n    network devices:\n      default:\n"
        f"        hwaddr: 52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}\n"
        f'        ipcidr: 10.{number >> 16}.{number >> 8 & 255}.{number & 255}/8\n        primary: "true"\n'
        for number in range(1, nodes + 1)
    )
    with tempfile.TemporaryDirectory(prefix="wwfast-upgrade-") as name:
        file = Path(name) / "etc/warewulf/nodes.conf"
        file.parent.mkdir(parents=True)

        def once() -> float:
            file.write_text(f"nodeprofiles:\n  default: {{kernel args: quiet}}\nnodes:\n{entries}")
            return wwfast(Path(name), "upgrade", "nodes", "--yes")

        bench.compare("7-upgrade", f"upgrade nodes, {nodes} nodes of 4.5", ours=once, target="<= 3")


def imported(bench: Bench, nodes: int) -> None:
    """What `lsdef -z` prints of a cluster, 24 keys a node, into an empty nodes.conf: the whole command."""
    network = "net10:\n    objtype=network\n    gateway=10.255.255.254\n    mask=255.0.0.0\n    net=10.0.0.0\n\n"
    fixed = (
        "addkcmdline=quiet console=tty0\narch=x86_64\nbmcpassword=calvin\nbmcusername=root\ncons=ipmi\n"
        "currstate=boot\ninstallnic=eth0\nmgt=ipmi\nnetboot=xnba\nnicnetworks.ib0=ib\nnictypes.ib0=Infiniband\n"
        "os=rocky9.4\npostbootscripts=otherpkgs\npostscripts=syslog,remoteshell,syncfiles\nprofile=compute\n"
        "provmethod=rocky9.4-x86_64-netboot-compute\nserialport=0\nserialspeed=115200\nstatus=booted\n"
    )
    lines = [network]
    for number in range(1, nodes + 1):
        high, middle, low = number >> 16, number >> 8 & 255, number & 255
        own = f"bmc=11.{high}.{middle}.{low}\nip=10.{high}.{middle}.{low}\nnicips.ib0=12.{high}.{middle}.{low}\n"
        own += f"groups=compute,rack{number // 40},all\nmac=52:54:00:{high:02x}:{middle:02x}:{low:02x}\n"
        lines += [
            f"n{number:05d}:\n    objtype=node\n",
            *(f"    {line}\n" for line in (own + fixed).splitlines()),
            "\n",
        ]
    with tempfile.TemporaryDirectory(prefix="wwfast-import-") as name:
        file, stanza = Path(name) / "etc/warewulf/nodes.conf", Path(name) / "nodes.stanza"
        file.parent.mkdir(parents=True)
        stanza.write_text("".join(lines))

        def once() -> float:
            file.unlink(missing_ok=True)
            return wwfast(Path(name), "import", "xcat", str(stanza), "--yes")

        bench.compare("7-import-xcat", f"import xcat, {nodes} nodes", ours=once, target="<= 3")


@contextlib.contextmanager
def server(root: Path) -> Iterator[None]:
    """The daemon with HTTP alone, on a loopback address."""
    (root / "etc/warewulf/warewulf.conf").write_text(CONF)
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "wwfast", "--root", str(root), "server"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                script(1)
                break
            time.sleep(0.1)
        else:
            raise SystemExit((root / "log").read_text())
        yield
    finally:
        process.terminate()
        process.wait(20)


def script(number: int, connection: http.client.HTTPConnection | None = None) -> bytes:
    """The boot script of node `number` (from 1)."""
    link = connection or http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
    index = number - 1
    link.request("GET", f"/ipxe/52:54:00:{index >> 16 & 255:02x}:{index >> 8 & 255:02x}:{index & 255:02x}")
    return link.getresponse().read()


def daemon(bench: Bench, root: Path, conf: Path) -> None:
    """Change the image of one node by rename; how long until its script names the new one, and what others feel."""
    rounds = 3 if bench.quick else 10
    seen: list[float] = []
    others: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        link = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        while not stop.is_set():
            start = time.perf_counter()
            script(7, link)
            others.append(time.perf_counter() - start)
            time.sleep(0.002)

    with server(root):
        asking = threading.Thread(target=ask)
        asking.start()
        text = conf.read_text()
        key = "    cluster name: rack05\n"
        link = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        for index in range(rounds):
            mark = f"changed-{index}"
            new = conf.with_name("new")
            new.write_text(text.replace(key, f"{key}    image name: {mark}\n", 1))
            start = time.perf_counter()
            new.rename(conf)
            while mark.encode() not in script(5, link):
                if time.perf_counter() - start > 20:
                    raise SystemExit("the daemon did not take up the change within 20 s")
                time.sleep(0.005)
            seen.append(time.perf_counter() - start)
        stop.set()
        asking.join()
    bench.record("3-reload", "one changed node is served", seen, target="<= 0.3")
    bench.record(
        "3-p99",
        f"99th percentile of {len(others)} other requests meanwhile",
        statistics.quantiles(others, n=100)[98] * 1000,
        unit="ms",
        target="<= 20",
    )


def large(bench: Bench, root: Path, nodes: int) -> None:
    (root / "etc/warewulf").mkdir(parents=True)
    (root / "etc/warewulf/nodes.conf").write_text(site(nodes))
    loads: list[float] = []
    sizes: list[float] = []
    for _ in range(bench.runs(3)):
        done = subprocess.run(
            [sys.executable, "-c", LOAD, root], stdin=subprocess.DEVNULL, capture_output=True, check=True, text=True
        )
        seconds, size, count = done.stdout.split()
        if int(count) != nodes:
            raise SystemExit(f"{count} of {nodes} nodes were loaded")
        loads.append(float(seconds))
        sizes.append(int(size) / nodes)
    bench.record("4-load-100k", f"load, resolve and index {nodes} nodes", loads, target="no failure")
    bench.record("4-bytes-per-node", "resident memory per resolved node, text included", sizes, unit="bytes")
    bench.note(f"node list of {nodes} nodes, whole process: {wwfast(root, 'node', 'list'):.2f} s")
