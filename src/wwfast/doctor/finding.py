"""What a check says, and what it looks at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wwfast.nodes import hostlist

if TYPE_CHECKING:
    from wwfast.boot.paper import Paper
    from wwfast.config.settings import Settings
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Snapshot
    from wwfast.paths import Paths

ERROR, WARNING = "error", "warning"
PROC = Path("/proc")

Progress = Callable[[int, int], object]  # nodes done, of all


@dataclass(frozen=True, slots=True)
class Finding:
    """`nodes` are those it concerns, which `message` begins with; none where it concerns the server."""

    level: str  # ERROR or WARNING
    check: str
    message: str
    fix: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """What the checks look at. `thorough`: at every node, and not at one of each kind."""

    paths: Paths
    settings: Settings
    snapshot: Snapshot
    paper: Paper
    proc: Path = PROC
    running: Mapping[str, object] = field(default_factory=dict)  # /status of the server, where one runs
    chosen: frozenset[str] | None = None  # ids of the nodes that are asked about; None: all
    thorough: bool = True
    progress: Progress | None = None

    @property
    def nodes(self) -> list[Node]:
        known = self.snapshot.nodes
        if self.chosen is None:
            return list(known.values())
        return [node for name in sorted(self.chosen) if (node := known.get(name)) is not None]

    def asked(self, node: str) -> bool:
        return self.chosen is None or node in self.chosen


SELF = "\0"  # stands for the name of the node itself, so that alike nodes have the same texts
WORD = re.compile(r"[\w.-]*\w")
NODE_WORD = re.compile(r"(?<=node )" + WORD.pattern)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one node: told together with those that have the same. The node is SELF in the texts."""

    node: str
    level: str
    check: str
    message: str
    fix: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", _impersonal(self.message, self.node, NODE_WORD))
        object.__setattr__(self, "fix", _impersonal(self.fix, self.node, WORD))


def grouped(faults: Iterable[Fault]) -> list[Finding]:
    """One finding for all nodes that have the same fault, in the order in which they were met."""
    alike: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for fault in faults:
        alike.setdefault((fault.level, fault.check, fault.message, fault.fix), {})[fault.node] = None
    return [_told(*key, tuple(nodes)) for key, nodes in alike.items()]


def _impersonal(text: str, node: str, word: re.Pattern[str]) -> str:
    return word.sub(lambda found: SELF if found.group() == node else found.group(), text) if node in text else text


def _told(level: str, check: str, message: str, fix: str, nodes: tuple[str, ...]) -> Finding:
    names = hostlist.compress(nodes)
    message = message.removeprefix(f"node {SELF}").removeprefix(":").lstrip().replace(f", node {SELF}", "")
    quoted = f"'{names}'" if "[" in names else names
    return Finding(level, check, f"{names}: {message.replace(SELF, names)}", fix.replace(SELF, quoted), nodes)
