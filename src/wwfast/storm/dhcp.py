"""What a node does before its script, for many nodes at once: DHCP as firmware, TFTP, DHCP as iPXE.

The nodes ask through a relay of their own, so one socket serves them all: on port 67, as the server answers no relay
that an ordinary user could be. `Asking` is one node's DHCP without sockets.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wwfast._ext.tftpload import Crowd
from wwfast.errors import WwfastError
from wwfast.net.dhcp.packet import Kind, Malformed, Message, Option, build, dotted, number, parse
from wwfast.net.tftp import packet
from wwfast.net.tftp.transfer import Receiver

#: Option 60, 93 of the firmware; 77 and 175 are iPXE's.
FIRMWARE = {
    "bios": {60: b"PXEClient:Arch:00000:UNDI:002001", 93: b"\0\0", 57: b"\5\xc0"},
    "uefi": {60: b"PXEClient:Arch:00007:UNDI:003000", 93: b"\0\7", 57: b"\5\xc0"},
}
IPXE = {77: b"iPXE", 175: b"\xb1\4\x80\x86\x10\x0e"}
#: What they ask TFTP for: iPXE's own code in a BIOS ROM, OVMF.
TFTP_OPTIONS = {
    "bios": {"blksize": "1432", "tsize": "0"},
    "uefi": {"tsize": "0", "blksize": "1468", "windowsize": "4"},
}
WAITS = (1.0, 2.0, 4.0, 8.0)  # s until a node asks again, the last for ever
RELAY_PORT = 67


class Asking:
    """One node's DISCOVER, OFFER, REQUEST, ACK; packets and times in, packets out."""

    def __init__(self, mac: bytes, xid: int, relay: int, options: dict[int, bytes]) -> None:
        self.mac, self.xid = mac, xid
        self.address, self.server, self.boot_file = 0, 0, ""
        self.done = 0.0
        self.deadline = 0.0
        self.tries = 0
        self._relay, self._options = relay, options

    def say(self, now: float) -> bytes:
        """The packet of its state: DISCOVER, or REQUEST once something was offered."""
        self.deadline = now + WAITS[min(self.tries, len(WAITS) - 1)]
        self.tries += 1
        kind = Kind.REQUEST if self.address else Kind.DISCOVER
        options = {Option.KIND: bytes((kind,)), 55: bytes((1, 3, 60, 66, 67, 175)), **self._options}
        if self.address:
            options[Option.REQUESTED_ADDRESS] = self.address.to_bytes(4, "big")
            options[Option.SERVER_ID] = self.server.to_bytes(4, "big")
        return build(Message(xid=self.xid, hops=1, giaddr=self._relay, chaddr=self.mac, options=options))

    def hear(self, message: Message, now: float) -> bytes | None:
        """Take an answer to this node: what to say next, if anything."""
        if self.done or message.mac != self.mac.hex(":"):
            return None
        if message.kind == Kind.OFFER and not self.address:
            self.address, self.server = message.yiaddr, message.address(Option.SERVER_ID)
            self.tries = 0
            return self.say(now)
        if message.kind == Kind.ACK and message.yiaddr == self.address:
            self.boot_file = (message.options.get(Option.BOOT_FILE) or message.file).decode("utf-8", "replace")
            self.done = now
        return None


@dataclass
class Round:
    """`nodes` in the order asked; `repeats` packets that were said again."""

    nodes: list[Asking]
    seconds: float
    repeats: int

    @property
    def missing(self) -> int:
        return sum(1 for node in self.nodes if not node.done)

    @property
    def duplicates(self) -> int:
        """How many addresses more than one node has."""
        held = Counter(node.address for node in self.nodes if node.done)
        return sum(1 for count in held.values() if count > 1)


def ask(
    server: str, relay: str, macs: Sequence[bytes], options: dict[int, bytes], *, port: int = 67, seconds: float = 60.0
) -> Round:
    """All of them at once, until each has its address or `seconds` have passed."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        try:
            sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        sock.bind((relay, RELAY_PORT))
        sock.connect((server, port))
        began = time.monotonic()
        nodes = {xid: Asking(mac, xid, number(relay), options) for xid, mac in enumerate(macs, 1)}
        left, repeats, looked = len(nodes), 0, began

        def say(data: bytes) -> None:
            try:
                sock.send(data)
            except ConnectionRefusedError:
                pass  # nobody listens yet; it is said again

        def hear() -> int:
            """Everything that has arrived: how many nodes were done by it."""
            finished = 0
            while True:
                try:
                    data = sock.recv(2048, socket.MSG_DONTWAIT)
                    message = parse(data)
                except BlockingIOError:
                    return finished
                except (Malformed, ConnectionRefusedError):
                    continue
                node = nodes.get(message.xid)
                if node is None:
                    continue
                answer = node.hear(message, time.monotonic())
                if answer is not None:
                    say(answer)
                elif node.done and node.tries >= 0:
                    node.tries = -1
                    finished += 1

        for number_of, node in enumerate(nodes.values()):
            say(node.say(time.monotonic()))
            if number_of % 64 == 63:
                left -= hear()
        while left and time.monotonic() - began < seconds:
            select.select([sock], [], [], 0.05)
            left -= hear()
            now = time.monotonic()
            if now - looked > 0.1:
                looked = now
                for node in nodes.values():
                    if not node.done and now >= node.deadline:
                        repeats += 1
                        say(node.say(now))
        return Round(list(nodes.values()), time.monotonic() - began, repeats)
    finally:
        sock.close()


def flood(server: str, relay: str, count: int, *, inject: bool = False) -> dict[str, float]:
    """`count` unknown nodes at once, for the benchmark; `inject` gives one node another one's address afterwards."""
    macs = [(0x027777000000 + index).to_bytes(6, "big") for index in range(count)]
    got = ask(server, relay, macs, {})
    if inject:
        got.nodes[1].address = got.nodes[0].address
    return {
        "seconds": got.seconds,
        "missing": got.missing,
        "duplicates": got.duplicates,
        "repeats": got.repeats,
    }


def fetch(server: str, source: str, name: str, options: dict[str, str], *, port: int = 69) -> bytes:
    """One file by TFTP, by one node. Raises WwfastError when the server refuses or falls silent."""
    receiver = Receiver(name, options)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.settimeout(0.1)
        peer = (server, port)
        for data in receiver.start(time.monotonic()):
            sock.sendto(data, peer)
        while not receiver.done:
            try:
                data, sender = sock.recvfrom(65536)
                peer = sender
                answers = receiver.receive(data, time.monotonic())
            except TimeoutError:
                answers = receiver.tick(time.monotonic())
            if receiver.error is not None:
                raise WwfastError(f"TFTP from {server}, {name}: {receiver.error[1]}")
            for answer in answers:
                sock.sendto(answer, peer)
    return receiver.data


@dataclass
class Firmware:
    """What became of each node before its script: monotonic times by stage; `failures` by index."""

    times: list[dict[str, float]]
    failures: dict[int, str] = field(default_factory=dict)
    received: int = 0


def boot(
    server: str,
    relay: str,
    macs: Sequence[bytes],
    sources: Sequence[str],
    profile: str,
    say: Callable[[str, int], None] = lambda stage, count: None,
) -> Firmware:
    """Every node through DHCP, TFTP and iPXE's DHCP; they must be given the addresses `sources`, and keep them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, len(macs) + 64)), hard))
    came = Firmware([{} for _ in macs])
    for stage, options in (("dhcp", FIRMWARE[profile]), ("dhcp-ipxe", {**FIRMWARE[profile], **IPXE})):
        got = ask(server, relay, macs, options)
        for index, node in enumerate(got.nodes):
            if not node.done:
                came.failures.setdefault(index, f"{stage}: no answer")
            elif dotted(node.address) != sources[index]:
                came.failures.setdefault(index, f"{stage}: given {dotted(node.address)} instead of {sources[index]}")
            came.times[index][stage] = node.done
        say(stage, len(macs) - got.missing)
        if stage == "dhcp" and not came.failures:
            _load(server, got.nodes[0].boot_file, sources, profile, came)
            say("tftp", len(macs) - len(came.failures))
    return came


def _load(server: str, name: str, sources: Sequence[str], profile: str, came: Firmware) -> None:
    options = TFTP_OPTIONS[profile]
    content = fetch(server, sources[0], name, options)
    request = packet.request(name, options)
    crowd = Crowd(
        number(server), 69, request, content, count=len(sources), sources=[number(source) for source in sources]
    )
    crowd.run()
    for index, ended in enumerate(crowd.ended()):
        if ended:
            came.times[index]["tftp"] = ended
            came.received += len(content)
        else:
            came.failures.setdefault(index, f"tftp: {name} did not arrive")
    if crowd.wrong:
        came.failures.setdefault(0, f"tftp: {crowd.wrong} blocks of {name} were wrong")
