"""nodes.conf as text: its two sections and the tree of each entry, with what is wrong in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from wwfast.config import yaml
from wwfast.config.schema import Fields, shape
from wwfast.config.yaml import Tree
from wwfast.errors import ConfigError
from wwfast.nodes.patch import rewrite

NODES, PROFILES = "nodes", "nodeprofiles"
SECTIONS = (PROFILES, NODES)
NOUN = {NODES: "node", PROFILES: "profile"}


@dataclass(slots=True)
class Source:
    """One version of the file. `trees[section][id]` is the entry as written (None for an empty one)."""

    name: str
    data: bytes
    digest: str
    trees: dict[str, dict[str, Tree]] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, name: str) -> Source:
        """Raises YamlError when the text is no YAML, ConfigError when it is not two maps of entries."""
        top = yaml.load(data, name)
        if top is not None and not isinstance(top, dict):
            raise ConfigError(f"{name}: must be a map of nodeprofiles and nodes, not {shape(top)}")
        trees = {}
        for section in SECTIONS:
            entries = (top or {}).get(section)
            if entries is not None and not isinstance(entries, dict):
                line = yaml.locate(data, (section,))
                raise ConfigError(f"{name}:{line}: {section}: must be a map of names, not {shape(entries)}")
            trees[section] = entries or {}
        return cls(name, data, cls.digest_of(data), trees)

    @classmethod
    def read(cls, path: Path) -> Source:
        """The file as it is now; an absent one is empty."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        return cls.parse(data, str(path))

    @staticmethod
    def digest_of(data: bytes) -> str:
        return xxhash.xxh3_128_hexdigest(data)

    def rewrite(self, changes: Mapping[tuple[str, str], Tree], schema: Fields) -> bytes:
        """The text with entries (by section and id) changed, made, or, where None, taken out."""
        old = dict(yaml.load(self.data, self.name) or {})
        new = dict(old)
        for (section, name), tree in changes.items():
            entries = new[section] = dict(new.get(section) or {})
            if tree is None:
                entries.pop(name, None)
            else:
                entries[name] = tree
        return rewrite(self.data.decode(), old, new, schema, 2).encode()

    def line(self, *where: str | int) -> int:
        """The line of a place, from 1; slow, for messages."""
        return yaml.locate(self.data, where)
