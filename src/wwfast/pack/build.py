"""Build an image's artefacts from its tree, publish them at once, and read them back.

`build` makes a directory: the manifest, hard links to the packs of the frame cache that hold its bytes, and for
gzip the member's two ends. It is complete and on disk before it gets its name, and nothing in it changes after.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xxhash

from wwfast import __version__
from wwfast._ext.tree import OTHER_TIMES, OVER_2G, SOCKETS, Tree
from wwfast.archive import frames as codec
from wwfast.archive import newc
from wwfast.archive.artefact import ARCHIVES, FORMATS, GZ, RAW, Artefact
from wwfast.errors import UsageError, WwfastError
from wwfast.pack import excludes as rules
from wwfast.pack import manifest, tar, xattrs
from wwfast.pack.cache import Frame, FrameCache, PackWriter, collect, frame_key, hold, intact
from wwfast.pack.engine import (
    SEGMENT,
    ChangedError,
    Engine,
    Packed,
    Progress,
    TooLargeError,
    scan,
    trusted_before,
)
from wwfast.pack.manifest import Manifest, Piece, Segment, Stamp
from wwfast.system import files, locks, work

log = logging.getLogger(__name__)

ATTEMPTS = 3
EDGES = "edges"  # head and tail of the gzip member
LOCK = ".pack.lock"
TAIL_SEGMENT = 2  # c_devminor of what we add ourselves: no segment of files has it (they are 0 or odd, or beside odd)
CACHE_LIMIT = 32 << 30  # bytes of packs no image refers to that a build leaves behind
SHOWN = 5  # names of files that have what not every root keeps
PACKS_MAX = 16  # files one artefact is spread over, at most
SKIPPED = {
    SOCKETS: "{} sockets are not in the image",
    OTHER_TIMES: "{} files have a time before 1970 or after 2106 and got the nearest",
    OVER_2G: "{} files are over 2 GiB; Linux 5.9 to 6.8 cannot unpack them",
}


@dataclass(frozen=True, slots=True)
class Job:
    """One call of `build`, checked."""

    tree: Path
    dest: Path
    name: str
    formats: list[str]
    archive: str
    archive_from: int
    level: int
    patterns: list[bytes]
    own_patterns: int  # the first so many are the tree's own rules
    skip_dirs: frozenset[str]
    full: bool
    check: bool
    frames: Path
    progress: Progress | None
    epoch: int | None
    segment: float


def build(
    tree: Path,
    dest: Path,
    *,
    name: str,
    formats: Collection[str],
    frames: Path,
    archive: str = "",
    archive_from: int = 0,
    level: int = codec.DEFAULT_LEVEL,
    excludes: Sequence[str] = (),
    skip_dirs: frozenset[str] = frozenset(),
    full: bool = False,
    check: bool = False,
    progress: Progress | None = None,
    epoch: int | None = None,
    segment: float = SEGMENT,
) -> Manifest:
    """Pack `tree` into the new directory `dest`.

    `formats` of raw, zst, gz; `archive` of the forms of tar ("": none) for trees that take `archive_from` bytes in
    memory, in which alone is built what newc cannot carry; `level` on zstd's scale for all; `excludes` beside the
    tree's own rules; `skip_dirs` directories that get no entry; `full` uses nothing of earlier builds, `check` reads
    every file again but takes frames from the cache; `frames` is the cache's directory; `epoch` (or
    SOURCE_DATE_EPOCH) the latest time written; `segment` the mean raw bytes between cuts. `progress(done, total)`
    gets raw bytes.
    Another build beside `dest` is waited for. Raises WwfastError naming the file, when the tree cannot be packed or
    does not hold still; then nothing is left behind.
    """
    _check(name, formats)
    epoch = _epoch() if epoch is None else epoch
    if not tree.is_dir():
        raise WwfastError(f"cannot build {name}: no directory {tree}")
    own, patterns = _patterns(tree, name, excludes)
    order = [fmt for fmt in FORMATS if fmt in formats]
    job = Job(
        tree,
        dest,
        name,
        order,
        archive,
        archive_from,
        level,
        patterns,
        len(own),
        skip_dirs,
        full,
        check,
        frames,
        progress,
        epoch,
        segment,
    )
    dest.parent.mkdir(parents=True, exist_ok=True)
    with _alone(dest.parent / LOCK, name):
        if dest.exists():
            raise WwfastError(f"{dest} exists already", hint="every build gets a directory of its own")
        made = _attempts(job)
    collect(frames, CACHE_LIMIT, wait=False)
    return made


def _check(name: str, formats: Collection[str]) -> None:
    if wrong := sorted(set(formats) - set(FORMATS)):
        raise UsageError(f"unknown format {wrong[0]}", hint=f"there are {', '.join(FORMATS)}")
    if not formats:
        raise UsageError(f"no format to build {name} in", hint=f"there are {', '.join(FORMATS)}")


def _patterns(tree: Path, name: str, excludes: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
    """The tree's own rules, and all of them."""
    own, malformed = rules.compile(rules.read(tree))
    for pattern in malformed:
        log.warning("exclude rule %r of %s is not well formed and matches nothing", pattern, name)
    return own, own + rules.compile(excludes)[0]


def _epoch() -> int | None:
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given and not (given.isascii() and given.isdigit()):
        raise WwfastError(f"SOURCE_DATE_EPOCH is {given!r}", hint="it is a number of seconds since 1970")
    return int(given) if given else None


@contextmanager
def _alone(lock: Path, name: str) -> Iterator[None]:
    with locks.opened(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another build of %s is running; waiting for its end", name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _attempts(job: Job) -> Manifest:
    with hold(job.frames):
        for attempt in range(ATTEMPTS):
            writer = PackWriter(job.frames)
            try:
                return _attempt(job, writer)
            except ChangedError as error:
                if attempt + 1 == ATTEMPTS:
                    raise
                log.info("%s; trying again", error.message)
            except OSError as error:
                where = error.filename or job.frames
                raise WwfastError(f"cannot build {job.name}: {where}: {error.strerror}") from error
            finally:
                writer.abandon()
    raise AssertionError("unreachable")


def _attempt(job: Job, writer: PackWriter) -> Manifest:
    started, before = time.perf_counter(), trusted_before()
    walked, formats, warnings = _scan(job)
    for rule, why in rules.idle(job.own_patterns, job.patterns, walked.idle()):
        log.warning("exclude rule %r of %s matches nothing%s", rule, job.name, f"; {why}" if why else "")
    cache = FrameCache(job.frames)
    if not (job.check or job.full):
        walked.recall(cache.recall(job.tree))
    engine = Engine(
        job.tree,
        walked,
        cache,
        writer,
        formats=formats,
        level=job.level,
        full=job.full,
        progress=job.progress,
    )
    packed = engine.run()
    attributes = xattrs.gather(job.tree, walked.with_xattrs())
    tail, raw_tail = _tail(job, engine, attributes)
    archive: list[Packed] = []
    parts: list[int] = []
    holes = 0
    if job.archive and (walked.unpacked >= job.archive_from or not formats):
        made_tar = tar.Archive(job.tree, walked, cache, writer, fmt=job.archive, level=job.level, full=job.full)
        archive, parts, holes = made_tar.run(), made_tar.parts, made_tar.holes
    packed = _gather([*packed, tail, *archive], writer, job)
    writer.finish()
    seen = walked.remember(before)
    warnings += [SKIPPED[kind].format(n) for kind, n in walked.skipped.items()]
    warnings += attributes.warnings
    for warning in warnings:
        log.info("%s: %s", job.name, warning)
    count = walked.segments_count + 1
    segments = _segments(walked, packed[:count], raw_tail)
    bodies = _bodies(job, formats, packed[:count], packed[count:], parts)
    made = _publish(job, packed, bodies, segments, walked, holes, warnings, attributes.acls, started)
    cache.remember(job.tree, seen)
    return made


def _scan(job: Job) -> tuple[Tree, list[str], list[str]]:
    """The walked tree, and the forms of newc that it can have, and what keeps it from others."""
    walk = partial(scan, job.tree, patterns=job.patterns, skip_dirs=job.skip_dirs, epoch=job.epoch, segment=job.segment)
    try:
        return walk(), job.formats, []
    except TooLargeError as error:
        if not job.archive:
            raise
        return walk(newc=False), [], [f"it boots in two stages only: {error.message}"]


def _tail(job: Job, engine: Engine, found: xattrs.Gathered) -> tuple[Packed, int]:
    """What ends every archive: the attributes newc cannot carry, as files, and the one TRAILER."""
    entries = []
    if found.attributes:
        if not os.path.lexists(job.tree / "warewulf"):
            entries.append(newc.Entry(b"warewulf", 0o040755, 0, 0, 0))
        entries += [
            newc.Entry(path, 0o100600, 0, 0, 0, data)
            for path, data in ((xattrs.CAPABILITIES, found.capabilities), (xattrs.XATTRS, found.attributes))
            if data
        ]
    raw = newc.archive(entries, segment=TAIL_SEGMENT)
    return engine.pack(xxhash.xxh3_128_digest(raw), memoryview(raw)), len(raw)


def _gather(packed: list[Packed], writer: PackWriter, job: Job) -> list[Packed]:
    """Copy frames out of packs of which this image uses little, and keep the number of packs small.

    Otherwise years of small updates would hold on to every pack there ever was.
    """
    used: Counter[Path] = Counter()
    for segment in packed:
        for frame in segment.frames.values():
            used[frame.pack] += frame.length
    used.pop(writer.path, None)
    stale = {pack for pack, length in used.items() if length * 4 < pack.stat().st_size}
    stale |= {pack for pack, _ in (used - Counter({p: used[p] for p in stale})).most_common()[PACKS_MAX - 1 :]}
    if not stale:
        return packed
    return [
        segment._replace(
            frames={
                fmt: writer.copy(frame_key(segment.key, fmt, job.level), frame) if frame.pack in stale else frame
                for fmt, frame in segment.frames.items()
            }
        )
        for segment in packed
    ]


def _segments(walked: Tree, packed: list[Packed], raw_tail: int) -> list[Segment]:
    made = [
        Segment(
            walked.first(number).decode(errors="backslashreplace"),
            walked.entries_of(number),
            walked.size(number),
            packed[number].key.hex(),
        )
        for number in range(walked.segments_count)
    ]
    return [*made, Segment("", 0, raw_tail, packed[-1].key.hex())]


def _publish(
    job: Job,
    packed: list[Packed],
    made_bodies: tuple[dict[str, manifest.Body], bytes],
    segments: list[Segment],
    walked: Tree,
    holes: int,
    warnings: list[str],
    acls: list[bytes],
    started: float,
) -> Manifest:
    """Link the packs, write the manifest, bring all of it to the disk, give it its name."""
    with work.directory(job.dest.parent) as room:
        new = room / "build"
        new.mkdir(mode=0o755)
        stamps: dict[str, Stamp] = {}
        for pack in {frame.pack for segment in packed for frame in segment.frames.values()}:
            _link(pack, new / pack.name)
            stamps[pack.name] = _stamp(new / pack.name)
        bodies, edges = made_bodies
        if edges:
            (new / EDGES).write_bytes(edges)
            stamps[EDGES] = _stamp(new / EDGES)
        packed_size = min(made.bytes for fmt, made in bodies.items() if fmt in FORMATS or len(bodies) == 1)
        made = Manifest(
            name=job.name,
            tool=f"wwfast {__version__}",
            tree=str(job.tree),
            created=time.time(),
            seconds=time.perf_counter() - started,
            entries=walked.written,
            raw=sum(segment.raw for segment in segments),
            unpacked=walked.unpacked,
            holes=holes,
            least_ram=walked.unpacked + packed_size + manifest.RESERVE,
            reused=sum(segment.reused for segment in packed[: len(segments)]),
            packed=sum(not segment.reused for segment in packed[: len(segments)]),
            epoch=job.epoch,
            excludes=[os.fsdecode(pattern) for pattern in job.patterns],
            skip_dirs=sorted(job.skip_dirs),
            warnings=warnings,
            acls=len(acls),
            acls_first=[path.decode(errors="backslashreplace") for path in acls[:SHOWN]],
            formats=bodies,
            segments=segments,
            files=stamps,
        )
        (new / manifest.FILE).write_bytes(manifest.encode(made))
        for path in (new / EDGES, new / manifest.FILE, new):
            if path.exists():
                files.sync(path)
        new.rename(job.dest)
        files.sync(job.dest.parent)
    return made


def _bodies(
    job: Job, formats: list[str], packed: list[Packed], archive: list[Packed], parts: list[int]
) -> tuple[dict[str, manifest.Body], bytes]:
    """What each format is made of, and what stands before and after the frames of the gzip one."""
    edges = b""
    bodies: dict[str, manifest.Body] = {}
    for fmt in (*formats, *([job.archive] if archive else [])):
        frames = [segment.frames[fmt] for segment in (archive if fmt in ARCHIVES else packed)]
        pieces = [
            Piece(
                frame.pack.name, frame.offset, frame.length, frame.xxh3.hex(), "" if fmt == RAW else frame.sha256.hex()
            )
            for frame in frames
        ]
        if fmt == GZ:
            head = codec.gz_head(sum(frame.length for frame in frames))
            tail = codec.gz_tail(*codec.combine((frame.crc, frame.raw) for frame in frames))
            edges = head + tail
            pieces = [_edge(0, head), *pieces, _edge(len(head), tail)]
        bodies[fmt] = manifest.body(pieces, job.level, codec.LIBRARIES[fmt], parts if fmt in ARCHIVES else [])
    return bodies, edges


def _edge(offset: int, data: bytes) -> Piece:
    return Piece(EDGES, offset, len(data), xxhash.xxh3_128_hexdigest(data), hashlib.sha256(data).hexdigest())


def _link(pack: Path, path: Path) -> None:
    """A name of our own for the pack; a copy where the cache is on another file system."""
    try:
        path.hardlink_to(pack)
    except OSError:
        shutil.copy2(pack, path)
        files.sync(path)


def _stamp(path: Path) -> Stamp:
    facts = path.stat()
    return Stamp(facts.st_size, facts.st_mtime_ns)


def load(dest: Path, fmt: str) -> Artefact | None:
    """The artefact of one format; None when that format was not built.

    Raises WwfastError when there is no build, or when its files are not what was published: a file whose size or
    time differs is read and compared with its digests before it is believed.
    """
    listed = manifest.read(dest)
    for name, stamp in listed.files.items():
        try:
            believed = _stamp(dest / name) == stamp
        except FileNotFoundError:
            believed = False
        if not believed and (broken := damaged(dest, listed, name)):
            raise WwfastError(broken, hint=f"build it again: wwfast image build {listed.name} --full")
    return manifest.artefact(dest, listed, fmt)


def damaged(dest: Path, listed: Manifest, name: str | None = None) -> str | None:
    """Read what was published (or one file of it) and compare it with its digests; what is wrong, or None."""
    for fmt, made in listed.formats.items():
        for number, piece in enumerate(made.pieces):
            if name in (None, piece.file):
                frame = Frame(
                    dest / piece.file,
                    piece.offset,
                    piece.length,
                    0,
                    0,
                    bytes.fromhex(piece.xxh3),
                    bytes.fromhex(piece.sha256),
                )
                if not intact(frame):
                    return f"{dest / piece.file} is damaged: piece {number} of format {fmt} is not what was built"
    return None


def damage(dest: Path) -> str | None:
    """As `damaged`, of all that was published there; a manifest that cannot be read is told, too."""
    try:
        return damaged(dest, manifest.read(dest))
    except WwfastError as error:
        return error.message


def again(former: Path, dest: Path) -> bool:
    """What was published in `former` in the new directory `dest` as well; False where it is damaged."""
    if damage(former):
        return False
    with work.directory(dest.parent) as room:
        new = room / "build"
        new.mkdir(mode=0o755)
        for name in (*manifest.read(former).files, manifest.FILE):
            _link(former / name, new / name)
        files.sync(new)
        new.rename(dest)
    files.sync(dest.parent)
    return True
