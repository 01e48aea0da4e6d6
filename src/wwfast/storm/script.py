"""What an iPXE script would fetch: enough of its language to play the scripts of this server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from wwfast.storm.node import CLIENT, IPXE, Step

FETCH = {"kernel", "initrd", "imgfetch", "module"}
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def follow(text: str, mac: str) -> Sequence[Step]:
    """The objects of `text` in order, each once, and the runtime overlay as the client on the node asks for it."""
    known = {"net0/mac": mac, "mac": mac, "net0/mac:hexhyp": mac.replace(":", "-")}
    steps: list[Step] = []
    seen: set[str] = set()
    for line in text.splitlines():
        words = line.strip().split()
        if len(words) >= 3 and words[0] == "set":
            known[words[1]] = expand(" ".join(words[2:]), known)
        elif words and expand(words[0], known) in FETCH:
            url = next((word for word in (expand(word, known) for word in words[1:]) if "://" in word), "")
            if url and url not in seen:
                seen.add(url)
                steps.append(step(url, optional=goes_on(line)))
    if steps:
        steps.append(Step("runtime", f"/runtime/{mac}?format=tar", CLIENT))
    return steps


def goes_on(line: str) -> bool:
    """Whether the boot goes on when this command fails (`|| echo ...`, a bare `||`)."""
    _, either, other = line.partition("||")
    return bool(either) and (not other.strip() or other.split()[0] == "echo")


def expand(word: str, known: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda match: known.get(match[1], ""), word)


def step(url: str, *, optional: bool) -> Step:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    first = parts.path.strip("/").partition("/")[0]
    stage = query["stage"][0] if "stage" in query else first
    return Step(stage, parts.path + (f"?{parts.query}" if parts.query else ""), IPXE, optional)
