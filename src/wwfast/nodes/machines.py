"""What the machines of nodes said of themselves when they booted last: their memory, kept in one small file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from wwfast.errors import WwfastError, cause
from wwfast.system import files
from wwfast.system.folders import folder

MOST = 1 << 30  # MiB: a petabyte
ALIKE = 64  # what differs by less than so many parts is the same machine, told in another way

Memory = Annotated[int, msgspec.Meta(ge=1, le=MOST)]


class Machines:
    """MiB of memory by node. Looked up and told on the event loop; the file is for threads.

    `unheard` are nodes that fetched stage-1 and have told nothing since.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory: dict[str, int] = {}
        self.unheard: set[str] = set()
        self.changed = False

    def memory(self, node: str) -> int:
        """0 where it is not known."""
        return self._memory.get(node, 0)

    def tell(self, node: str, memory: int) -> None:
        """What a node says that proved to be it: there are never more entries than nodes, but for those that went."""
        self.unheard.discard(node)
        if 0 < memory <= MOST and abs(memory - self.memory(node)) * ALIKE > memory:
            self._memory[node] = memory
            self.changed = True

    def forget(self, node: str) -> None:
        self.changed = self._memory.pop(node, 0) > 0 or self.changed

    def export(self) -> dict[str, int]:
        return dict(self._memory)

    def adopt(self, state: Mapping[str, int]) -> None:
        """What another server knew, which may not be in the file."""
        self._memory, self.changed = dict(state), True

    def load(self) -> None:
        """Raises WwfastError where the file is damaged; what it said is told anew at the next boots."""
        self._memory = read(self._path)

    def save(self, known: Callable[[str], bool]) -> None:
        """Write what changed, without the nodes that are gone. Raises OSError, and it is tried again."""
        if not self.changed:
            return
        self.changed = False
        kept = {node: memory for node, memory in sorted(self.export().items()) if known(node)}
        try:
            folder(self._path.parent)
            files.replace(self._path, msgspec.json.format(msgspec.json.encode(kept), indent=0), durable=False)
        except OSError:
            self.changed = True
            raise
        for node in {*self.export(), *self.unheard.copy()}:
            if not known(node):
                self._memory.pop(node, None)
                self.unheard.discard(node)


def read(path: Path) -> dict[str, int]:
    """MiB by node, nothing where there is no file. Raises WwfastError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Memory])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise WwfastError(
            f"cannot read {path}: {cause(error, path)}",
            hint=f"remove {path}: nodes tell their memory again when they boot",
        ) from error
