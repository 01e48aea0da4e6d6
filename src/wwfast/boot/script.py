"""The text a node's iPXE runs: site templates over shipped ones, `<name>.ipxe.j2`.

One form is right for every iPXE from 2019 on, BIOS and UEFI: `initrd --name X URL` with `initrd=X` on the
kernel's command line. iPXE 1.0.0+git-20190125 on UEFI panics the kernel without `initrd=`.

iPXE cuts a script into lines and at `||` and `&&`, and expands `${...}` in every argument. So a value with any of these
is refused where a template prints it, wherever it comes from; what iPXE is to expand stands in the template itself, or
is an Expanded of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wwfast.config import checks
from wwfast.errors import NotFoundError
from wwfast.overlays.faults import Refused
from wwfast.overlays.render import Program
from wwfast.overlays.sandbox import Sandbox
from wwfast.paths import SHARE, Paths

SUFFIX = ".ipxe.j2"
GO_SUFFIX = ".ipxe"


class Expanded(str):
    """A text of ours that iPXE is to expand."""


def printed(value: object) -> object:
    """What a template prints, if iPXE takes it for a part of an argument. Raises Refused."""
    if type(value) is not Expanded and checks.script(str(value)):
        raise Refused("this value holds a line break, ${, || or &&, which iPXE would run")
    return value


def plain(line: str) -> str:
    """A line of a message for the console, without what iPXE would run."""
    line = "".join(letter if letter.isprintable() else " " for letter in line).replace("$", "")
    return " ".join(word for word in line.split(" ") if word not in ("||", "&&"))


class Scripts:
    """Compiled iPXE templates; a site file that changes is compiled again."""

    def __init__(self, paths: Paths) -> None:
        self._site = paths.etc / "ipxe"
        self._shipped = SHARE / "ipxe"
        self._compiled: dict[str, tuple[tuple[int, int], Program]] = {}
        self._sandbox = Sandbox({}, finalize=printed)

    def names(self) -> list[str]:
        found = {p.name.removesuffix(SUFFIX) for d in (self._site, self._shipped) for p in d.glob(f"*{SUFFIX}")}
        return sorted(found)

    def find(self, name: str) -> Path:
        """The template file of a name. Raises NotFoundError; a Go template of the site is named as such."""
        if "/" in name or name.startswith("."):
            raise NotFoundError(f"iPXE template {name!r}: a name is wanted, not a path")
        for folder in (self._site, self._shipped):
            if (folder / f"{name}{SUFFIX}").is_file():
                return folder / f"{name}{SUFFIX}"
        unported = self._site / f"{name}{GO_SUFFIX}"
        if unported.is_file():
            raise NotFoundError(
                f"iPXE template {name}: {unported} is a Go template, which wwfast does not read",
                hint=f"port it to Jinja2 as {self._site / (name + SUFFIX)}",
            )
        raise NotFoundError(f"no iPXE template {name}", hint=f"there are: {', '.join(self.names())}")

    def render(self, name: str, variables: Mapping[str, object]) -> str:
        """The script for one node. Raises NotFoundError, and ConfigError that names file, line and node."""
        path = self.find(name)
        stat = path.stat()
        key = (stat.st_mtime_ns, stat.st_size)
        node = str(variables.get("id", ""))
        cached = self._compiled.get(str(path))
        if cached is None or cached[0] != key:
            cached = (key, Program(self._sandbox, path.read_text(), f"iPXE template {path}", ":{}", node))
            self._compiled[str(path)] = cached
        return cached[1].run({**self._sandbox.globals, **variables}, {}, node)
