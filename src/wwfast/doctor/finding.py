"""What a check says, and what it looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.nodes.registry import Snapshot
    from wwfast.paths import Paths

ERROR, WARNING = "error", "warning"
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Finding:
    level: str  # ERROR or WARNING
    check: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What the checks look at."""

    paths: Paths
    settings: Settings
    snapshot: Snapshot
    proc: Path = PROC
    running: Mapping[str, object] = field(default_factory=dict)  # /status of the server, where one runs
