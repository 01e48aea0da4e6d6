"""iPXE scripts: the text a node's iPXE runs, from templates in Jinja2 or in Go's language.

iPXE cuts a script into lines and at the words `||`, `&&` and `;`, drops what follows a word that begins with `#`, and
expands `${...}` in every argument. So a value with any of these is refused where a template prints it, wherever it
comes from; what iPXE is to expand stands in the template itself, or is an Expanded of ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from wwfast.config import checks
from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go import ipxe as go
from wwfast.overlays.templates.render import Program
from wwfast.overlays.templates.sandbox import Sandbox

SUFFIX = ".ipxe.j2"
GO_SUFFIX = ".ipxe"


class Expanded(str):
    """A text of ours that iPXE is to expand."""


def printed(value: object) -> object:
    """What a template prints, if iPXE takes it for a part of an argument. Raises Refused."""
    if type(value) is not Expanded and checks.script(str(value)):
        raise Refused(f"this value holds {checks.FOR_IPXE}, which iPXE would run")
    return value


class Writer:
    """Compiles templates of scripts, and runs them."""

    def __init__(self) -> None:
        self.sandbox = Sandbox({}, finalize=printed)
        self._go = go.engine()

    def compiled(self, path: str, source: str, node: str) -> Program | go.Script:
        """Raises ConfigError, for `node`, when it is no template."""
        where = f"iPXE template {path}"
        if path.endswith(SUFFIX):
            return Program(self.sandbox, source, where, ":{}", node)
        return go.Script(self._go, source, where, node)

    def run(self, program: Program | go.Script, variables: Mapping[str, object], node: str, memory: float = 0) -> str:
        """The script for one node; `memory` MiB are what the process may grow by. Raises ConfigError."""
        return program.run({**self.sandbox.globals, **variables}, {}, node, memory)
