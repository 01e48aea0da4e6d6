"""Files of other provisioners: refused in words, or read; and what is read is written once, whatever is read again."""

from __future__ import annotations

import importlib

from wwfast.api.entries import wrong_values
from wwfast.api.importing import Import
from wwfast.api.sources import FORMATS
from wwfast.errors import ConfigError, WwfastError
from wwfast.nodes.edit.store import Draft
from wwfast.nodes.foreign.common import Found, Given, Text
from wwfast.nodes.text.source import Source

TOKENS = (
    b"{", b"}", b";", b"=", b",", b":", b"|", b"!", b'"', b"'", b"[", b"]", b"\n", b"\t", b"\r\n", b"#", b"~", b"/24",
    b"10.0.0.1", b"255.255.0.0", b"52:54:00:00:00:01", b"fe80::1%x", b"null", b"true", b"{}", b'""', b"1e999", b"-1",
    b"<<inherit>>", b"<<: ", b"&a ", b"*a", b"!vault ", b"option ", b"host n1 {", b"include \"f\";", b"dhcp-host=",
    b"nicips.", b"objtype=node\n", b"default-node:\n", b"UNDEF", b"_meta", b"\xc3\xa9", "\u2028".encode(),
    "\x85".encode(), b"\x1b",
)  # fmt: skip
MAPPED = {"mac": "hwaddr", "rack": "tag.rack", "bmc": "ipmiaddr", "addr": "ib0.ipaddr"}


def none(text: Text, line: int, name: str) -> list[Text]:
    raise text.fault(line, "nothing is included here")


def one(data: bytes) -> None:
    """The first byte chooses the format."""
    form = FORMATS[sorted(FORMATS)[(data[0] if data else 0) % len(FORMATS)]]
    try:
        text = Text("given", data[1:].decode())
    except UnicodeDecodeError:
        return
    parse = importlib.import_module(f"wwfast.nodes.foreign.{form.module}").parse
    try:
        found = parse(Given([text], none, MAPPED if form.module == "ansible" else {}))
        assert isinstance(found, Found)
        job = Import(found, "made", set())
    except WwfastError as error:
        said: str | None = error.message
    else:
        said = None
    if said is not None:
        assert said.replace("\n", "").isprintable()
        return
    draft = Draft(Source.parse(b"nodeprofiles:\n  default: {}\nnodes: {}\n", "nodes.conf"))
    job.edit(draft)
    if wrong_values(draft.changes(), job.place):
        return
    try:
        written = draft.result()
    except ConfigError as error:
        raise AssertionError("right values cannot be written") from error
    again = Draft(written)
    job.edit(again)
    assert again.changes() == {}
    assert job.there == [host.name for host in found.hosts]
