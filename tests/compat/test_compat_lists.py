"""What the lists print, as the real program does."""

from __future__ import annotations

import json

import pytest

from compat.conftest import Run
from wwfast.config import yaml
from wwfast.config.schema import Fields, Kind, fields
from wwfast.nodes.merge import SCHEMA
from wwfast.paths import Paths


def entries(schema: Fields = SCHEMA) -> list[str]:
    """For every struct that has a yes/no field: a node in which that stands before quoted texts of the same struct."""
    found = []
    for spec in schema.values():
        if spec.struct is None:
            continue
        inner = fields(spec.struct)
        flags = [it.key for it in inner.values() if it.kind is Kind.BOOL]
        texts = [it.key for it in inner.values() if it.is_text]
        named = spec.kind is Kind.STRUCTS
        for flag in flags:
            lines = ", ".join([f"{flag}: yes", *(f'{key}: "1"' for key in texts)])
            found.append(f"{{{spec.key}: {{x: {{{lines}}}}}}}" if named else f"{{{spec.key}: {{{lines}}}}}")
        found += [f"{{{spec.key}: {{x: {rest}}}}}" if named else f"{{{spec.key}: {rest}}}" for rest in entries(inner)]
    return found


@pytest.mark.parametrize("entry", entries())
@pytest.mark.parametrize("form", ["-j", "-y"])
def test_compat_list_shows_quoted_text_after_a_yes_or_no(run: Run, paths: Paths, entry: str, form: str) -> None:
    paths.nodes_conf.write_text(f"nodes: {{bad: {entry}, good: {{comment: here}}}}\n")
    shown = run(f"node list {form}")
    found = json.loads(shown) if form == "-j" else yaml.load(shown.encode(), "")
    assert list(found) == ["bad", "good"]
    assert '"1"' in json.dumps(found["bad"]) or "texts" not in entry
    assert found["good"]["comment"] == "here"
