"""What a script of iPXE, and then stage-1, would fetch: enough of their language to play what this server sends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

from wwfast.storm.node import CARRIED, CLIENT, IPXE, STAGE1, Step

FETCH = {"kernel", "initrd", "imgfetch", "module"}
RUN = 4 << 20  # bytes of pieces that stage-1 fetches by one request (share/stage1/init)
LIST = "pieces"
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


class Script:
    """Of one node: `follow` its script, then the list of its image's pieces."""

    def __init__(self, mac: str) -> None:
        self._mac = mac
        self._known = {"net0/mac": mac, "mac": mac, "net0/mac:hexhyp": mac.replace(":", "-")}
        self._image: tuple[str, ...] = ()
        self._heads: list[str] = []

    def follow(self, step: Step, text: str) -> Sequence[Step]:
        """The objects that a body names, in order, each once."""
        if step.stage == LIST:
            return list(self._pieces(text))
        steps: list[Step] = []
        arguments: dict[str, str] = {}
        chains: list[str] = []
        before = 0
        for line in text.splitlines():
            words = line.strip().split()
            if words[:1] == ["chain"] and "--timeout" in words:
                chains += [self._expand(word) for word in words if "://" in word]
            elif words == [":start"]:
                before = len(chains)
            if len(words) >= 3 and words[0] == "set":
                self._known[words[1]] = self._expand(" ".join(words[2:]))
            elif words and words[0] == "imgargs":
                arguments = dict(word.split("=", 1) for word in map(self._expand, words) if "=" in word)
            elif (found := self._fetched(line)) and found not in steps:
                steps.append(found)
        if "wwfast.root" in arguments:
            steps += self._by_stage1(arguments)
        if steps:
            steps.append(Step("runtime", f"/runtime/{self._mac}?format=tar", CLIENT))
        self._heads = [urlsplit(url).netloc for url in chains[before:]]
        return [
            *(Step("ipxe", url, optional=True, leads=True, begins=True) for url in chains[:before]),
            *(step._replace(others=chains[before:] if step.agent == IPXE else self._heads) for step in steps),
        ]

    def _fetched(self, line: str) -> Step | None:
        """What a line fetches: from the first of its commands that can, `|| goto failed` aside."""
        targets: list[str] = []
        for part in line.split("||"):
            words = [self._expand(word) for word in part.split()]
            if words and words[0] in FETCH:
                targets += [self._own(word) for word in words if "://" in word][:1]
        if not targets:
            return None
        return Step(stage(targets[-1]), targets[0], IPXE, goes_on(line), instead=tuple(targets[1:]))

    def _own(self, url: str) -> str:
        """A path, where it is of the server that the script came from."""
        parts, base = urlsplit(url), urlsplit(self._known.get("base", ""))
        if base.netloc and parts.netloc != base.netloc:
            return url
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def _expand(self, word: str) -> str:
        return _VARIABLE.sub(lambda match: self._known.get(match[1], ""), word)

    def _by_stage1(self, arguments: dict[str, str]) -> list[Step]:
        """The list of the pieces, which leads to these, and the overlays."""
        form = {"disk": "tmpfs"}.get(arguments["wwfast.root"], arguments["wwfast.root"])
        query = f"image={arguments.get('wwfast.image', '')}"
        image = f"/image/{self._mac}?{query}&compress={form}"
        caches = arguments["wwfast.caches"].split(",") if "wwfast.caches" in arguments else []
        self._image = (*(f"{url}/blob/{arguments['wwfast.blob']}" for url in caches), image)
        overlays = ["system", *(["runtime overlay"] if arguments.get("wwfast.runtime") == "1" else [])]
        return [
            Step(LIST, f"{image}.pieces" + (f"&from={caches[0]}" if caches else ""), STAGE1, leads=True),
            *([Step("told", f"/stage1/{self._mac}?said=of+the+image+came&well=1&{CARRIED}", STAGE1)] if caches else []),
            *(Step(name, f"/{name.split()[0]}/{self._mac}?{query}&compress=gz", STAGE1) for name in overlays),
        ]

    def _pieces(self, text: str) -> Iterator[Step]:
        """Runs of pieces, as stage-1 asks for them."""
        at = size = 0
        for length in [*(int(line.split()[0]) for line in text.splitlines()), 0]:
            if size and (not length or size + length > RUN):
                span = f"{at}-{at + size - 1}"
                yield Step("image", self._image[0], STAGE1, span=span, instead=self._image[1:], others=self._heads)
                at, size = at + size, 0
            size += length


def goes_on(line: str) -> bool:
    """Whether the boot goes on when this command fails (`|| echo ...`, a bare `||`)."""
    _, either, other = line.rpartition("||")
    return bool(either) and (not other.strip() or other.split()[0] == "echo")


def stage(target: str) -> str:
    parts = urlsplit(target)
    query = parse_qs(parts.query)
    return query["stage"][0] if "stage" in query else parts.path.strip("/").partition("/")[0]
