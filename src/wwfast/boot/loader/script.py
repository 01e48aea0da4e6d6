"""Which iPXE scripts there are: site templates over shipped ones, `<name>.ipxe.j2`; last `<name>.ipxe` in Go.

Shipped ones are run here. One of a site may never end, so it is run where those of overlays are (overlays.making):
here is only said what it is to be given.

One form is right for every iPXE from 2019 on, BIOS and UEFI: `initrd --name X URL` with `initrd=X` on the
kernel's command line. iPXE 1.0.0+git-20190125 on UEFI panics the kernel without `initrd=`.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wwfast.config.checks import COMMAND_ENDS
from wwfast.errors import ConfigError, NotFoundError, WwfastError, cause
from wwfast.overlays.making.messages import Write
from wwfast.overlays.templates.go import ipxe as go
from wwfast.overlays.templates.ipxe import GO_SUFFIX, SUFFIX, Writer
from wwfast.overlays.templates.render import Program
from wwfast.paths import SHARE, Paths
from wwfast.system import settled

NODE = "{node}"  # stands for the node in what is wrong with a template, until one asks for it

Stamp = tuple[int, int, int, int]


class Taken(NamedTuple):
    """A template as it was read."""

    path: Path
    stamp: Stamp
    source: str
    program: Program | go.Script | WwfastError


def plain(line: str) -> str:
    """A line of a message for the console, without what iPXE would run."""
    line = "".join(letter if letter.isprintable() else " " for letter in line).replace("$", "")
    words = (word.lstrip("#") for word in line.split(" "))
    return " ".join(word for word in words if word not in COMMAND_ENDS)


class Scripts:
    """The iPXE templates as they were when this was made, compiled; nothing is read after that.

    What `former` compiled from the same files is taken over.
    """

    def __init__(self, paths: Paths, former: Scripts | None = None) -> None:
        site = paths.ipxe_templates
        self.writer: Writer = former.writer if former is not None else Writer()
        before = former._site if former is not None else {}
        self._shipped: dict[str, Taken] = former._shipped if former is not None else {}
        self._site: dict[str, Taken] = {}
        if not self._shipped:
            for path in (SHARE / "ipxe").glob(f"*{SUFFIX}"):
                self._take(self._shipped, path, path.name.removesuffix(SUFFIX), None)
        for path in site.glob(f"*{SUFFIX}"):
            if not path.name.startswith("."):
                name = path.name.removesuffix(SUFFIX)
                self._take(self._site, path, name, before.get(name))
        # Of Warewulf's own there are ours: its default script asks for routes and a menu that a site may not have.
        for path in site.glob(f"*{GO_SUFFIX}"):
            name = path.name.removesuffix(GO_SUFFIX)
            if not name.startswith(".") and name not in self._all:
                self._take(self._site, path, name, before.get(name))

    @property
    def _all(self) -> dict[str, Taken]:
        return self._shipped | self._site

    def _take(self, into: dict[str, Taken], path: Path, name: str, known: Taken | None) -> None:
        source, stamp = "", (0, 0, 0, 0)
        try:
            found = path.stat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if known is None or known[:2] != (path, stamp):
                source = settled.read(path).decode()
                known = Taken(path, stamp, source, self.writer.compiled(str(path), source, NODE))
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            if known is not None and getattr(error, "errno", 0) == errno.EBUSY:  # the last good one until it is whole
                into[name] = known
                return
            known = Taken(
                path, (0, 0, 0, 0), "", ConfigError(f"iPXE template {path} cannot be read: {cause(error, path)}")
            )
        except WwfastError as error:
            known = Taken(path, stamp, source, error)
        into[name] = known

    def wrong(self) -> list[str]:
        """What is sure to fail, of all of them; each names its file."""
        found: list[str] = []
        for _, _, _, program in self._all.values():
            if isinstance(program, WwfastError):
                found.append(program.message.replace(f", node {NODE}", ""))
            elif isinstance(program, go.Script):
                found += program.doubts()
        return found

    def files(self) -> list[Path]:
        """The templates of the site."""
        return [taken.path for taken in self._site.values()]

    def names(self) -> list[str]:
        return sorted(self._all)

    def find(self, name: str) -> Path:
        """The template file of a name. Raises NotFoundError."""
        if "/" in name or name.startswith("."):
            raise NotFoundError(f"iPXE template {name!r}: a name is wanted, not a path")
        if name in self._all:
            return self._all[name].path
        raise NotFoundError(f"no iPXE template {name}", hint=f"there are: {', '.join(self.names())}")

    def fetches(self, name: str) -> bool:
        """Whether the script fetches what it is told to (`stages`): one of a site may load an image and no more."""
        site = self._site.get(name)
        return site is None or "stages" in site.source

    def script(self, name: str, variables: Mapping[str, Any]) -> str | Write:
        """The script for one node, or what a worker is to be asked for it.

        Raises NotFoundError, and ConfigError that names file, line and node.
        """
        self.find(name)
        site = self._site.get(name)
        if site is None:
            return self.shipped(name, variables)
        path, _, source, program = site
        node = str(variables.get("id", ""))
        if isinstance(program, WwfastError):
            whom = f", node {node}" if node else ""
            raise ConfigError(program.message.replace(f", node {NODE}", whom), hint=program.hint)
        return Write.of(node, str(path), source, variables)

    def shipped(self, name: str, variables: Mapping[str, Any]) -> str:
        """The script of a template of ours. Raises ConfigError."""
        program = self._shipped[name].program
        assert not isinstance(program, WwfastError)
        return self.writer.run(program, variables, str(variables.get("id", "")))
