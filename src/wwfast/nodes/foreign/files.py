"""Files of other provisioners: read within bounds, decoded or refused in words."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from wwfast.config import checks, yaml
from wwfast.errors import ConfigError, NotFoundError, WwfastError, cause, of_system
from wwfast.nodes.foreign.common import Include, Text

LARGEST = 256 << 20  # bytes of all files together: 100,000 nodes of xCAT are 60 MB
DEEPEST = 16  # files that include each other
MOST = 1_000_000  # files: one for each node


class Reader:
    """Reads the files of one import, all together no more than LARGEST."""

    def __init__(self) -> None:
        self._left = LARGEST
        self._above: dict[str, list[Path]] = {}  # name of a file: itself and those that include it

    def texts(self, place: str, pattern: str) -> list[Text]:
        """The file (`-`: standard input), or those in a directory that match. Raises ConfigError, NotFoundError."""
        path = Path(place)
        if place == "-" or not path.is_dir():
            given = self._decoded("-", sys.stdin.buffer.read(self._left + 1)) if place == "-" else self._read(path, [])
            if not given.body.strip():
                raise ConfigError(f"{place} is empty")
            return [given]
        if not pattern:
            raise ConfigError(f"{place} is a directory, where one file is needed")
        found = self._matching(path, pattern)
        if not found:
            raise NotFoundError(f"there is no file {pattern} in {place}")
        return [self._read(each, []) for each in found]

    def includer(self, place: str) -> Include:
        """What opens files that a file names, relative to it."""
        top = Path(place).parent if place != "-" else Path()

        def include(text: Text, line: int, name: str) -> list[Text]:
            if not name.isprintable() or not name:
                raise text.fault(line, f"{checks.shown(name)} is the name of no file")
            above = self._above.get(text.name, [])
            path = (above[0].parent if above else top) / name
            if len(above) >= DEEPEST:
                raise text.fault(line, f"more than {DEEPEST} files include each other")
            try:
                if path.resolve() in above:
                    raise text.fault(line, f"{name} includes itself, by way of {len(above)} files")
                paths = self._matching(path, "*") if path.is_dir() else [path]
                return [self._read(each, above) for each in paths]
            except ConfigError:
                raise
            except WwfastError as error:
                raise text.fault(line, error.message, error.hint) from None
            except (OSError, RuntimeError) as error:  # too long, or links that lead to each other
                raise text.fault(line, f"{checks.shown(name)} cannot be read: {cause(error, path)}") from None

        return include

    def _matching(self, folder: Path, pattern: str) -> list[Path]:
        found: list[Path] = []
        for each in folder.glob(pattern):
            if each.is_file() and each.name[0] != "." and each.name[-1] != "~":
                found.append(each)
            if len(found) > MOST:
                raise ConfigError(f"{folder} has more than {MOST} files")
        return sorted(found)

    def _read(self, path: Path, above: Sequence[Path]) -> Text:
        try:
            with path.open("rb") as file:
                data = file.read(self._left + 1)
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {path}") from None
        except OSError as error:
            raise of_system(error) from error
        self._above[str(path)] = [path.resolve(), *above]
        return self._decoded(str(path), data)

    def _decoded(self, name: str, data: bytes) -> Text:
        if len(data) > self._left:
            raise ConfigError(
                f"{name} is too large: an import takes {LARGEST >> 20} MiB at a time", hint="import it in parts"
            )
        self._left -= len(data)
        if found := yaml.wide(data):
            raise ConfigError(f"{name}:1: is {found}, not UTF-8", hint=f"iconv -f {found} -t UTF-8 {name}")
        if wrong := yaml.encoding(data, name):
            raise wrong
        return Text(name, data.decode().removeprefix("\ufeff"))
