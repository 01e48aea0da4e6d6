"""What a cache is asked from this server: whether it is well, and to fetch what nodes are going to want."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from wwfast.errors import WwfastError

if TYPE_CHECKING:
    from wwfast.archive.artefact import Artefact
    from wwfast.boot.standing import Standing

SLICE = 8 << 20  # bytes, as in share/nginx: what is fetched of a blob when one byte of it is asked for
SECONDS = 5.0  # for a word of its health
FETCH_SECONDS = 90.0  # for a slice: longer than nginx's own time limits


class Health(NamedTuple):
    """`wrong` says why it does not answer."""

    url: str
    connections: int = 0
    requests: int = 0
    wrong: str = ""


def health(url: str) -> Health:
    try:
        with _connected(url, SECONDS) as connection:
            connection.request("GET", "/health")
            answer = connection.getresponse()
            body = answer.read(4096).decode("latin-1")
    except (OSError, http.client.HTTPException) as error:
        return Health(url, wrong=_words(error))
    active = re.search(r"Active connections: (\d+)", body)
    counted = re.search(r"^ *\d+ +\d+ +(\d+)", body, re.MULTILINE)
    if answer.status != 200 or active is None or counted is None:
        return Health(url, wrong=f"it answers {answer.status}, as no cache of ours does")
    return Health(url, int(active[1]), int(counted[1]))


class Blob(NamedTuple):
    what: str
    name: str
    size: int


def blobs(standing: Standing, image: str, name: Callable[[Artefact], str]) -> Iterator[Blob]:
    """What nodes fetch of an image from caches. Raises OSError where it cannot be read."""
    from wwfast.archive.artefact import PIECES
    from wwfast.boot.standing import PREFIX, ServedImage, ServedKernel

    served = standing.images.get(image)
    kernels = [kernel for key, kernel in standing.kernels.items() if key[0] == image]
    found = [("kernel", kernel.artefact) for kernel in kernels if isinstance(kernel, ServedKernel)]
    if isinstance(served, ServedImage):
        found += [("stage-1", each) for each in served.stage1.values()]
        found += [(f"image as {kind}", each) for kind, each in served.roots.items() if not kind.endswith(PIECES)]
    for what, artefact in {each.digest: (what, each) for what, each in found}.values():
        yield Blob(what, PREFIX + name(artefact), artefact.size)


def warm(url: str, blob: Blob, tell: Callable[[int], None]) -> None:
    """Have a cache fetch a blob, by a byte of each slice. `tell` hears of bytes that are there. Raises WwfastError."""
    try:
        with _connected(url, FETCH_SECONDS) as connection:
            for at in range(0, blob.size, SLICE):
                connection.request("GET", f"/blob/{blob.name}", headers={"Range": f"bytes={at}-{at}"})
                answer = connection.getresponse()
                answer.read(SLICE)
                if answer.status != 206:
                    raise WwfastError(
                        f"cache {url} cannot have {blob.what}: it answers {answer.status}",
                        hint="is this server running, with this cache in `wwfast: caches` of warewulf.conf?",
                    )
                tell(min(SLICE, blob.size - at))
    except (OSError, http.client.HTTPException) as error:
        raise WwfastError(f"cache {url} does not answer: {_words(error)}") from error


@contextmanager
def _connected(url: str, seconds: float) -> Iterator[http.client.HTTPConnection]:
    """A proxy of the environment is not asked."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=seconds)
    try:
        yield connection
    finally:
        connection.close()


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
