"""CSV: one row a node, the first line names the columns; commas, semicolons or tabs separate.

Columns are fields of nodes by any of their names (`name mac ip`, as Grendel has them), or by --map. Rows of one name
are one node when each says which device it is about (`netname`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from wwfast.config import checks
from wwfast.nodes.edit.change import leaves
from wwfast.nodes.foreign import fields
from wwfast.nodes.foreign.common import UNKNOWN, Found, Given, Host, Place, Text, devices, legible
from wwfast.nodes.foreign.fields import NAMES, Field

NETNAME = "netname"
SEPARATORS = "\t;,"
HINT = "the first line names the columns, as in: name,mac,ip,ipmiaddr"


class Columns:
    """What each column is, by its place."""

    def __init__(self, text: Text, line: int, heads: list[str], given: Given) -> None:
        self.heads = heads
        self.name = self.device = -1
        self.fields: dict[int, Field] = {}
        self.low = low = [fields.plain(given.fields.get(head, head)) for head in heads]
        for at, head in enumerate(heads):
            field = fields.named(given.fields.get(head, head))
            if low[at] in NAMES and self.name < 0:
                self.name = at
            elif low[at] == NETNAME:
                if self.device >= 0:
                    raise text.fault(line, f"two columns are {NETNAME}: {checks.shown(head)} is the second")
                self.device = at
            elif field is not None and field in self.fields.values():
                raise text.fault(line, f"two columns are {field.flag.name}: {checks.shown(head)} is the second")
            elif field is not None:
                self.fields[at] = field
        if self.name < 0 and "fqdn" in low:
            self.name = low.index("fqdn")
        if self.name < 0:
            close = next((f": is {checks.shown(head)} it?" for head in heads if fields.close(head) in NAMES), "")
            raise text.fault(line, f"no column is the name of the node{close}", HINT)
        for head in given.fields.keys() - set(heads):
            raise text.fault(line, f"there is no column {checks.shown(head)}, which --map names")

    def why(self, at: int) -> str:
        if self.low[at] in (*NAMES, "fqdn"):
            return "a node has one name"
        close = fields.close(self.heads[at])
        return f"did you mean {close}? --map {self.heads[at]}={close}" if close else f"--map {self.heads[at]}=FIELD"


def parse(given: Given) -> Found:
    found = Found()
    for text in given.texts:
        table(text, given, found)
    return found


def table(text: Text, given: Given, found: Found) -> None:
    lines = rows(text)
    first, heads = next(lines, (1, []))
    columns = Columns(text, first, [head.strip().removeprefix("#").strip() for head in heads], given)
    made: dict[str, tuple[Host, dict[str, dict[str, Any]]]] = {}
    for line, row in lines:
        if len(row) != len(columns.heads) and any(cell.strip() for cell in row[len(columns.heads) :]):
            raise text.fault(line, f"{len(row)} cells, where the first line names {len(columns.heads)}")
        cells = {at: cell.strip() for at, cell in enumerate(row)}
        name = cells.get(columns.name, "")
        if fields.plain(columns.heads[columns.name]) == "fqdn":
            name = name.partition(".")[0]
        if not name:
            raise text.fault(line, "this row has no name of a node")
        device = cells.get(columns.device, "")
        host, nics = made.get(name, (Host(name, Place(text.name, line)), {}))
        if name not in made or not device or device in nics:  # not another device of it: the same node again
            host, nics = Host(name, Place(text.name, line)), {}
            made[name] = host, nics
            found.hosts.append(host)
        for at, cell in cells.items():
            if cell and at < len(columns.heads) and at not in (columns.name, columns.device):
                if (field := columns.fields.get(at)) is None:
                    found.left.add(columns.heads[at] or f"column {at + 1}", name, columns.why(at) or UNKNOWN)
                    continue
                try:
                    fields.store(host, nics, field, cell, device)
                except ValueError as error:
                    raise text.fault(line, f"{legible(columns.heads[at])}: {error}") from None
    for host, nics in made.values():
        try:
            settle(host, nics)
        except ValueError as error:
            raise text.fault(host.place.line, f"network device default: {error}") from None


def settle(host: Host, nics: dict[str, dict[str, Any]]) -> None:
    """Devices under the names the table has for them; where it has none, the one there is."""
    first = nics.pop("", {})
    if not nics:
        devices(host, [first])
    elif first:
        default = nics.setdefault("default", {})
        for path, value in leaves(first).items():
            fields.once(default, path, value)
    for name, nic in nics.items():
        host.put(nic, "network devices", name)


def rows(text: Text) -> Iterator[tuple[int, list[str]]]:
    """Rows that say something, with their lines; `#` begins a comment, but in the first line."""
    head = next((line for _, line in text.lines() if line.strip()), "")
    separator = max(SEPARATORS, key=head.count)
    reader = csv.reader(io.StringIO(text.body, newline=""), delimiter=separator, strict=True)
    begin, first = 1, True
    try:
        for row in reader:
            if any(cell.strip() for cell in row) and (first or not row[0].lstrip().startswith("#")):
                first = False
                yield begin, row
            begin = reader.line_num + 1
    except csv.Error as error:
        problem = str(error).replace("\t", "tab")
        hint = f"a quoted cell ends with a quote, and a cell has {csv.field_size_limit()} letters at most"
        raise text.fault(reader.line_num or 1, f"no CSV: {problem}", hint) from None
