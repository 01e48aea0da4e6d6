"""The simulated node (sans-IO): it behaves as iPXE does, from its script to its last overlay.

One connection, one request at a time, but a connection for each that stage-1 asks for; on 503 it waits the whole
seconds of Retry-After and asks again on the same connection; when the connection breaks it starts the object from zero
after a pause, as the boot script's `|| goto retry` does. It checks every length, and the digest of every body when
`digests` is set.

Told what happened by on_*(), it answers with what to do next; it knows neither sockets nor clocks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

IPXE = "iPXE"
CLIENT = "wwclient"
STAGE1 = "stage-1"
USER_AGENTS = {CLIENT: "wwclient/1 curl", STAGE1: "curl/7.88.1"}
BACK_OFF = (1.0, 2.0, 4.0, 8.0)  # s before an object is started anew, the last for ever
ATTEMPTS = 40
QUIET = 150.0  # s without a byte after which iPXE's watchdog (120 s) has fired
CARRIED = "carried="  # end of a target that goes on with what came from which cache
SILENCE = 20.0  # s without a byte that a cache may take (boot.caches)
#: s without a byte after which another head is asked. Stage-1 has TCP look whether there is somebody, in 30 s.
UNHEARD = {IPXE: 20.0, STAGE1: 600.0, CLIENT: 60.0}
CONNECTING = 10.0  # s that a connection may take, of curl; and a script that is asked of another head
BEGIN = 2.0  # s before a script is asked for anew
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Step(NamedTuple):
    """One object to fetch. `agent` CLIENT comes from a connection of its own with a source port below 1024. A target is
    a path of the server, or an URL of another one; where it fails, those `instead` are asked for. `leads`: its body
    names further steps."""

    stage: str
    target: str
    agent: str = IPXE
    optional: bool = False  # the boot goes on when the server has none
    pause: float = 0.0  # s before it, without a connection: a kernel starts
    span: str = ""  # bytes of it, START-LAST
    instead: Sequence[str] = ()
    leads: bool = False
    begins: bool = False  # a script, which comes in place of all that is left
    others: Sequence[
        str
    ] = ()  # where it fails: scripts (URLs) for iPXE, ADDRESS:PORT of heads, itself first, for others


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    user_agent: str
    window: int  # bytes of receive buffer


PROFILES = {
    "bios": Profile("bios", "iPXE/1.0.0+git-20190125.36a4c85-5.1", 256 << 10),
    "uefi": Profile("uefi", "iPXE/1.21.1+ (g9a4c85)", 2 << 20),
}


class Kind(Enum):
    CONNECT = "connect"  # drop any connection and make one; `low`: a source port below 1024
    SEND = "send"
    SLEEP = "sleep"  # then call on_rested()
    READ = "read"  # keep reading
    OVER = "over"  # done, or failed for good


class Action(NamedTuple):
    kind: Kind
    data: bytes = b""
    seconds: float = 0.0
    low: bool = False
    host: str = ""  # of CONNECT: ADDRESS:PORT
    probes: bool = False  # TCP asks a silent peer whether it is there


READ = Action(Kind.READ)
OVER = Action(Kind.OVER)


@dataclass(slots=True)
class Record:
    """What became of one node; times are the caller's."""

    name: str
    done: dict[str, float] = field(default_factory=dict)  # stage -> when its last byte was there
    size: dict[str, int] = field(default_factory=dict)
    etag: dict[str, str] = field(default_factory=dict)
    digest: dict[str, str] = field(default_factory=dict)  # sha256 hex, where it was computed
    cached: list[str] = field(default_factory=list)  # stages that came from a cache
    given: dict[str, int] = field(default_factory=dict)  # bytes by the cache that they came from, ADDRESS:PORT
    told_to_wait: int = 0  # 503
    elsewhere: int = 0  # times that a cache failed and the next one was asked
    moved: int = 0  # times that a head failed and another one was asked
    restarts: int = 0  # connections that broke or could not be made
    short: int = 0  # bodies that ended before their length: a kind of restart
    failure: str = ""
    finished: float = 0.0


#: What comes next, by the body of a step that leads to it.
Follow = Callable[[Step, str], Sequence[Step]]


class SimNode:
    """Fetches `steps`, and those that `follow` finds in the bodies of some, right after these."""

    def __init__(
        self,
        name: str,
        host: str,
        steps: Sequence[Step],
        profile: Profile,
        *,
        digests: bool = False,
        expect: Mapping[str, str] | None = None,
        follow: Follow | None = None,
    ) -> None:
        self.record = Record(name)
        self.profile = profile
        self.body_left = 0  # bytes of the body that on_body() may be told of without seeing them
        self._host = host
        self._steps = list(steps)
        self._at = 0
        self._try = 0  # which of a step's targets
        self._digests = digests
        self._expect = expect or {}
        self._follow = follow
        self._head = bytearray()
        self._sha = hashlib.sha256()
        self._kept = bytearray()
        self._size = 0
        self._attempts = 0
        self._low = False
        self._origin = host
        self._connected = False
        self._closes = False  # the server said so: the next request needs a new connection

    @property
    def step(self) -> Step:
        return self._steps[self._at]

    @property
    def sees_bodies(self) -> bool:
        """Whether bodies must be shown to on_data(); otherwise on_body() with their length will do."""
        return self._digests or self.step.leads

    @property
    def patience(self) -> float:
        """Seconds without a byte after which it gives up: of a cache, behind which there is somebody else, less."""
        step = self.step
        if self._try < len(step.instead) and not step.begins:
            return SILENCE
        if step.begins or (step.others and not self._connected and step.agent != IPXE):
            return CONNECTING
        return UNHEARD[step.agent] if step.others else QUIET

    @property
    def _asked(self) -> tuple[str, str]:
        """ADDRESS:PORT and path of what is asked for now."""
        target = (self.step.target, *self.step.instead)[self._try]
        if target.endswith(CARRIED):
            target += ",".join(f"http://{host}*{size}" for host, size in self.record.given.items())
        host, _, path = target.removeprefix("http://").partition("/")
        return (self._host, target) if target.startswith("/") else (host, f"/{path}")

    def start(self) -> Action:
        return self._connect()

    def on_connected(self) -> Action:
        self._connected = True
        return self._request()

    def on_rested(self) -> Action:
        return self._request() if self._connected and not self._closes else self._connect()

    def on_lost(self, why: str, now: float) -> Action:
        """The connection broke, was closed, or could not be made."""
        self._connected = False
        if self._closes and not self.body_left:  # while it rested, as announced
            return READ
        if self._size and self.body_left:
            self.record.short += 1
        self.record.restarts += 1
        return self._again(why, now)

    def on_data(self, data: bytes | memoryview, now: float) -> Action:
        """Bytes of the connection, heads and bodies."""
        if not self.body_left:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return READ
            head, rest = bytes(self._head[:end]), bytes(self._head[end + 4 :])
            self._head.clear()
            answer = self._on_head(head, now)
            if answer is not None:
                return answer
            if not rest:
                return READ if self.body_left else self._complete(now)
            data = rest
        if len(data) > self.body_left:
            return self._fail(f"{self.step.stage}: more bytes than announced", now)
        if self._digests:
            self._sha.update(data)
        if self.step.leads:
            self._kept += data
        return self.on_body(len(data), now)

    def on_body(self, size: int, now: float) -> Action:
        """`size` bytes of the body arrived (at most body_left)."""
        self.body_left -= size
        return READ if self.body_left else self._complete(now)

    # --- inside ----------------------------------------------------------------------------------------------

    def _connect(self) -> Action:
        self._low = self.step.agent == CLIENT
        self._origin = self._asked[0]
        self._closes = False
        return Action(Kind.CONNECT, low=self._low, host=self._origin, probes=self.step.agent == STAGE1)

    def _request(self) -> Action:
        agent = USER_AGENTS.get(self.step.agent, self.profile.user_agent)
        span = f"Range: bytes={self.step.span}\r\n" if self.step.span else ""
        self.body_left = self._size = 0
        self._head.clear()
        host, path = self._asked
        return Action(
            Kind.SEND,
            f"GET {path} HTTP/1.1\r\nConnection: keep-alive\r\nUser-Agent: {agent}\r\n"
            f"{span}Host: {host}\r\n\r\n".encode(),
        )

    def _on_head(self, head: bytes, now: float) -> Action | None:
        """None when a body (maybe of no bytes) follows that is the object."""
        match = _STATUS.match(head)
        lines = head.decode("latin-1").split("\r\n")[1:]
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if match is None or not fields.get("content-length", "").isdigit() or "content-type" not in fields:
            return self._fail(f"{self.step.stage}: a response without status, length or type", now)
        status, length = int(match[1]), int(fields["content-length"])
        self._closes = fields.get("connection", "").lower() == "close"
        if status == 503 and length == 0:
            self.record.told_to_wait += 1
            wait = fields.get("retry-after", "")
            return Action(Kind.SLEEP, seconds=float(wait) if wait.isdigit() else 5.0)
        if status != (206 if self.step.span else 200):
            if self._try < len(self.step.instead):
                self._closes = True  # whatever its body is
                return self._elsewhere()
            if self.step.optional and length == 0:
                return self._next(now)
            return self._fail(f"{self.step.stage}: status {status}", now)
        self.record.etag[self.step.stage] = fields.get("etag", "")
        self._size = self.body_left = length
        self._sha = hashlib.sha256()
        self._kept.clear()
        return None

    def _complete(self, now: float) -> Action:
        stage, record = self.step.stage, self.record
        record.size[stage] = self._size + (record.size.get(stage, 0) if self.step.span else 0)
        record.done[stage] = now
        if self._digests:
            record.digest[stage] = self._sha.hexdigest()
            expected = self._expect.get(stage)
            if expected and expected != record.digest[stage]:
                return self._fail(f"{stage}: wrong digest", now)
        if self.step.begins:
            self._host = self._origin
        if self._origin != self._host:
            record.given[self._origin] = record.given.get(self._origin, 0) + self._size
            if stage not in record.cached:
                record.cached.append(stage)
        if self.step.leads and self._follow is not None:
            after = self._at + 1
            end = len(self._steps) if self.step.begins else after
            self._steps[after:end] = self._follow(self.step, self._kept.decode(errors="replace"))
        return self._next(now)

    def _next(self, now: float) -> Action:
        self._attempts = self._try = 0
        self._at += 1
        if self._at == len(self._steps):
            self.record.finished = now
            return OVER
        elsewhere = self._asked[0] != self._origin or (self.step.agent == CLIENT) != self._low
        if self._closes or self.step.pause or self.step.agent == STAGE1 or elsewhere:
            self._connected, self._closes = False, True
            return Action(Kind.SLEEP, seconds=self.step.pause) if self.step.pause else self._connect()
        return self._request()

    def _again(self, why: str, now: float) -> Action:
        if self._try < len(self.step.instead):
            return self._elsewhere()
        if self.step.begins and self.step.optional:
            self._closes = True
            return self._next(now)
        self._attempts += 1
        if self._attempts >= ATTEMPTS:
            return self._fail(f"{self.step.stage}: {why} ({ATTEMPTS} attempts)", now)
        if self.step.others:
            return self._move()
        return Action(Kind.SLEEP, seconds=BACK_OFF[min(self._attempts, len(BACK_OFF)) - 1])

    def _move(self) -> Action:
        """Another head: iPXE begins with its script again, this head's first; others go on where they are."""
        self.record.moved += 1
        self.body_left = self._size = self._try = 0
        others = self.step.others
        if self.step.agent == IPXE:
            self._steps[self._at :] = [
                Step("ipxe", others[0], instead=others[1:], leads=True, begins=True, others=others)
            ]
            return Action(Kind.SLEEP, seconds=BEGIN)
        self._host = others[(others.index(self._host) + 1) % len(others)] if self._host in others else others[0]
        return self._connect() if self._attempts % len(others) else Action(Kind.SLEEP, seconds=BACK_OFF[0])

    def _elsewhere(self) -> Action:
        """Ask the next one for the same."""
        self.record.elsewhere += 1
        self._try += 1
        self.body_left = self._size = 0
        return self._connect()

    def _fail(self, why: str, now: float) -> Action:
        self.record.failure = why
        self.record.finished = now
        return OVER
