"""The configuration of an unmodified nginx that is a cache in a rack, from share/nginx, and its unit."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from wwfast.paths import SHARE

CONF, UNIT = "nginx.conf", "wwfast-cache.service"
PORT = 80  # of a URL that names none


def files(url: str, heads: Sequence[str], *, directory: str, size: str) -> dict[str, str]:
    """What belongs in /etc/wwfast-cache and /etc/systemd/system, by file name. `heads` are ADDRESS:PORT, the first one
    in each message; `size` in nginx's words (50g)."""
    import jinja2  # here: 50 ms that no other command needs

    place = SHARE / "nginx"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    made = environment.from_string((place / f"{CONF}.j2").read_text()).render(
        head=heads[0], heads=list(heads), port=urlsplit(url).port or PORT, directory=directory, size=size
    )
    return {CONF: made, UNIT: (place / UNIT).read_text()}
