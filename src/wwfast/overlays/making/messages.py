"""What a server and its workers say to each other: a closed set of messages, each with its length before it, in pipes.

A worker is told what it does not know, then asked; it answers each `Asked` with one list, and says nothing else. Beside
them there is one page of memory for each worker: it says there which template it runs, for when it is killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from mmap import mmap
from typing import Any

import msgspec

from wwfast.config.settings import Conf
from wwfast.nodes.model import NetDev, Node
from wwfast.overlays.files.stack import Output
from wwfast.overlays.making.index import Shared
from wwfast.overlays.templates.data import Seen
from wwfast.overlays.templates.ipxe import Expanded
from wwfast.system import records

PAGE = 4096
LARGEST = 1 << 30  # bytes of a message


class Message(msgspec.Struct, array_like=True, tag=True):
    pass


class Begin(Message):
    """Where everything is, and what holds for all nodes."""

    paths: dict[str, str]
    conf: Conf
    ignore_go_templates: bool


class Know(Message):
    """Nodes that are new or changed; the `last` of these messages says which there are now, if that changed."""

    nodes: list[Node]
    order: list[str] = []
    last: bool = False


class Look(Message):
    """Files may have changed."""


class Make(Message):
    node: str
    context: str


class Render(Message):
    """One template for one node, without building anything; of no overlay ("") it is one of /files/."""

    node: str
    overlay: str
    path: str


class Lay(Message):
    """All templates of a node, without building anything."""

    node: str
    context: str


class Write(Message):
    """A site's iPXE template for one boot; `expanded` names the values that iPXE is to expand."""

    node: str
    path: str
    source: str
    values: dict[str, str | int | bool | list[str]]
    expanded: list[str]
    tags: dict[str, str] | None
    network_devices: dict[str, NetDev] | None

    @classmethod
    def of(cls, node: str, path: str, source: str, variables: Mapping[str, Any]) -> Write:
        maps = {key: variables.get(key) for key in ("tags", "network_devices")}
        values = {key: value for key, value in variables.items() if key not in maps}
        return cls(node, path, source, values, [key for key in values if type(values[key]) is Expanded], **maps)

    @property
    def variables(self) -> dict[str, Any]:
        """As they were before they went through a pipe."""
        maps = {"tags": self.tags, "network_devices": self.network_devices}
        there = {key: value for key, value in maps.items() if value is not None}
        return self.values | {key: Expanded(self.values[key]) for key in self.expanded} | there


class Part(Message):
    """A part of an archive: its content, the zstd frame of that and how long it is unpacked."""

    content: bytes
    frame: bytes
    length: int


class Made(Message):
    """`shared` when it was not known yet."""

    plan: bytes
    shared: Shared | None
    common: Part | None
    own: Part
    below: bytes
    values: bytes
    rests: bytes  # as they are kept (see index)


class Rendered(Message):
    path: str
    outputs: list[Output]


class Laid(Message):
    """The outputs of each template of the plan."""

    plan: bytes
    outputs: list[list[Output]]


class Written(Message):
    text: str


class Failed(Message):
    message: str
    hint: str | None
    again: bool = False  # files changed meanwhile: look again
    seen: Seen = ()  # over which it may have failed


Ask = Make | Render | Lay | Write
Answer = Made | Rendered | Laid | Written | Failed


class Asked(Message):
    """Answered in this order, as many as take little time together: the first one in any case. `shared` are shared
    parts, by plan, that were made since."""

    asks: list[Ask]
    shared: dict[bytes, Shared]


Question = Begin | Know | Look | Asked
encode = records.packer()
questions = msgspec.msgpack.Decoder(Question)
answers = msgspec.msgpack.Decoder(list[Answer])


def framed(message: Message | Sequence[Message]) -> bytes:
    data = encode(message)
    return len(data).to_bytes(4, "little") + data


def received(read: Callable[[int], bytes]) -> bytes:
    """A message, by what reads so many bytes, fewer at the end; none there. Raises ValueError for a larger one."""
    length = int.from_bytes(read(4), "little")
    if length > LARGEST:
        raise ValueError("a message is too large")
    data = read(length)
    return data if len(data) == length else b""


def marked(where: str) -> bytes:
    """What a worker writes into the page that it shares with whoever ends it, before it runs a template."""
    data = os.fsencode(where)[: PAGE - 2]
    return len(data).to_bytes(2, "little") + data


def said(mark: mmap) -> str:
    """The template that `marked` names there."""
    length = int.from_bytes(mark[:2], "little")
    return mark[2 : length + 2].decode(errors="replace")
