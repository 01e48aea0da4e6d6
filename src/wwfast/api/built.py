"""What Warewulf built of its overlays for each node, against what the same node would get here: file by file.

Warewulf keeps NODE/__SYSTEM__.img and NODE/__RUNTIME__.img, plain and with .gz: newc archives made by cpio.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from wwfast.archive import newc
from wwfast.archive.stream import opened
from wwfast.config.settings import Settings
from wwfast.errors import NotFoundError, WwfastError, cause
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.overlays.files.model import DIRECTORY, FILE, LINK
from wwfast.overlays.files.stack import Entry, Stack, StaticContent
from wwfast.overlays.making.service import CONTEXTS, OverlayService
from wwfast.paths import Paths

LARGEST = 1 << 29  # bytes of an overlay archive, unpacked
END = b"TRAILER!!!\0"
KINDS = {stat.S_IFDIR: DIRECTORY, stat.S_IFREG: FILE, stat.S_IFLNK: LINK}


class Found(NamedTuple):
    """A path of a node as its archive has it."""

    kind: str
    mode: int
    uid: int
    gid: int
    data: bytes


class Difference(NamedTuple):
    """The same of one path on some nodes; `before` and `after` are of the first one, None where there is nothing."""

    context: str
    path: str
    what: str
    nodes: list[str]
    before: bytes | None
    after: bytes | None


class Compared(NamedTuple):
    """Each file that differs, and by reason which nodes could not be compared."""

    differences: list[Difference]
    failed: dict[str, list[str]]


def compare(
    paths: Paths, settings: Settings, snapshot: Snapshot, place: Path, tell: Callable[[int, int], None]
) -> Compared:
    """`tell` hears of nodes done, of all. Raises NotFoundError where nothing was built."""
    place = place / "overlays" if (place / "overlays").is_dir() else place
    if not any(place.glob("*/__*__.img*")):
        raise NotFoundError(
            f"{place} has no built overlays", hint="the directory that holds NODE/__SYSTEM__.img, or the one above it"
        )
    found: dict[tuple[str, str, str], Difference] = {}
    failed: dict[str, list[str]] = {}
    nodes = list(snapshot.nodes.values())
    with closing(OverlayService(paths, settings, alone=True, writing=False)) as service:
        for at, node in enumerate(nodes):
            for context in CONTEXTS:
                try:
                    theirs = archive(place / node.id, context)
                    if theirs is None:
                        failed.setdefault(f"{context}: Warewulf built none", []).append(node.id)
                        continue
                    ours = service.laid(snapshot, node, context)
                except (WwfastError, OSError) as error:
                    failed.setdefault(f"{context}: {cause(error)}", []).append(node.id)
                    continue
                for each in of_node(node, context, theirs, ours):
                    known = found.setdefault((context, each.path, each.what), each)
                    if known is not each:
                        known.nodes.append(node.id)
            tell(at + 1, len(nodes))
    return Compared([found[key] for key in sorted(found)], failed)


def archive(folder: Path, context: str) -> dict[str, Found] | None:
    """What Warewulf built for a node, by path; None where there is nothing. Raises WwfastError for half of one."""
    name = f"__{context.upper()}__.img"
    path = next((each for each in (folder / name, folder / f"{name}.gz") if each.exists()), None)
    if path is None:
        return None
    with opened(path) as stream:
        raw = stream.read(LARGEST + 1)
    end = raw.rfind(END)
    if len(raw) > LARGEST or end < 0:
        why = "is larger than an overlay can be" if len(raw) > LARGEST else "is cut short: it has no end"
        raise WwfastError(f"{path} {why}")
    end += len(END)
    try:
        entries = newc.entries(raw[: end + -end % 4])
    except ValueError as error:
        raise WwfastError(f"{path} is no newc archive: {error}") from error
    return dict(of_entries(entries))


def of_entries(entries: Iterable[newc.Entry]) -> Iterator[tuple[str, Found]]:
    for entry in entries:
        name = entry.name.decode("utf-8", "surrogateescape").removeprefix("./").strip("/")
        kind = KINDS.get(stat.S_IFMT(entry.mode), "special")
        if name not in ("", "."):
            yield name, Found(kind, stat.S_IMODE(entry.mode), entry.uid, entry.gid, entry.data)


def of_node(node: Node, context: str, theirs: dict[str, Found], ours: Stack) -> Iterator[Difference]:
    """Files and links that are not the same; directories are not looked at."""
    for path in sorted(theirs.keys() | ours.keys()):
        old, new = theirs.get(path), ours.get(path)
        old = None if old is not None and old.kind == DIRECTORY else old
        new = None if new is not None and new.kind == DIRECTORY else new
        if old is None and new is None:
            continue
        before, after = old.data if old is not None else None, data(new) if new is not None else None
        if what := unlike(old, new, before, after):
            yield Difference(context, path, what, [node.id], before, after)


def unlike(old: Found | None, new: Entry | None, before: bytes | None, after: bytes | None) -> str:
    """How two entries of one path differ, or nothing."""
    if old is None or new is None:
        return "only wwfast has it" if old is None else "only Warewulf has it"
    if old.kind != new.kind:
        return f"a {old.kind} becomes a {new.kind}"
    if before != after:
        return "its text differs" if new.kind == FILE else "it leads elsewhere"
    if new.kind == FILE and old.mode != new.mode:
        return f"mode {old.mode:04o} becomes {new.mode:04o}"
    if (old.uid, old.gid) != (new.uid, new.gid):
        return f"owner {old.uid}:{old.gid} becomes {new.uid}:{new.gid}"
    return ""


def data(entry: Entry) -> bytes:
    content = entry.content
    return Path(content.source).read_bytes() if isinstance(content, StaticContent) else content
