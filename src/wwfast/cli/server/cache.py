"""wwfast cache: caches in the racks, from which nodes fetch what they boot with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.errors import UsageError, WwfastError

if TYPE_CHECKING:
    from wwfast.racks.asking import Blob

DIRECTORY = "/var/cache/wwfast-cache"


@click.group(cls=AliasGroup, epilog="Example: wwfast cache nginx http://10.1.0.1:9880 --into /tmp/rack1")
def cache() -> None:
    """Caches in the racks: nginx, as distributions have it, with a configuration of ours.

    Nodes are told of those in `wwfast: caches` of warewulf.conf, the nearest first, and go on with the next one and
    this server where one fails. See docs/scale.md.
    """


@cache.command(epilog="Example: wwfast cache nginx http://10.1.0.1:9880 --into /tmp/rack1")
@click.argument("url", required=False)
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="Write nginx.conf and its unit there.")
@click.option("--size", default="50g", show_default=True, metavar="SIZE", help="Disk that it may take, for nginx.")
@click.option("--directory", default=DIRECTORY, show_default=True, metavar="DIR", help="Where it keeps what it has.")
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="ADDRESS:PORT",
    help="Servers to fetch from; default `wwfast: heads`, or this one.",
)
@pass_app
def nginx(app: App, url: str | None, into: Path | None, size: str, directory: str, heads: tuple[str, ...]) -> None:
    """Print the configuration of a cache, to be put into /etc/wwfast-cache/nginx.conf of a machine in the rack.

    URL is how nodes reach it; where warewulf.conf has one cache alone, that one. With --into its unit is written, too.
    """
    import re

    from wwfast.boot.heads import authorities
    from wwfast.boot.loader.urls import Urls
    from wwfast.config import checks
    from wwfast.racks import nginx as configuration
    from wwfast.system import files
    from wwfast.system.folders import new_folder

    found = url or _only(app)
    if wrong := checks.cache_url(found):
        raise UsageError(wrong)
    if not re.fullmatch(r"[1-9][0-9]{0,9}[kKmMgG]?", size):
        raise UsageError(f"{size} is no size", hint="as nginx has it: 500m, 50g")
    if not re.fullmatch(r"/[\w./-]+", directory):
        raise UsageError(f"{directory} is no directory for nginx", hint="a full path, of letters, digits and _ . - /")
    for head in heads:
        if not re.fullmatch(r"[\w.-]+:[0-9]+|\[[0-9a-fA-F:]+\]:[0-9]+", head):
            raise UsageError(f"{head} is no server", hint="ADDRESS:PORT")
    made = configuration.files(
        found,
        heads or authorities(app.settings) or [Urls.of(app.settings).authority],
        directory=directory.rstrip("/"),
        size=size,
    )
    if into is None:
        click.echo(made[configuration.CONF], nl=False)
        return
    with new_folder(into):
        for name, text in made.items():
            files.replace(into / name, text.encode(), mode=0o644)
    click.echo(f"wrote {into}/{configuration.CONF} (for /etc/wwfast-cache) and {configuration.UNIT}")


def _only(app: App) -> str:
    known = app.settings.wwfast.caches
    if len(known) != 1:
        raise UsageError("which cache?", hint="its URL, as nodes reach it: wwfast cache nginx http://ADDRESS:PORT")
    return known[0].url


@cache.command(epilog="Example: wwfast cache status")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@pass_app
def status(app: App, as_json: bool) -> int:
    """Show whether the caches are well, and what they carried since this server started.

    GIVEN is what nodes say they had of their images from a cache, FETCHED what it had from this server. Exit status 1
    where one does not answer.
    """
    from concurrent.futures import ThreadPoolExecutor

    from wwfast.cli.images.common import size_text
    from wwfast.cli.output import dump_json, table, warn
    from wwfast.cli.server.status import fetch
    from wwfast.racks.asking import health

    urls = _known(app)
    with ThreadPoolExecutor(min(32, len(urls))) as threads:
        asked = list(threads.map(health, urls))
    try:
        carried = fetch(app).get("caches", {})
    except WwfastError as error:
        warn(error.message)
        carried = {}
    rows = [
        {
            "url": one.url,
            "state": one.wrong or "well",
            "connections": one.connections,
            "requests": one.requests,
            "given": carried.get(one.url, {}).get("given", 0),
            "fetched": carried.get(one.url, {}).get("fetched", 0),
        }
        for one in asked
    ]
    if as_json:
        dump_json(rows)
    else:
        table(
            ("CACHE", "CONNECTIONS", "REQUESTS", "GIVEN", "FETCHED", "HITS", "STATE"),
            (
                (
                    row["url"],
                    row["connections"],
                    row["requests"],
                    size_text(row["given"]),
                    size_text(row["fetched"]),
                    f"{max(0.0, 1 - row['fetched'] / row['given']):.0%}" if row["given"] else "",
                    row["state"],
                )
                for row in rows
            ),
        )
    return 1 if any(one.wrong for one in asked) else 0


@cache.command(epilog="Example: wwfast cache warm debian")
@click.argument("image")
@click.option("--cache", "only", multiple=True, metavar="URL", help="Those, and not all.")
@pass_app
def warm(app: App, image: str, only: tuple[str, ...]) -> None:
    """Have the caches fetch an image, its kernels and stage-1 before nodes ask for them.

    Each byte goes from this server to each cache once.
    """
    from concurrent.futures import ThreadPoolExecutor
    from threading import Lock

    from wwfast.cli.output import progress
    from wwfast.racks import asking

    urls = _known(app)
    if unknown := [url for url in only if url not in urls]:
        raise UsageError(f"{unknown[0]} is no cache of warewulf.conf", hint=f"there are: {', '.join(urls)}")
    urls = list(only) or urls
    wanted = _wanted(app, image)
    one_at_a_time = Lock()
    total, done = sum(blob.size for blob in wanted) * len(urls), 0

    with progress(f"warming {len(urls)} caches") as tell, ThreadPoolExecutor(min(32, len(urls))) as threads:

        def count(more: int) -> None:
            nonlocal done
            with one_at_a_time:
                done += more
                tell(done, total)

        def each(url: str) -> WwfastError | None:
            try:
                for blob in wanted:
                    asking.warm(url, blob, count)
            except WwfastError as error:
                return error
            return None

        failed = [error for error in threads.map(each, urls) if error is not None]
    for blob in wanted:
        click.echo(f"{blob.what}: {blob.size / 2**20:.1f} MiB, {blob.name[:19]}...")
    if failed:
        raise WwfastError("\n".join(error.message for error in failed), hint=failed[0].hint)
    click.echo(f"{len(urls)} caches have image {image}")


def _known(app: App) -> list[str]:
    urls = [cache.url for cache in app.settings.wwfast.caches]
    if not urls:
        raise WwfastError("there are no caches", hint="name them in `wwfast: caches` of warewulf.conf: docs/scale.md")
    return urls


def _wanted(app: App, image: str) -> list[Blob]:
    from wwfast.boot.blobs import Names
    from wwfast.boot.resolve import Resolver
    from wwfast.images.store import ImageStore
    from wwfast.racks import asking

    ImageStore(app.paths).get(image)
    standing = Resolver(app.paths).resolve(app.registry.snapshot(), [image] if "@" in image else [])
    wanted = list(asking.blobs(standing, image, Names(app.paths.blobs).of))
    if not wanted:
        raise WwfastError(
            f"nothing of image {image} comes from caches: no node has it, or it is not built for stage-1",
            hint=f"wwfast image build --format tmpfs {image}",
        )
    return wanted
