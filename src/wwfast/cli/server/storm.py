"""wwfast storm: the boot of thousands of simulated nodes."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wwfast.cli.numbers import Real, Whole
from wwfast.cli.output import dump_json, table
from wwfast.config import checks
from wwfast.errors import UsageError, WwfastError

if TYPE_CHECKING:
    from wwfast.storm.play import Fail
    from wwfast.storm.report import Report


@click.command(epilog="Example: wwfast storm --nodes 1000 --png storm.png")
@click.option("-n", "--nodes", default=200, show_default=True, type=Whole(1, 60_000), help="How many.")
@click.option("--profile", default="bios", show_default=True, type=click.Choice(["bios", "uefi"]), help="Firmware.")
@click.option(
    "--jitter", default=0.0, type=Real(0, 86_400), metavar="S", help="Switch the nodes on over so many seconds."
)
@click.option(
    "--rate",
    default=2.5,
    show_default=True,
    type=Real(0, 10_000),
    metavar="GBIT",
    help="Rate of the link; 0: not shaped.",
)
@click.option(
    "--image-size",
    default=32,
    show_default=True,
    type=Whole(1, 65_536),
    metavar="MIB",
    help="Size of the image.",
)
@click.option("--dhcp", is_flag=True, help="From the firmware's DHCP on: then TFTP, then iPXE's DHCP.")
@click.option("--clusters", default=1, show_default=True, type=Whole(1), help="Clusters that share the link.")
@click.option("--racks", type=Whole(1, 256), help="In racks, each behind a link of its own.")
@click.option("--caches", type=click.Choice(["nginx", "none"]), default="none", show_default=True, help="In each rack.")
@click.option(
    "--head-rate",
    default=2.5,
    show_default=True,
    type=Real(0, 10_000),
    metavar="GBIT",
    help="Of the head's link, with --racks.",
)
@click.option("--heads", type=Whole(1, 8), default=1, show_default=True, help="Servers, with --racks.")
@click.option("--fail", metavar="head[N]@S", help="Head N (1) falls silent after S seconds; kill[N]@S: is killed.")
@click.option("--png", type=click.Path(path_type=Path), metavar="FILE", help="Draw how many nodes are through.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--server", metavar="ADDR[:PORT]", help="A server that runs already, instead of one of its own.")
@click.option("--i-own-it", is_flag=True, help="The server given by --server is yours, and may be loaded like this.")
def storm(
    nodes: int,
    profile: str,
    jitter: float,
    rate: float,
    image_size: int,
    dhcp: bool,
    clusters: int,
    racks: int | None,
    caches: str,
    head_rate: float,
    heads: int,
    fail: str | None,
    png: Path | None,
    as_json: bool,
    server: str | None,
    i_own_it: bool,
) -> None:
    """Simulate the boot of many nodes at once, and tell how long each stage took.

    Starts its own server with a temporary --root in a network namespace and plays the nodes from another one, over
    a link of the given rate: nothing reaches your network and nothing is left behind. Needs root.

    With --server the script of each node is asked for over HTTP and whatever it names; the hardware addresses are
    of a prefix (02:77:77) that wwfast never takes for a new node.
    """
    from wwfast.storm import play

    display = Display(nodes, quiet=as_json)
    how: dict[str, Any] = {"profile": profile, "jitter": jitter, "on_progress": display.show}
    rates: dict[str, Any] = {"head_rate": head_rate * 1e9 or None, "rack_rate": rate * 1e9 or None}
    if racks is not None:
        if dhcp or server is not None or clusters > 1:
            raise UsageError("--racks goes with neither --dhcp nor --server nor --clusters")
        how |= {"heads": heads, "fail": failing(fail, heads) if fail is not None else None}
        report = play.in_racks(nodes, racks, **rates, image_mib=image_size, cached=caches == "nginx", **how)
    elif heads > 1 or fail is not None:
        raise UsageError("several heads are for racks", hint="--racks NUMBER")
    elif caches != "none":
        raise UsageError("caches are in racks", hint="--racks NUMBER")
    elif server is None:
        report = play.own(nodes, rate=rate * 1e9 or None, image_mib=image_size, clusters=clusters, firmware=dhcp, **how)
    else:
        if dhcp:
            raise UsageError("--dhcp is only for a storm of its own, not for --server")
        report = play.remote(*address(server, nodes, owned=i_own_it), nodes, **how)
    display.close()
    if as_json:
        dump_json(report.as_json())
    else:
        tell(report, nodes)
    if png is not None:
        draw(report, nodes, png)
    if report.failures or report.notes:
        raise WwfastError(
            "\n".join([f"{len(report.failures)} of {nodes} nodes failed", *report.failures[:5], *report.notes]),
            hint="the messages name the stage that failed",
        )


def failing(text: str, heads: int) -> Fail:
    """Which head, and when."""
    from wwfast.storm.play import Fail

    found = re.fullmatch(r"(head|kill)([0-9]*)@([0-9]+(?:\.[0-9]+)?)", text)
    number = int(found[2] or 1) if found else 0
    if found is None or not 1 <= number <= heads or heads < 2:
        raise UsageError(f"--fail {text}: no such head", hint="--heads 2 --fail head@20, head2@20 or kill@20")
    return Fail(number - 1, float(found[3]), found[1] == "kill")


def address(server: str, nodes: int, *, owned: bool) -> tuple[str, int]:
    """Host and port of a server that is one's own."""
    if not owned:
        raise UsageError(
            f"{nodes} nodes at once are an attack on a server that is not yours",
            hint=f"if {server} is yours, say so with --i-own-it",
        )
    host, _, port = server.rpartition(":") if server.count(":") == 1 else (server, "", "9873")
    if wrong := checks.port(port):
        raise UsageError(f"--server {server}: {wrong}")
    return host.strip("[]"), int(port)


def draw(report: Report, nodes: int, png: Path) -> None:
    from wwfast.storm.chart import curves

    series = {stage: report.times(stage) for stage in report.stages}
    curves(series, png, f"{nodes} nodes: which share of them is through each stage")


def tell(report: Report, nodes: int) -> None:
    table(("STAGE", "NODES", "T50 S", "T90 S", "T99 S", "LAST S"), report.rows())
    gigabytes = report.received / 1e9
    click.echo(
        f"\n{nodes - len(report.failures)} of {nodes} nodes have all they need after {report.seconds:.1f} s; "
        f"{gigabytes:.2f} GB at {gigabytes / report.seconds if report.seconds else 0:.2f} GB/s"
    )
    click.echo(f"told to come again: {report.told_to_wait}, connections made anew: {report.restarts}")
    if report.head_bytes:
        click.echo(f"the head's link carried {report.head_bytes / 1e9:.2f} GB; caches failed {report.elsewhere} times")
    if report.moved:
        click.echo(f"nodes went to another head: {report.moved} times")
    if report.server_cpu:
        click.echo(
            f"server: {report.server_cpu / gigabytes if gigabytes else 0:.2f} CPU s/GB, {report.server_rss:.0f} MiB"
        )


class Display:
    """What happens meanwhile, on a terminal: nodes through each stage, rate, time left."""

    def __init__(self, nodes: int, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self.nodes = nodes
        console = Console(stderr=True)
        self.live = Live(console=console, transient=True) if console.is_terminal and not quiet else None
        self.began = 0.0
        if self.live is not None:
            self.live.start()

    def show(self, event: dict[str, Any]) -> None:
        if self.live is None:
            return
        from rich.table import Table

        if "doing" in event:
            self.live.update(event["doing"])
            return
        now = time.monotonic()
        self.began = self.began or now
        spent = max(1e-3, now - self.began)
        done: dict[str, int] = event["done"]
        through = done.get("image", 0)
        left = spent * (self.nodes - through) / through if through else 0.0
        grid = Table("stage", "nodes", title=f"{self.nodes} nodes, {event['received'] / spent / 1e6:.0f} MB/s")
        for stage, count in done.items():
            grid.add_row(stage, f"{count} of {self.nodes}")
        grid.caption = f"{spent:.0f} s, about {left:.0f} s left" if through else f"{spent:.0f} s"
        self.live.update(grid)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
