"""wwfast configure: the files and services of this server itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.cli.output import warn
from wwfast.errors import UsageError, WwfastError, of_system

if TYPE_CHECKING:
    from wwfast.api.host import Host

SYSTEMD = Path("/run/systemd/system")
#: Which files of the overlay `host` a verb writes. DHCP's are written where DHCP is not ours (api.host).
FILES: dict[str, tuple[str, ...]] = {
    "hostfile": ("etc/hosts",),
    "nfs": ("etc/exports",),
    "ssh": ("etc/profile.d/ssh_setup.",),
    "dnsmasq": ("etc/dnsmasq.d/",),
    "kea": ("etc/kea/",),
    "dhcpd": ("etc/dhcp/",),
}


OTHERS = "others"  # what a site's overlay holds beside these


class How(NamedTuple):
    dry_run: bool = False
    show: bool = False
    force: bool = False

    @property
    def writes(self) -> bool:
        return not (self.dry_run or self.show)


def how_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--dry-run, --show, --force, given to the command as `how`."""
    import functools

    @functools.wraps(function)
    def gathered(*args: Any, dry_run: bool, show: bool, force: bool, **given: Any) -> Any:
        return function(*args, how=How(dry_run, show, force), **given)

    made = click.option("-f", "--force", is_flag=True, help="Write also what others changed.")(gathered)
    made = click.option("-s", "--show", is_flag=True, help="Print the files; write nothing.")(made)
    return click.option("-n", "--dry-run", is_flag=True, help="Print what would change; write nothing.")(made)


@click.group(cls=AliasGroup, invoke_without_command=True, epilog="Example: wwfast configure --all --dry-run")
@click.option("-a", "--all", "everything", is_flag=True, help="All of it, as `configure all`.")
@how_options
@click.pass_context
def configure(ctx: click.Context, everything: bool, how: How) -> None:
    """Write the files of this server itself, from the overlay `host`, and start its services.

    DHCP, TFTP and HTTP are in the server, so there is little: /etc/hosts, /etc/exports, keys and SSH's profile files,
    and the configuration of dhcpd, dnsmasq or Kea where `dhcp: enabled` is false. What was there is kept
    (configure undo).
    """
    if ctx.invoked_subcommand is not None:
        if everything or any(how):
            raise UsageError("options stand after the verb", hint=f"wwfast configure {ctx.invoked_subcommand} --help")
    elif everything:
        ctx.invoke(configure_all, **how._asdict())
    else:
        click.echo(ctx.get_help())


@configure.command("all", epilog="Example: wwfast configure all --dry-run")
@how_options
@pass_app
def configure_all(app: App, how: How) -> None:
    """All of it, in the order tls, warewulfd, tftp, dhcp, nfs, ssh, hostfile; what fails keeps nothing else from it."""
    parts: list[tuple[bool, Callable[[], object]]] = [
        (how.writes and bool(app.settings.warewulf.tls), partial(make_certificate, app, force=False)),
        (how.writes, partial(start_server, app)),
        (True, partial(tell_tftp, app)),
        (True, partial(write_dhcp, app, how)),
        (True, partial(write_nfs, app, how)),
        (how.writes, partial(make_keys, app, ())),
        (True, partial(write_files, app, how, "ssh")),
        (True, partial(write_hostfile, app, how)),
    ]
    failed = []
    for wanted, part in parts:
        try:
            part() if wanted else None
        except (WwfastError, OSError) as error:
            failed.append(error if isinstance(error, WwfastError) else of_system(error))
    if failed:
        told = [each.message + (f"\n    {each.hint}" if each.hint else "") for each in failed]
        raise WwfastError(
            "\n".join(told), hint="all else was done; once that is mended, the same command does the rest"
        )


@configure.command("hostfile", epilog="Example: wwfast configure hostfile --dry-run")
@how_options
@pass_app
def hostfile(app: App, how: How) -> None:
    """Write /etc/hosts: its own lines up to the marker stay, the nodes stand below.

    And whatever else a site's overlay `host` holds that is no other verb's.
    """
    write_hostfile(app, how)


@configure.command("nfs", epilog="Example: wwfast configure nfs --dry-run")
@how_options
@pass_app
def nfs(app: App, how: How) -> None:
    """Write /etc/exports from `nfs: export paths`, and start the NFS server."""
    write_nfs(app, how)


@configure.command("dhcp", epilog="Example: wwfast configure dhcp --show")
@how_options
@pass_app
def dhcp(app: App, how: How) -> None:
    """Write the configuration of dhcpd, dnsmasq or Kea, where the site keeps one of them (`dhcp: enabled: false`)."""
    write_dhcp(app, how)


@configure.command("tftp", epilog="Example: wwfast configure tftp")
@click.option("-s", "--show", is_flag=True, expose_value=False, help="Accepted, as in wwctl.")
@pass_app
def tftp(app: App) -> None:
    """Nothing to do: the server has TFTP inside, and takes the iPXE binaries where they are."""
    tell_tftp(app)


@configure.command("warewulfd", epilog="Example: wwfast configure warewulfd")
@pass_app
def warewulfd(app: App) -> None:
    """Install the server's systemd unit where there is none, enable it, start it or have it read everything again."""
    start_server(app)


@configure.command("ssh", epilog="Example: wwfast configure ssh")
@click.option(
    "-t",
    "--keytypes",
    "kinds",
    multiple=True,
    metavar="TYPE",
    help="Types of keys, instead of `ssh: key types` of warewulf.conf; may be repeated.",
)
@how_options
@pass_app
def ssh(app: App, kinds: tuple[str, ...], how: How) -> None:
    """Make the host keys of the nodes, and a key that opens them for root; what exists stays.

    Also write what gives users a key of their own as they log in.
    """
    if how.writes:
        make_keys(app, kinds)
    write_files(app, how, "ssh")


@configure.command("tls", epilog="Example: wwfast configure tls --import /root/pair")
@click.option("--import", "source", type=click.Path(path_type=Path), metavar="DIR", help="Take warewulf.key and .crt.")
@click.option("--export", "target", type=click.Path(path_type=Path), metavar="DIR", help="Copy the pair there.")
@click.option("-f", "--force", is_flag=True, help="Make a new pair in place of the one that is there.")
@pass_app
def tls(app: App, source: Path | None, target: Path | None, force: bool) -> None:
    """Make, import or export the key and certificate of this server. They are not served yet."""
    from wwfast.api import certificate

    if target is not None:
        certificate.give(app.paths, target)
        click.echo(f"copied to {target}")
    elif source is not None:
        certificate.take(app.paths, source)
        click.echo(certificate.describe(app.paths))
    else:
        make_certificate(app, force=force)


for alias in ("keys", "key", "cert", "crt"):
    configure.aliases[alias] = "tls"


@configure.command("undo", epilog="Example: wwfast configure undo /etc/hosts")
@click.argument("targets", nargs=-1, metavar="[FILE...]", type=click.Path(path_type=Path))
@click.option("-f", "--force", is_flag=True, help="Also what others changed since.")
@pass_app
def undo(app: App, targets: tuple[Path, ...], force: bool) -> None:
    """Put back what was there before the first `configure`: all files, or those named.

    What `import warewulf` wrote, warewulf.conf and keys, only by name.
    """
    host = host_of(app)
    for target in targets or host.configured():
        host.undo(target, force=force)
        click.echo(f"put back {target}")


# --- what the verbs do ---------------------------------------------------------------------------------------------


def host_of(app: App) -> Host:
    from wwfast.api.host import Host

    return Host(app.paths, app.settings, app.registry.snapshot())


def write_hostfile(app: App, how: How) -> None:
    write_files(app, how, "hostfile", always=True)
    if app.settings.warewulf.host_overlay:
        write_files(app, how, OTHERS)


def is_of(verb: str) -> Callable[[str], bool]:
    """Whether a file of the overlay is one of a verb's, by its path; OTHERS are no verb's."""
    if verb == OTHERS:
        return lambda path: not path.startswith(tuple(prefix for known in FILES.values() for prefix in known))
    return lambda path: path.startswith(FILES[verb])


def write_files(app: App, how: How, verb: str, *, always: bool = False) -> bool:
    """Whether something was written. `always`: whatever `warewulf: host overlay` says."""
    from wwfast.cli.nodes.entries import difference

    if not always and not app.settings.warewulf.host_overlay:
        click.echo(f"{verb}: nothing is written (`warewulf: host overlay: false`)")
        return False
    host, changed = host_of(app), False
    wanted = host.rendered(is_of(verb))
    for name in host.left:
        warn(f"{name} of the overlay host is no file, and is not written")
    if not wanted and verb in FILES:
        warn(f"{verb}: the overlay host of this site has no {' and no '.join(FILES[verb])}, so nothing is written")
    for file in wanted:
        if how.show:
            sys.stdout.write(file.content.decode(errors="replace"))
        elif not file.differs:
            if how.writes:
                host.write(file)
            click.echo(f"{file.target} is as it should be")
        elif how.dry_run:
            sys.stdout.write(difference(file.before or b"", file.content, str(file.target)))
        else:
            if file.before is not None and file.target not in host.written():
                sys.stdout.write(difference(file.before, file.content, str(file.target)))
            host.write(file, force=how.force)
            click.echo(f"wrote {file.target}")
            changed = True
    return changed


def write_nfs(app: App, how: How) -> None:
    if not app.settings.nfs.enabled:
        click.echo("nfs: nothing to do (`nfs: enabled: false`)")
        return
    exports = app.paths.root / FILES["nfs"][0]
    if not app.settings.nfs.export_paths and exports not in host_of(app).written():
        click.echo(f"nfs: nothing to export (`nfs: export paths`), {exports} stays as it is")
        return
    write_files(app, how, "nfs")
    if how.writes and app.settings.nfs.export_paths:
        start(app, app.settings.nfs.systemd_name.replace("nfsd", "nfs-server") or "nfs-server")


def write_dhcp(app: App, how: How) -> None:
    if app.settings.own_dhcp:
        click.echo("dhcp: nothing to do, it is in the server (`dhcp: enabled: false` for a server of your own)")
        return
    unit = app.settings.dhcp.systemd_name or "dhcpd"
    write_files(app, how, next((kind for kind in ("dnsmasq", "kea") if kind in unit), "dhcpd"))
    if how.writes:
        start(app, unit)


def tell_tftp(app: App) -> None:
    if app.settings.tftp.enabled:
        click.echo("tftp: nothing to do, it is in the server")
    else:
        click.echo("tftp: nothing to do (`tftp: enabled: false`)")


def make_keys(app: App, kinds: tuple[str, ...]) -> None:
    from wwfast.config import checks
    from wwfast.overlays.files.sshkeys import make_host_keys, make_login

    if wrong := next(filter(None, map(checks.key_type, kinds)), ""):
        raise UsageError(f"--keytypes: {wrong}")
    wanted = kinds or tuple(app.settings.ssh.key_types)
    made = make_host_keys(app.paths, wanted)
    login = make_login(app.paths, wanted[0]) if wanted else None
    for path in (*made, *([login] if login else [])):
        click.echo(f"made {path}")
    if not made and not login:
        click.echo("all keys are there already")


def make_certificate(app: App, *, force: bool) -> None:
    from wwfast.api import certificate

    if certificate.there(certificate.place(app.paths)) and not force:
        click.echo(f"the certificate in {certificate.place(app.paths)} stays (--force makes a new one)")
    else:
        certificate.make(app.paths, app.settings)
    click.echo(certificate.describe(app.paths))


def start_server(app: App) -> None:
    from wwfast.paths import SHARE

    unit = app.settings.warewulf.systemd_name.replace("warewulfd", "") or "wwfast"
    name = f"systemd/system/{unit}.service"
    if unit == "wwfast" and not any((app.paths.root / place / name).exists() for place in ("etc", "usr/lib", "lib")):
        host = host_of(app)
        file = host.file(f"etc/{name}", (SHARE / "systemd/wwfast.service").read_bytes(), 0o644)
        host.write(file)
        click.echo(f"wrote {file.target}")
    start(app, unit)


def start(app: App, unit: str) -> None:
    """Enable a unit, and start it or have it read its files again; said where no systemd could do it."""
    from wwfast.system.run import run

    if app.paths.root != Path("/") or not SYSTEMD.is_dir():
        click.echo(f"systemd does not run here: start {unit} yourself, or have it read its files again")
        return
    run(["systemctl", "daemon-reload"])
    for verb in ("enable", "reload-or-restart"):
        done = run(["systemctl", verb, unit], check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().partition("\n")[0] or f"exit status {done.returncode}"
            raise WwfastError(
                f"systemctl {verb} {unit}: {said}", hint=f"its files are written; why: journalctl -u {unit} -e"
            )
    click.echo(f"enabled and started {unit}")
