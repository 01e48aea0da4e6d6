"""`node list`: the tables of the whole cluster are kept, so that asking again costs no more than reading the file.

A kept table belongs to one digest of nodes.conf and one version of wwfast; any other digest makes it anew. The files
are 0600 (a table can show what nodes.conf shows) and may be deleted any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import xxhash

import wwfast
from wwfast.cli.output import table

if TYPE_CHECKING:
    from wwfast.cli.context import App
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Problem, Snapshot


class Filter(NamedTuple):
    """Which nodes are meant, by what they effectively have; "" is any. `tags`: KEY or KEY=VALUE."""

    image: str = ""
    profile: str = ""
    cluster: str = ""
    tags: tuple[str, ...] = ()

    def apply(self, snapshot: Snapshot, nodes: Sequence[Node]) -> list[Node]:
        pairs = [word.partition("=") for word in self.tags]
        return [
            node
            for node in nodes
            if (not self.image or node.image_name == self.image)
            and (not self.profile or self.profile in snapshot.chain(node.id))
            and (not self.cluster or node.cluster_name == self.cluster)
            and all(key in node.tags and (not equals or node.tags[key] == value) for key, equals, value in pairs)
        ]


class Kept(msgspec.Struct):
    """A finished table."""

    digest: str
    version: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    problems: list[str]


TABLES = ("short", "long", "net", "ipmi", "kernel")


def print_nodes(app: App, shape: str, patterns: Sequence[str], wanted: Filter) -> tuple[list[str], list[str]]:
    """Print nodes in a shape (a table, all, yaml, json); what is wrong with them comes back as lines, and the patterns
    that mean none."""
    place = app.paths.cache / "registry" / f"{shape}.msgpack"
    keep = shape in TABLES and not patterns and wanted == Filter()
    if keep and (kept := recall(place, app.paths.nodes_conf)) is not None:
        table(kept.header, kept.rows)
        return kept.problems, []
    from wwfast.cli.nodes import views

    snapshot = app.registry.snapshot()
    nodes, lost = views.select(snapshot, patterns)
    if wanted != Filter():
        nodes = wanted.apply(snapshot, nodes)
    rows: list[tuple[str, ...]] = []
    if shape in TABLES:
        header, rows = views.TABLES[shape](nodes)
        table(header, rows)
    elif shape == "all":
        views.everything(snapshot, nodes)
    else:
        entries = {node.id: views.plain(node) for node in nodes}
        (views.as_yaml if shape == "yaml" else views.as_json)(entries)
    problems = told(
        problem
        for problem in snapshot.found_problems()
        if not patterns or problem.kind != "node" or problem.id in snapshot.asked
    )
    if keep:
        remember(place, Kept(snapshot.digest, wwfast.__version__, header, rows, problems))
    return problems, lost


def told(problems: Iterable[Problem]) -> list[str]:
    """What is wrong, as lines for standard error."""
    return [f"{'error' if problem.fatal else 'warning'}: {problem}" for problem in problems]


def recall(place: Path, conf: Path) -> Kept | None:
    """The kept table of the file as it is now, if there is one."""
    try:
        kept = msgspec.msgpack.decode(place.read_bytes(), type=Kept)
        digest = xxhash.xxh3_128_hexdigest(conf.read_bytes())
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    return kept if kept.digest == digest and kept.version == wwfast.__version__ else None


def remember(place: Path, kept: Kept) -> None:
    """Keep a table; where the cache cannot be written (not root) there is none."""
    from wwfast.system import files

    try:
        files.replace(place, msgspec.msgpack.encode(kept), durable=False)
    except OSError:
        pass
