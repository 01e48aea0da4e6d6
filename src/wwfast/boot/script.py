"""The text a node's iPXE runs: site templates over shipped ones, `<name>.ipxe.j2`; last `<name>.ipxe` in Go.

One form is right for every iPXE from 2019 on, BIOS and UEFI: `initrd --name X URL` with `initrd=X` on the
kernel's command line. iPXE 1.0.0+git-20190125 on UEFI panics the kernel without `initrd=`.

iPXE cuts a script into lines and at `||` and `&&`, and expands `${...}` in every argument. So a value with any of these
is refused where a template prints it, wherever it comes from; what iPXE is to expand stands in the template itself, or
is an Expanded of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wwfast.boot import goscript
from wwfast.config import checks
from wwfast.errors import ConfigError, NotFoundError, WwfastError
from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.render import Engine
from wwfast.overlays.templates.render import Program
from wwfast.overlays.templates.sandbox import Sandbox
from wwfast.paths import SHARE, Paths

SUFFIX = ".ipxe.j2"
GO_SUFFIX = ".ipxe"
NODE = "{node}"  # stands for the node in what is wrong with a template, until one asks for it

Stamp = tuple[int, int, int, int]


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
    """The iPXE templates as they were when this was made, compiled; nothing is read after that.

    What `former` compiled from the same files is taken over.
    """

    def __init__(self, paths: Paths, former: Scripts | None = None) -> None:
        self._site = paths.etc / "ipxe"
        self.sandbox: Sandbox = former.sandbox if former is not None else Sandbox({}, finalize=printed)
        self._go: Engine = former._go if former is not None else goscript.engine()
        self._compiled: dict[str, tuple[Path, Stamp, Program | goscript.Script | WwfastError]] = {}
        for folder in (SHARE / "ipxe", self._site):
            for path in folder.glob(f"*{SUFFIX}"):
                if not path.name.startswith("."):
                    self._take(path, path.name.removesuffix(SUFFIX), former)
        # Of Warewulf's own there are ours: its default script asks for routes and a menu that a site may not have.
        for path in self._site.glob(f"*{GO_SUFFIX}"):
            name = path.name.removesuffix(GO_SUFFIX)
            if not name.startswith(".") and name not in self._compiled:
                self._take(path, name, former)

    def _compile(self, path: Path) -> Program | goscript.Script:
        where = f"iPXE template {path}"
        if path.name.endswith(SUFFIX):
            return Program(self.sandbox, path.read_text(), where, ":{}", NODE)
        return goscript.Script(self._go, path.read_text(), where, NODE)

    def _take(self, path: Path, name: str, former: Scripts | None) -> None:
        try:
            found = path.stat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            known = former._compiled.get(name) if former is not None else None
            if known is None or known[:2] != (path, stamp):
                known = (path, stamp, self._compile(path))
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            known = (path, (0, 0, 0, 0), ConfigError(f"iPXE template {path} cannot be read: {error}"))
        except WwfastError as error:
            known = (path, stamp, error)
        self._compiled[name] = known

    def wrong(self) -> list[str]:
        """What is sure to fail, of all of them; each names its file."""
        found: list[str] = []
        for _, _, program in self._compiled.values():
            if isinstance(program, WwfastError):
                found.append(program.message.replace(f", node {NODE}", ""))
            elif isinstance(program, goscript.Script):
                found += program.doubts()
        return found

    def names(self) -> list[str]:
        return sorted(self._compiled)

    def find(self, name: str) -> Path:
        """The template file of a name. Raises NotFoundError."""
        if "/" in name or name.startswith("."):
            raise NotFoundError(f"iPXE template {name!r}: a name is wanted, not a path")
        if name in self._compiled:
            return self._compiled[name][0]
        raise NotFoundError(f"no iPXE template {name}", hint=f"there are: {', '.join(self.names())}")

    def render(self, name: str, variables: Mapping[str, object]) -> str:
        """The script for one node. Raises NotFoundError, and ConfigError that names file, line and node."""
        self.find(name)
        program = self._compiled[name][2]
        node = str(variables.get("id", ""))
        if isinstance(program, WwfastError):
            whom = f", node {node}" if node else ""
            raise ConfigError(program.message.replace(f", node {NODE}", whom), hint=program.hint)
        return program.run({**self.sandbox.globals, **variables}, {}, node)
