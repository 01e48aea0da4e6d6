"""Warewulf's own functions: files of the server and of images, and what the output becomes."""

from __future__ import annotations

from typing import Any, NamedTuple

from wwfast.overlays.templates import filters
from wwfast.overlays.templates.environment import Abort, place
from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.library.encodings import base
from wwfast.overlays.templates.ignition import ignition_json
from wwfast.overlays.templates.sources import Sources

FILE, LINK, BACKUP = "F", "L", "B"


class Event(NamedTuple):
    """What `file`, `softlink`, `ImportLink` or `nobackup` did, where it stands in the output."""

    kind: str
    argument: str = ""


class Run:
    """One run of a template: what was written, texts and events in their order, and the data of its top level."""

    __slots__ = ("out", "path", "top", "write")

    def __init__(self, top: Any, path: str = "") -> None:
        self.out: list[str | Event] = []
        self.write = self.out.append
        self.top, self.path = top, path


def happened(run: Run, kind: str, argument: str = "") -> str:
    if "\0" in argument:
        raise Refused("a file name or link target holds a NUL byte")
    run.write(Event(kind, argument))
    return ""


def file(run: Run, name: str) -> str:
    place(name, run.path)  # here, where it is known which line says so
    return happened(run, FILE, name)


def abort() -> str:
    raise Abort


def unique_field(separator: str, index: int, text: str) -> str:
    if index < 0:
        raise Refused("UniqueField: a negative index")
    return filters.unique_field(separator, index, text) if separator else text


def ignition(run: Run) -> str:
    disks, filesystems = run.top.storage()
    return ignition_json(disks, filesystems)


def _shorter(text: str | None) -> str:
    return "" if text is None else text[:-1] if text.endswith("\n") else text


def functions(sources: Sources) -> dict[str, Known]:
    def include_from(image: str, path: str) -> str:
        return _shorter(sources.image_text(image, path)) if image else ""

    def include_block(path: str, marker: str) -> str:
        text = sources.server_text(path)
        if text is None:
            return marker
        lines = text.split("\n")
        end = next((at for at, line in enumerate(lines) if marker in line), len(lines))
        return "\n".join([*lines[:end], marker])

    def import_link(run: Run, path: str) -> str:
        target = sources.points_to(path)
        if target is None:
            raise Refused("ImportLink: {} does not exist on this server", path)
        return happened(run, LINK, target)

    return {
        "Include": Known(lambda path: _shorter(sources.server_text(path)), "s"),
        "IncludeFrom": Known(include_from, "ss"),
        "IncludeBlock": Known(include_block, "ss"),
        "ImportLink": Known(import_link, "s", placed=True),
        "readlink": Known(lambda path: sources.points_to(path) or "", "s"),
        "softlink": Known(lambda run, target: happened(run, LINK, target), "s", placed=True),
        "file": Known(file, "s", placed=True),
        "nobackup": Known(lambda run: happened(run, BACKUP), placed=True),
        "abort": Known(abort),
        "basename": Known(base, "s"),
        "inc": Known(lambda number: number + 1, "i"),
        "dec": Known(lambda number: number - 1, "i"),
        "IgnitionJson": Known(ignition, placed=True),
        "UniqueField": Known(unique_field, "sis"),
        "SystemdEscape": Known(filters.systemd_escape, "s"),
        "SystemdEscapePath": Known(filters.systemd_escape_path, "s"),
    }
