"""Caches in racks: are they there, and does anything come from them?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from wwfast.boot.plan import Ask
from wwfast.doctor.finding import WARNING, Finding, Scene
from wwfast.images import names
from wwfast.racks.asking import health

AT_ONCE = 32


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
