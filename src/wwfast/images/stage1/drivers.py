"""The kernel modules of stage-1, with what they need and the firmware they ask for."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from glob import escape
from itertools import takewhile
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.images.kernels import detect
from wwfast.images.kernels.modules import FIRMWARE, asked, firmware_files
from wwfast.images.stage1.rests import Look, UnfitError
from wwfast.images.stage1.rules import Choice, Rule, name
from wwfast.system import within

log = logging.getLogger(__name__)

#: What libkmod reads, the .bin files and the lists of what is built in, and what depmod makes these of.
INDEX = (
    "modules.dep", "modules.dep.bin", "modules.alias", "modules.alias.bin", "modules.softdep", "modules.symbols.bin",
    "modules.builtin", "modules.builtin.bin", "modules.builtin.alias.bin", "modules.builtin.modinfo", "modules.order",
)  # fmt: skip
SIGNS = re.compile(r"[*?[]")  # of a pattern
DIRECTORIES = 2000  # of firmware; linux-firmware has some hundreds


def collect(look: Look, release: str, tree: Path, choice: Choice) -> tuple[list[str], list[str]]:
    """Copy the modules of a kernel to `tree`/lib; -> the names of these and of what is built into it, and the rules
    that matched nothing.

    Raises WwfastError where the index of its modules is missing.
    """
    source = detect.modules(look.root, release)
    target = tree / "lib/modules" / release
    target.mkdir(parents=True)
    inside = f"/lib/modules/{release}" if source is None else f"/{source.relative_to(look.root)}"
    look.resolve(inside)
    if source is None:
        return [], list(choice.idle((), ()))
    real = look.resolve(f"{inside}/modules.dep")
    if real is None or not real.is_file():
        raise WwfastError(f"kernel {release} has no modules.dep", hint=f"wwfast image exec IMAGE depmod {release}")
    depends = _depends(_text(look, f"{inside}/modules.dep"))
    if odd := sorted(filter(within.leads_out, depends)):
        log.warning("kernel %s has modules by names that lead out of its own: %s", release, ", ".join(map(ascii, odd)))
        depends = {path: needed for path, needed in depends.items() if path not in odd}
    in_tree = _text(look, f"{inside}/modules.order").splitlines()
    names = {name(path): path for path in depends}
    chosen = _closure(depends, choice.modules(depends, in_tree))
    softly = _soft(_text(look, f"{inside}/modules.softdep"), chosen)
    chosen = _closure(depends, [*chosen, *(names[each] for each in softly if each in names)])
    chosen = [path for path in chosen if _copy(look, f"{inside}/{path}", target / path)]
    for each in INDEX:
        _copy(look, f"{inside}/{each}", target / each)
    there = _firmware(look, choice, [target / path for path in chosen], tree / "lib/firmware")
    built_in = {name(line) for line in _text(look, f"{inside}/modules.builtin").splitlines()}
    return sorted({name(path) for path in chosen} | built_in), list(choice.idle(depends, there))


def _copy(look: Look, path: str, copy: Path) -> bool:
    """False where there is no such file."""
    real = look.resolve(path)
    if real is None or not real.is_file():
        return False
    copy.parent.mkdir(parents=True, exist_ok=True)
    look.copy(real, copy)
    return True


def _text(look: Look, path: str) -> str:
    real = look.resolve(path)
    if real is None or not real.is_file():
        return ""
    look.uses(real)
    return within.text(real)


def _firmware(look: Look, choice: Choice, files: list[Path], target: Path) -> list[str]:
    """-> the names of all that is there of what the modules or the rules ask for."""
    if look.resolve(FIRMWARE) is None:
        return []
    wanted = asked(files)
    for rule in choice.rules:
        if rule.of_firmware and rule.adds:
            wanted.update(_added(look, rule))
    there = []
    for each, real in firmware_files(wanted, look.resolve, look.matching):
        there.append(each)
        if choice.firmware(each):
            _copy(look, f"/{real.relative_to(look.root)}", target / each)
    return there


def _added(look: Look, rule: Rule) -> Iterator[str]:
    """Names of firmware that a rule adds: its own, or those of all files that it matches."""
    text = rule.text.lstrip("/")
    if within.leads_out(text):
        return
    if not text.endswith("/") and not SIGNS.search(text):
        yield text
        return
    home = takewhile(lambda part: not SIGNS.search(part), text.split("/")[:-1])
    yield from filter(rule.matches, _below(look, "/".join((FIRMWARE, *home))))


def _below(look: Look, home: str) -> Iterator[str]:
    """Names below lib/firmware of all files of a directory and of those in it, by every link that does not lead back.

    Raises UnfitError where links make endless many of them.
    """
    todo: list[tuple[str, tuple[Path | None, ...]]] = [(home, (look.resolve(home),))]
    for _ in range(DIRECTORIES):
        if not todo:
            return
        at, above = todo.pop()
        for path in look.matching(f"{escape(at)}/*"):
            real = look.resolve(path)
            if real is None or not real.is_dir():
                yield path.removeprefix(f"{FIRMWARE}/")
            elif real not in above:
                todo.append((path, (*above, real)))
    raise UnfitError(f"{home} of the image has more than {DIRECTORIES} directories, by links that lead to each other")


def _depends(text: str) -> dict[str, list[str]]:
    """Path of each module to those of what it needs, from modules.dep."""
    found = {}
    for line in text.splitlines():
        path, colon, needed = line.partition(":")
        if colon:
            found[path] = needed.split()
    return found


def _closure(depends: dict[str, list[str]], wanted: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    todo = list(wanted)
    while todo:
        path = todo.pop()
        if path in depends and path not in found:
            found[path] = None
            todo += depends[path]
    return sorted(found)


def _soft(text: str, chosen: Iterable[str]) -> Iterator[str]:
    """Names that modules want beside them, from modules.softdep: `softdep NAME pre: A B post: C`."""
    mine = {name(path) for path in chosen}
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["softdep"] and len(words) > 1 and words[1].replace("-", "_") in mine:
            yield from (word.replace("-", "_") for word in words[2:] if not word.endswith(":"))
