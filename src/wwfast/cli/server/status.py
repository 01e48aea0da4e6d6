"""wwfast node status: where every node is in its boot, and which ones stand still."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.numbers import Whole
from wwfast.net.names import REASON, tame

LOCAL = "127.0.0.1"


@click.command(epilog="Example: wwfast node status 'n[001-040]' --failed")
@click.argument("pattern", nargs=-1)
@click.option("-w", "--watch", is_flag=True, help="Show it again and again until interrupted.")
@click.option(
    "-U",
    "--update",
    type=Whole(1, 3_600_000),
    metavar="MS",
    default=500,
    show_default=True,
    help="Milliseconds between two looks.",
)
@click.option("--failed", is_flag=True, help="Only nodes that failed or stand still.")
@click.option("-u", "--unknown", is_flag=True, help="Only nodes never seen, and addresses of no node.")
@click.option("-l", "--last", is_flag=True, help="Sort by the time of the last contact.")
@click.option("-r", "--reverse", is_flag=True, help="Reverse the order.")
@click.option(
    "-t", "--time", "within", type=Whole(0), default=0, metavar="S", help="Only nodes seen in the last S seconds."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@pass_app
def status(
    app: App,
    pattern: tuple[str, ...],
    watch: bool,
    update: int,
    failed: bool,
    unknown: bool,
    last: bool,
    reverse: bool,
    within: int,
    as_json: bool,
) -> int:
    """Show how far each node has booted.

    Stage, bytes, last contact, last error and the seconds a node has stood still. With one node its boot is shown
    stage by stage. Exit status 1 when a shown node failed.
    """
    from wwfast.errors import NotFoundError
    from wwfast.nodes import groups
    from wwfast.nodes.text.source import NODES

    names, lost = groups.meant(pattern, app.registry.snapshot().source.trees[NODES], app.registry.snapshot)
    if lost:
        raise NotFoundError(groups.unknown(lost), hint="wwfast node list")
    while True:
        body = fetch(app, names[0] if len(names) == 1 else "")
        entries = [entry for entry in body["nodes"].values() if not names or entry["node name"] in names]
        if failed:
            entries = [entry for entry in entries if entry["failed"]]
        if unknown:
            entries = [entry for entry in entries if not entry["last seen"]] + list(body.get("unknown", {}).values())
        if within:
            entries = [entry for entry in entries if entry["last seen"] >= time.time() - within]
        if last:
            entries.sort(key=lambda entry: entry["last seen"])
        if reverse:
            entries.reverse()
        if watch and not as_json:
            click.clear()
        _show(entries, as_json, body, single=len(names) == 1)
        if not watch:
            return 1 if any(entry["failed"] for entry in entries) else 0
        time.sleep(update / 1000)


def fetch(app: App, node: str = "", *, address: str = "", timeout: float = 30.0) -> dict[str, Any]:
    """GET /status of this server. Raises WwfastError when nobody answers."""
    from wwfast.errors import WwfastError, cause

    url = f"http://{address or app.settings.ipaddr or LOCAL}:{app.settings.warewulf.port}/status" + (
        f"?node={node}" if node else ""
    )
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=timeout) as answer:
            body: dict[str, Any] = json.load(answer)
            return body
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = cause(reason) if isinstance(reason, Exception) else reason
        raise WwfastError(f"no answer from {url}: {why}", hint="is it running? systemctl status wwfast") from error


def _show(entries: list[dict[str, Any]], as_json: bool, body: dict[str, Any], *, single: bool) -> None:
    from wwfast.boot.stages import Stage
    from wwfast.cli.output import dump_json, table

    if as_json:
        dump_json({entry["node name"]: entry for entry in entries})
        return
    if error := body.get("registry error"):
        click.echo(f"warning: nodes.conf was not reloaded: {error}", err=True)
    for name, trouble in body.get("troubles", {}).items():
        click.echo(f"warning: {name} fails ({trouble['count']} times): {trouble['error']}", err=True)
    now = time.time()
    entries = [_tamed(entry) for entry in entries]
    rows = []
    for entry in entries:
        label = Stage(entry["stage"]).label if entry["stage"] else "--"
        seen = f"{now - entry['last seen']:.0f}" if entry["last seen"] else "--"
        stuck = f"{entry['stuck']:.0f}" if entry["stuck"] >= 1 else "--"
        rows.append(
            (
                entry["node name"],
                label,
                entry["sent"],
                _bytes(entry),
                seen,
                stuck,
                _place(entry),
                entry.get("error", ""),
            )
        )
    table(("NODENAME", "STAGE", "SENT", "BYTES", "LASTSEEN (s)", "STUCK (s)", "QUEUE", "ERROR"), rows)
    if single and entries and (told := _machine(entries[0])):
        click.echo(f"\n{told}")
    if single and entries and (others := _attempts(entries[0], now)):
        click.echo(f"\n{others}")
    if single and entries and entries[0].get("boot"):
        click.echo()
        boot = entries[0]["boot"]
        begin = boot[0]["at"]
        table(
            ("STAGE", "AT (s)", "SENT", "BYTES", "TOOK (s)", "OUTCOME"),
            [
                (
                    Stage(part["stage"]).label,
                    f"{part['at'] - begin:.1f}",
                    part["sent"],
                    part["bytes"],
                    f"{part['seconds']:.2f}",
                    part["outcome"] + (f" ({part['told']})" if part.get("told") else ""),
                )
                for part in boot
            ],
        )


def _machine(entry: dict[str, Any]) -> str:
    """What is known of a node's memory, and the way in which its image comes, or ""."""
    memory, way = entry.get("memory"), entry.get("way")
    told = [f"memory: {memory} MiB"] if memory else []
    return "\n".join([*told, f"the image comes {way}"] if way else told)


def _attempts(entry: dict[str, Any], now: float) -> str:
    """What others did in the name of a node, or ""."""
    others = entry.get("attempts")
    if not others:
        return ""
    asked = f"{others['ipaddr']} asked for its {others['stage']} {now - others['at']:.0f} s ago ({others['outcome']})"
    return f"{others['count']} requests in its name came from addresses not its own, the last: {asked}"


def _tamed(entry: dict[str, Any]) -> dict[str, Any]:
    """For a terminal: names in it came from strangers, and the server may be of any version."""
    return {
        key: tame(value, REASON)
        if isinstance(value, str)
        else [_tamed(part) for part in value]
        if isinstance(value, list)
        else _tamed(value)
        if isinstance(value, dict)
        else value
        for key, value in entry.items()
    }


def _bytes(entry: dict[str, Any]) -> str:
    return (
        f"{entry['bytes']}/{entry['total']}" if entry["total"] and entry["bytes"] != entry["total"] else entry["bytes"]
    )


def _place(entry: dict[str, Any]) -> str:
    """Place in the download queue and when its turn is expected."""
    return f"{entry['place']}, {entry['eta']:.0f} s" if entry.get("place") else ""
