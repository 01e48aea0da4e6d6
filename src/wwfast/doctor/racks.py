"""What serves nodes beside this server: caches in racks, and heads that follow. Are they there, and of any use?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from wwfast.boot.heads import authorities
from wwfast.boot.plan import Ask
from wwfast.doctor.finding import ERROR, WARNING, Finding, Scene
from wwfast.heads import key
from wwfast.images import names
from wwfast.racks.asking import health

AT_ONCE = 32
BEHIND = 60.0  # s; an edit is there after two, an image after as long as it takes to send
UNIT = "there: systemctl status wwfast"


def caches(scene: Scene) -> Iterator[Finding]:
    """A server that starts does not wait for them: nodes do without."""
    urls = [cache.url for cache in scene.settings.wwfast.caches]
    if not urls or not scene.thorough:
        return
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for one in threads.map(health, urls):
            if one.wrong:
                message = f"cache {one.url} does not answer as one: {one.wrong}; its nodes fetch from others"
                yield Finding(WARNING, "caches", message, "there: systemctl status wwfast-cache")
    yield from _in_vain(scene)


def _in_vain(scene: Scene) -> Iterator[Finding]:
    """Images of which nothing but a kernel comes from a cache."""
    seen: set[str] = set()
    for node in scene.nodes:
        name = names.split(node.image_name)[0]
        if not name or name in seen:
            continue
        seen.add(name)
        way = scene.paper.way(node, Ask(""))
        if way is not None and not way.root:
            message = f"image {name} comes from this server whatever caches there are, {way.why.partition(':')[0]}"
            yield Finding(WARNING, "caches", message, f"wwfast image build --format tmpfs {name}")


def heads(scene: Scene) -> Iterator[Finding]:
    place = key.place(scene.paths)
    if place.exists():
        if why := key.wrong(place):
            message = f"the key of heads is no secret, and none follows with it: {why}"
            yield Finding(ERROR, "heads", message, f"chmod 0600 {place}; if others had it: wwfast follow key --force")
    elif authorities(scene.settings):
        message = f"wwfast: heads names other heads, and there is no key {place}: none of them can follow"
        fix = "wwfast follow key, on the first head; then copy it to the others, and systemctl restart wwfast"
        yield Finding(WARNING, "heads", message, fix)
    peers = scene.running.get("peers")
    for name, peer in peers.items() if isinstance(peers, dict) else ():
        yield from _peer(name, peer)


def _peer(name: str, peer: dict[str, object]) -> Iterator[Finding]:
    behind, seen = peer["behind"], peer["seen"]
    if peer["silent"]:
        message = f"head {name} ({peer['address']}) has not asked for {seen:.0f} s: it is away, or follows no more"
        yield Finding(WARNING, "heads", message, UNIT)
    elif peer["said"]:
        yield Finding(WARNING, "heads", f"head {name} ({peer['address']}) cannot follow: {peer['said']}", UNIT)
    elif isinstance(behind, float) and behind > BEHIND:
        left = f"{int(str(peer['missing'])) >> 20} MiB are still to come"
        message = f"head {name} ({peer['address']}) is {behind:.0f} s behind: {left}"
        yield Finding(WARNING, "heads", message, "wwfast server peers; is the link between them slow?")
