"""A soak: nodes poll a real server while nodes.conf, an overlay and the image change under it; who checks every answer.

What changes carries a generation. `Site` makes the changes and remembers when each began and ended; the pollers
(`python -m support.soak JSON`, on the nodes' side) write down which generation they saw when; `judge` compares: nothing
older than what had ended GRACE seconds before the question, nothing newer than what had begun by the answer.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import io
import itertools
import json
import re
import select
import subprocess
import sys
import tarfile
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import zstandard

from wwfast.paths import Paths
from wwfast.storm.cluster import PORT, Head, prepare, wwfast
from wwfast.storm.link import SERVER, Link, source, sources
from wwfast.storm.plan import hwaddr
from wwfast.system.run import run

SETTLE = 2.0  # s until a server is done with the connections of those who have gone
GRACE = 2.0  # s from a change to the last answer that may not know it
NODES, OVERLAY, IMAGE = "nodes", "overlay", "image"
TEMPLATE = "{{{{ id }}}} g{{{{ tags.gen }}}} h{generation}\n"


class Change(NamedTuple):
    """Generation `number` of what `kind` says; it became visible between the two moments (monotonic seconds)."""

    kind: str
    number: int
    began: float
    ended: float


class Seen(NamedTuple):
    """A node asked at one moment, had its answer at another, and it was of generation `number` of `kind`."""

    kind: str
    number: int
    asked: float
    answered: float


class Figures(NamedTuple):
    """Questions so far asked and what was wrong or stale in the answers; open descriptors, resident MiB."""

    asked: int
    wrong: list[str]
    descriptors: int
    rss: float


@dataclass
class Site:
    """Everything that changes, below one root; each method is one change, and whole at every moment."""

    root: Path
    nodes: int
    changes: list[Change] = field(default_factory=list)

    def prepare(self) -> None:
        prepare(self.root, sources(self.nodes), 1, firmware=True)
        self._paths = Paths.at(self.root)
        self._text = self._paths.nodes_conf.read_text().replace(
            "runtime overlay: [hostname, hosts]", "runtime overlay: [soak]"
        )
        self.change(NODES)
        self.change(OVERLAY)
        self.change(IMAGE)

    def change(self, kind: str) -> None:
        number = sum(change.kind == kind for change in self.changes) + 1
        began = time.monotonic()
        {NODES: self._nodes, OVERLAY: self._overlay, IMAGE: self._image}[kind](number)
        self.changes.append(Change(kind, number, began, time.monotonic()))

    def keep_changing(self, end: float) -> None:
        """One change a second until then (monotonic seconds): nodes.conf, overlay, and each half minute the image."""
        for number in itertools.count():
            if time.monotonic() >= end:
                return
            self.change(IMAGE if number % 30 == 15 else (NODES, OVERLAY)[number % 2])
            time.sleep(max(0.0, min(1.0, end - time.monotonic())))

    def _nodes(self, number: int) -> None:
        marks = f"    tags: {{gen: '{number}'}}\n    kernel: {{args: [gen={number}]}}\n"
        self._put(self._paths.nodes_conf, self._text.replace("  default:\n", "  default:\n" + marks, 1))

    def _overlay(self, number: int) -> None:
        folder = self._paths.site_overlays / "soak/rootfs/etc"
        folder.mkdir(parents=True, exist_ok=True)
        self._put(folder / "soak.j2", TEMPLATE.format(generation=number))

    def _image(self, number: int) -> None:
        (self._paths.chroots / "storm/rootfs/etc/generation").write_text(f"generation {number}\n")
        run(wwfast(self.root, "image", "build", "storm"))

    def _put(self, place: Path, text: str) -> None:
        new = self.root / "new"
        new.write_text(text)
        new.replace(place)


class Poller:
    """Nodes `0`..`nodes`-1 of a site: what each has, and what is wrong with what it got."""

    def __init__(self, server: str, port: int, nodes: int) -> None:
        self.server, self.port, self.nodes = server, port, nodes
        self.wrong: list[str] = []
        self._has: dict[int, tuple[str, list[tuple[str, int]]]] = {}
        self._digests: dict[str, bytes] = {}
        # The runtime overlay is for privileged ports; one is not used again before its TIME_WAIT is over.
        self._ports = [itertools.cycle(range(512, 1024)) for _ in range(nodes)]

    def ask(self, index: int, target: str, etag: str = "") -> tuple[int, str, bytes]:
        """(status, etag, body) from the node's own address."""
        connection = self._connected(index)
        try:
            headers = {"If-None-Match": etag} if etag else {}
            connection.request("GET", target, headers={"User-Agent": "iPXE/1.21.1", **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("ETag", ""), answer.read()
        finally:
            connection.close()

    def _connected(self, index: int) -> http.client.HTTPConnection:
        """From the next port of this node that is not in TIME_WAIT, of another poller either."""
        while True:
            place = (source(index), next(self._ports[index]))
            connection = http.client.HTTPConnection(self.server, self.port, timeout=30, source_address=place)
            try:
                connection.connect()
                return connection
            except OSError as error:
                connection.close()
                if error.errno != errno.EADDRINUSE:
                    raise

    def poll(self, index: int, what: str) -> list[Seen]:
        """One question of one node and what it told."""
        asked = time.monotonic()
        try:
            saw = getattr(self, f"_{what}")(index)
        except (OSError, http.client.HTTPException, ValueError, tarfile.TarError, zstandard.ZstdError) as error:
            self.wrong.append(f"{what} of node {index}: {type(error).__name__}: {error}")
            return []
        answered = time.monotonic()
        return [Seen(kind, number, asked, answered) for kind, number in saw]

    def _runtime(self, index: int) -> list[tuple[str, int]]:
        etag, had = self._has.get(index, ("", []))
        status, new, body = self.ask(index, f"/runtime/{hwaddr(index)}?format=tar", etag)
        if status == 304 and etag:
            return had
        _expect(status == 200, f"status {status}")
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            file = archive.extractfile(archive.getmember("etc/soak"))
            text = file.read().decode() if file else ""
        found = re.fullmatch(r"n(\d+) g(\d+) h(\d+)\n", text)
        _expect(found is not None and int(found[1]) == index, f"says {text!r}")
        assert found is not None
        self._same(f"{index} {new}", body)
        saw = [(NODES, int(found[2])), (OVERLAY, int(found[3]))]
        self._has[index] = (new, saw)
        return saw

    def _script(self, index: int) -> list[tuple[str, int]]:
        status, _, body = self.ask(index, f"/ipxe/{hwaddr(index)}?uuid=")
        found = re.search(rb" gen=(\d+) ", body)
        _expect(status == 200 and found is not None and hwaddr(index).encode() in body, f"status {status}: {body!r}")
        assert found is not None
        return [(NODES, int(found[1]))]

    def _image(self, index: int) -> list[tuple[str, int]]:
        status, etag, body = self.ask(index, f"/image/{hwaddr(index)}?compress=zst")
        _expect(status == 200, f"status {status}")
        self._same(etag, body)
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
            content = reader.read()
        found = re.search(rb"generation (\d+)\n", content)
        _expect(found is not None and b"TRAILER!!!" in content, f"{len(content)} bytes without a generation")
        assert found is not None
        return [(IMAGE, int(found[1]))]

    def _same(self, name: str, body: bytes) -> None:
        """One tag, one content, for ever."""
        digest = hashlib.sha256(body).digest()
        _expect(self._digests.setdefault(name, digest) == digest, f"another content with the tag {name}")


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)


def questions(nodes: int, rate: float) -> Iterator[tuple[float, int, str]]:
    """(seconds from the start, node, what): `rate` runtime polls a second in turns, ten scripts and an image among
    them."""
    for number in itertools.count():
        at = number / rate
        yield at, number % nodes, "runtime"
        if number % max(1, round(rate / 10)) == 0:
            yield at, number * 7919 % nodes, "script"
        if number % round(rate) == 0:
            yield at, number * 104729 % nodes, "image"


def polls(server: str, port: int, nodes: int, rate: float, seconds: float, file: str) -> dict[str, object]:
    """Poll until the time is over or the standard input is closed; what was seen goes to `file`, a line each."""
    poller = Poller(server, port, nodes)
    seen: list[Seen] = []
    under_way: list[Future[None]] = []
    asked = 0
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for at, index, what in questions(nodes, rate):
            if at > seconds or select.select([0], [], [], max(0.0, began + at - time.monotonic()))[0]:
                break
            under_way = [future for future in under_way if not future.done()]
            if len(under_way) < 64:  # a server that stands still is not asked ever more
                under_way.append(pool.submit(lambda index, what: seen.extend(poller.poll(index, what)), index, what))
                asked += 1
    Path(file).write_text("".join(f"{json.dumps(each)}\n" for each in seen))
    return {"asked": asked, "wrong": poller.wrong}


def judge(changes: Iterable[Change], seen: Iterable[Seen]) -> list[str]:
    """What was older or newer than it could be."""
    found = []
    by_kind: dict[str, list[Change]] = {}
    for change in changes:
        by_kind.setdefault(change.kind, []).append(change)
    ended = {kind: [change.ended for change in each] for kind, each in by_kind.items()}
    began = {kind: [change.began for change in each] for kind, each in by_kind.items()}
    for each in seen:
        least = bisect_right(ended[each.kind], each.asked - GRACE)
        most = bisect_right(began[each.kind], each.answered)
        if not least <= each.number <= most:
            since = each.asked - ended[each.kind][max(0, least - 1)]
            found.append(f"{each.kind} {each.number} instead of {least} to {most}, {since:.2f} s after that change")
    return found


def soak(site: Site, head: Head, link: Link, seconds: float, rate: float) -> list[Figures]:
    """Poll and change for `seconds`; figures of a first tenth (caches and pools have filled by then) and of all.

    Nobody asks while descriptors are counted, so that a connection under way is not taken for a forgotten one.
    """
    assert head.process is not None
    found = []
    for share in (0.1, 0.9):
        file = site.root / "seen"
        ask = {"server": SERVER, "port": PORT, "nodes": site.nodes, "rate": rate, "seconds": 1e6, "file": str(file)}
        argv = [sys.executable, "-m", "support.soak", json.dumps(ask)]
        tests = Path(__file__).parents[1]
        poller = link.play(argv, cwd=tests, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            site.keep_changing(time.monotonic() + share * seconds)
            said = json.loads(poller.communicate(timeout=120)[0])  # closes its standard input: the end of its time
        finally:
            poller.kill()
            poller.wait()
        time.sleep(SETTLE)
        seen = [Seen(*json.loads(line)) for line in file.read_text().splitlines()]
        wrong = [*said["wrong"], *judge(site.changes, seen)]
        descriptors = len(list(Path(f"/proc/{head.process.pid}/fd").iterdir()))
        found.append(Figures(said["asked"], wrong, descriptors, head.usage()[1]))
    return found


if __name__ == "__main__":
    print(json.dumps(polls(**json.loads(sys.argv[1]))))
