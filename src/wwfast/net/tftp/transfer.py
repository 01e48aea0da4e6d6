"""One TFTP transfer as a state machine: packets and times in, packets out. No sockets, no clock of its own.

`Sender` is the server's side and the specification of wwfast._ext.transfers, which does the same for ten thousand
peers; `Receiver` is the client's, used by simulated nodes and tests. Blocks are counted without the
16-bit rollover; the wire carries them modulo 65536.
"""

from __future__ import annotations

from wwfast.net.tftp import packet
from wwfast.net.tftp.packet import Opcode, Terms

#: Seconds before anything is sent again while no round trip was measured, at least, and at most.
FIRST_TIMEOUT = 1.0
LEAST_TIMEOUT = 0.1
MOST_TIMEOUT = 4.0
#: Without any progress for this long the peer is gone.
GIVE_UP = 30.0
#: When only the acknowledgement of the last window is missing: most clients close their port with it, so when it is
#: lost nobody says it again, and the transfer counts as done.
LAST_GIVE_UP = 5.0


class Sender:
    """Sends `data` to one peer.

    Rules: a duplicate ACK is never answered with a duplicate DATA (no sorcerer's apprentice), with one exception:
    in a window of several blocks it means that the first one was lost, if it comes at least one round trip after
    the window was sent, and then the window is sent again once. An ACK inside the window means that the rest was
    lost: sending goes on right after it (RFC 7440 section 4). Timeouts follow the measured round trip, doubled each
    time, unless the peer asked for a fixed start (RFC 2349).
    """

    def __init__(self, data: bytes, terms: Terms, now: float) -> None:
        self.data = data
        self.terms = terms
        self.blocks = len(data) // terms.blksize + 1
        self.acked = 0
        self.sent = 0
        self.done = False
        self.error: tuple[int, str] | None = None
        self._greeting = packet.oack(terms.oack) if terms.oack else b""
        self._timeout = float(terms.timeout or FIRST_TIMEOUT)
        self._tries = 0
        self._progress = now
        self._flight = now
        self._clean = True
        self._repeated = False
        self._round_trip = 0.0
        self._variation = 0.0
        self.deadline = now

    @property
    def failed(self) -> bool:
        return self.error is not None

    def start(self, now: float) -> list[bytes]:
        """The OACK, or the first window when no option was granted."""
        return self._send(now)

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """Take one packet of the peer."""
        kind = packet.opcode(data)
        if self.done or self.failed:
            return []
        if kind == Opcode.ERROR:
            self.error = packet.parse_error(data)
            return []
        if kind != Opcode.ACK:
            return []
        ahead = (int.from_bytes(data[2:4], "big") - self.acked) & 0xFFFF
        if self._greeting:
            if ahead:
                return []
            self._greeting = b""
            self._measure(now)
            self._tries, self._progress, self._clean = 0, now, True
            return self._send(now)
        if ahead > self.sent - self.acked:
            return []
        if ahead == 0:
            if self.terms.windowsize == 1 or self._repeated or now - self._flight < max(self._round_trip, 0.001):
                return []
            self._repeated, self._clean = True, False
            return self._window(now)
        if self.acked + ahead == self.sent:
            self._measure(now)
        self.acked += ahead
        self._repeated, self._clean = False, True
        self._tries, self._progress = 0, now
        if self.acked == self.blocks:
            self.done = True
            return []
        return self._window(now)

    def tick(self, now: float) -> list[bytes]:
        """Send again what was not acknowledged by `deadline`."""
        if self.done or self.failed or now < self.deadline:
            return []
        if self.sent == self.blocks and now - self._progress >= LAST_GIVE_UP:
            self.acked, self.done = self.blocks, True
            return []
        if now - self._progress >= GIVE_UP:
            self.error = (0, "the peer stopped answering")
            return []
        self._tries += 1
        self._clean, self._repeated = False, False
        return self._send(now)

    def _send(self, now: float) -> list[bytes]:
        if self._greeting:
            self._arm(now)
            return [self._greeting]
        return self._window(now)

    def _window(self, now: float) -> list[bytes]:
        size = self.terms.blksize
        last = min(self.acked + self.terms.windowsize, self.blocks)
        self.sent = last
        self._arm(now)
        return [
            packet.data(block, self.data[(block - 1) * size : block * size])
            for block in range(self.acked + 1, last + 1)
        ]

    def _arm(self, now: float) -> None:
        self._flight = now
        self.deadline = now + min(self._timeout * 2**self._tries, max(MOST_TIMEOUT, self._timeout))

    def _measure(self, now: float) -> None:
        """RFC 6298, and Karn: nothing is learnt from what was sent twice."""
        if not self._clean or self.terms.timeout:
            return
        sample = now - self._flight
        if self._round_trip == 0.0:
            self._round_trip, self._variation = sample, sample / 2
        else:
            self._variation += (abs(sample - self._round_trip) - self._variation) / 4
            self._round_trip += (sample - self._round_trip) / 8
        self._timeout = min(max(self._round_trip + 4 * self._variation, LEAST_TIMEOUT), MOST_TIMEOUT)


class Receiver:
    """Fetches one file, as iPXE (blksize 1432), OVMF (1468, windowsize 4) or a plain client (no option) does."""

    def __init__(self, name: str, options: dict[str, str] | None = None, *, timeout: float = 1.0) -> None:
        self.options = options or {}
        self.blksize, self.windowsize = packet.DEFAULT_BLKSIZE, 1
        self.received = 0
        self.size: int | None = None
        self.parts: list[bytes] = []
        self.done = False
        self.error: tuple[int, str] | None = None
        self.deadline = 0.0
        self._request = packet.request(name, self.options)
        self._last = self._request
        self._timeout = timeout
        self._tries = 0
        self._unacknowledged = 0
        self._started = False
        self._gap = False

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)

    def start(self, now: float) -> list[bytes]:
        self.deadline = now + self._timeout
        return [self._request]

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """Take one packet of the server; answers are for the port it came from."""
        kind = packet.opcode(data)
        if self.error is not None:
            return []
        if kind == Opcode.ERROR:
            if not self.done:
                self.error = packet.parse_error(data)
            return []
        if kind == Opcode.OACK:
            if self._started:
                return [] if self.received else self._say(packet.ack(0), now)
            granted = packet.parse_oack(data)
            self.blksize = int(granted.get("blksize", self.blksize))
            self.windowsize = int(granted.get("windowsize", 1))
            self.size = int(granted["tsize"]) if "tsize" in granted else None
            self._started = True
            return self._say(packet.ack(0), now)
        if kind != Opcode.DATA:
            return []
        self._started = True
        ahead = (int.from_bytes(data[2:4], "big") - self.received) & 0xFFFF
        if ahead != 1:
            # A gap: say once what came last in order. An old block: our ACK was lost, say it again.
            repeat = ahead > 0x8000 or ahead == 0 or not self._gap
            self._gap = True
            self._unacknowledged = 0
            return self._say(packet.ack(self.received), now) if repeat else []
        self._gap = False
        self.received += 1
        self.parts.append(data[4:])
        self._tries = 0
        self._unacknowledged += 1
        if len(data) - 4 < self.blksize:
            self.done = True
        if self.done or self._unacknowledged >= self.windowsize:
            self._unacknowledged = 0
            return self._say(packet.ack(self.received), now)
        self.deadline = now + self._timeout
        return []

    def tick(self, now: float) -> list[bytes]:
        """Ask or acknowledge again when nothing came by `deadline`."""
        if self.done or self.error is not None or now < self.deadline:
            return []
        self._tries += 1
        if self._tries > 8:
            self.error = (0, "the server stopped answering")
            return []
        self._gap, self._unacknowledged = False, 0
        return self._say(packet.ack(self.received) if self._started else self._request, now)

    def _say(self, data: bytes, now: float) -> list[bytes]:
        self.deadline = now + self._timeout * 2 ** min(self._tries, 3)
        return [data]
