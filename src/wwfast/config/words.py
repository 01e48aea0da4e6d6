"""The text of one option as several values, and values as such a text: `a,b`, `"a,b",c`, `k=v`, kernel arguments.

Commas separate; double quotes around an item protect those in it, and `""` is a quote there, as in Warewulf (pflag's
StringSlice and StringToString, which read CSV). Unlike there a line break is a letter like any other, a quote in the
middle of an item is one too, and nothing is left out: what cannot be meant raises ValueError, in words.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Collection, Iterable, Iterator

ITEM = re.compile(r' *(?:"((?:[^"]|"")*)" *(?=,|\Z)|([^,]*))(,|\Z)')
QUOTED = re.compile(r'"[^"]*"')
ARGUMENT = re.compile(r'(?:[^ "]|"[^"]*")+')


def pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Each item of a text, and whether it was in quotes; a text that is all blank has none."""
    at = 0
    while text.strip():
        match = ITEM.match(text, at)
        assert match is not None  # the second form takes anything
        quoted, plain, end = match.groups()
        item = plain if quoted is None else quoted.replace('""', '"')
        if quoted is None and plain.startswith('"'):
            raise ValueError(f"{plain!r}: the quotes do not end where the item does")
        if not item.strip():
            raise ValueError(f"{text!r} has an empty item: two commas without anything between, or one at an end")
        yield quoted is not None, item
        if not end:
            return
        at = match.end()


def items(text: str) -> list[str]:
    """`a,"b,c"` -> a  b,c."""
    return [item for _, item in pieces(text)]


def pairs(text: str) -> list[tuple[str, str]]:
    """`a=1,b=2` -> two pairs; a text with exactly one `=` is one pair, commas and all, as in pflag."""
    if text.count("=") > 1:
        found = items(text)
    else:
        found = [text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text]
    made = []
    for item in found:
        key, equals, value = item.partition("=")
        if not equals or not key:
            whole = f'"{text}"'
            spelled = f"; a value with commas and = is quoted with its key: {whole!r}" if item != text else ""
            raise ValueError(f"{item!r} is not KEY=VALUE{spelled}")
        made.append((key, value))
    return made


def arguments(text: str) -> list[str]:
    """Kernel arguments, as a list (`quiet,console=ttyS0,115200n8`) or a command line (`quiet console=ttyS0,115200n8`).

    Blanks outside quotes make it a command line, whose commas belong to its arguments. In a list what begins with a
    digit belongs to the argument before it: no argument of a kernel does.
    """
    if text.count('"') % 2:
        raise ValueError(f"{text!r} has a quote that is not closed")
    bare = QUOTED.sub(lambda quotes: "_" * len(quotes[0]), text).strip()
    if re.search("[^, ] ", bare):
        if ", " in bare:
            raise ValueError(f"{text!r} separates by commas and by blanks: use either")
        return ARGUMENT.findall(text)
    found: list[str] = []
    for quoted, item in pieces(text):
        if not quoted and item[0] in "0123456789" and any("=" in other for other in found):
            if "=" not in found[-1]:
                raise ValueError(f"{text!r}: is {item!r} of {found[-1]!r}, or of what is before it? Quote what is one")
            found[-1] += f",{item}"
        else:
            found.append(item)
    return found


def torn(arguments: list[str], text: str) -> tuple[str, str] | None:
    """Two neighbours in a list of kernel arguments that may have been meant as one: `blacklist=a,b`."""
    for first, second in itertools.pairwise(arguments):
        if "=" in first and "=" not in second and f"{first},{second}" in text:
            return first, second
    return None


def names(words: Iterable[str]) -> list[str]:
    """Names in words, several at commas. A word that holds none is one itself, of nothing there is: it is not all."""
    return [name for word in words for name in [part for part in word.split(",") if part] or [word]]


def globbed(word: str) -> bool:
    return "*" in word or "?" in word


def matching(wanted: Iterable[str], there: Collection[str]) -> tuple[list[str], list[str]]:
    """Which of `there` names and globs (`*`, `?`) mean, all where nothing is wanted; and what means none."""
    kept, lost = set[str](), list[str]()
    for word in wanted:
        meant = {word} if word in there else set(fnmatch.filter(there, word) if globbed(word) else ())
        kept |= meant
        lost += [word] if not meant else []
    return [name for name in there if name in kept or not wanted], lost


def join(values: Iterable[str]) -> str:
    """Values as the text that `items` reads back."""
    return ",".join('"' + item.replace('"', '""') + '"' if needs_quotes(item) else item for item in values)


def needs_quotes(item: str) -> bool:
    return "," in item or not item.strip() or item[0] in ' "'
