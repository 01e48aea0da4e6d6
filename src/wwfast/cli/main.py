"""The root command: lazy groups, global flags, errors to exit statuses (0 done, 1 failed, 2 usage)."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import click

from wwfast.cli import standard
from wwfast.cli.groups import globals_anywhere
from wwfast.cli.numbers import Whole
from wwfast.system import signals

# name: (module below wwfast.cli, object in it, aliases). A module is imported only when its command runs.
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cache": ("server.cache:cache", ()),
    "clean": ("server.clean:clean", ()),
    "completion": ("config:completion", ()),
    "config": ("config:config", ()),
    "configure": ("server.configure:configure", ()),
    "doctor": ("server.doctor:doctor", ()),
    "follow": ("server.follow:follow", ()),
    "genconfig": ("config:genconfig", ("cnf",)),
    "group": ("nodes.group:group", ("groups",)),
    "help": ("version:help_", ()),
    "image": ("images.image:image", ("vnfs", "container")),
    "import": ("imports.group:import_", ()),
    "kernel": ("images.kernel:kernel", ()),
    "node": ("nodes.node:node", ("nodes",)),
    "overlay": ("overlays.overlay:overlay", ()),
    "power": ("bmc.power:power", ()),
    "profile": ("nodes.profile:profile", ("profiles",)),
    "server": ("server.server:server", ("serve",)),
    "ssh": ("bmc.ssh:ssh", ()),
    "storm": ("server.storm:storm", ()),
    "undo": ("nodes.undo:undo", ()),
    "upgrade": ("server.upgrade:upgrade", ()),
    "version": ("version:version", ("vers",)),
}
SUMMARY = {
    "cache": "Caches of boot files in the racks.",
    "clean": "Remove caches and what nothing refers to any more.",
    "completion": "Print the completion script of a shell.",
    "config": "Show warewulf.conf as it is understood.",
    "configure": "Make what a new server needs once.",
    "doctor": "Check this server for what keeps nodes from booting.",
    "follow": "Heads that follow another one: their key.",
    "genconfig": "Print configuration, man pages and completion scripts.",
    "group": "Groups of nodes.",
    "help": "Print the help of a command.",
    "image": "Operating system images of the nodes.",
    "import": "Take nodes over from another provisioner.",
    "kernel": "Kernels kept apart from images.",
    "node": "Nodes of the cluster.",
    "overlay": "What differs between nodes: files and templates.",
    "power": "Power of the nodes, by their BMCs.",
    "profile": "Settings shared by many nodes.",
    "server": "Run the provisioning server (DHCP, TFTP, HTTP).",
    "ssh": "Run a command on nodes.",
    "storm": "Simulate the boot of thousands of nodes.",
    "undo": "Take back the last change of nodes.conf.",
    "upgrade": "Bring the files of Warewulf 4.3 to 4.5 to the form of 4.6.",
    "version": "Print the version.",
}


class LazyGroup(click.Group):
    """Knows the commands by name; imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for name, (where, aliases) in COMMANDS.items():
            if cmd_name == name or cmd_name in aliases:
                module, attribute = where.split(":")
                command = getattr(importlib.import_module(f"wwfast.cli.{module}"), attribute)
                assert isinstance(command, click.Command)
                return globals_anywhere(command)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args and self.get_command(ctx, args[0]) is None:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            also = f" Did you mean '{close[0]}'?" if close else ""
            ctx.fail(f"No such command '{args[0]}'.{also}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARY[name]) for name in sorted(COMMANDS)])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: wwfast node list --net",
)
@click.option("-v", "--verbose", is_flag=True, help="Say more about what is done.")
@click.option("-d", "--debug", is_flag=True, help="Say everything, with tracebacks.")
@click.option("--warewulfconf", metavar="PATH", envvar="WAREWULFCONF", help="Path of warewulf.conf.")
@click.option("--loglevel", type=Whole(), metavar="N", hidden=True)
@click.option("--emptyconf", is_flag=True, hidden=True)
@click.option("--root", metavar="DIR", envvar="WWFAST_ROOT", help="Put every file below DIR (trials, tests).")
@click.pass_context
def cli(
    ctx: click.Context,
    verbose: bool,
    debug: bool,
    warewulfconf: str | None,
    loglevel: int | None,
    emptyconf: bool,
    root: str | None,
) -> None:
    """Provision stateless cluster nodes: images, overlays, DHCP, TFTP and HTTP in one program."""
    from wwfast.cli.context import App

    ctx.obj = App.create(verbose=verbose, debug=debug, conf=warewulfconf, root=root)
    for name, value in (("loglevel", loglevel), ("emptyconf", emptyconf or None)):
        if value is not None:
            ctx.obj.take(name, value)


def main(argv: list[str] | None = None) -> None:
    """Entry point. Never a traceback, unless -d asks for it; never a trace of what a signal ended."""
    words = sys.argv[1:] if argv is None else argv
    standard.stand()
    # What nodes get depends on no umask: with root's 077 of hardened servers every node's /etc would be private.
    # What is private here is made so by name, mode 0600 or 0700.
    os.umask(0o022)
    signals.take()
    try:
        sys.exit(run(words))
    except signals.Ended as end:
        signal.signal(end.number, signal.SIG_DFL)
        os.kill(os.getpid(), end.number)  # for our parent: what ended us is the signal


def run(words: list[str]) -> int:
    """One command; its exit status: 0 done, 1 failed, 2 wrong usage."""
    debug = "-d" in words or "--debug" in words
    try:
        status: Any = cli.main(words, prog_name="wwfast", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone: nobody wants the rest, nor to hear of it.
        standard.drop()
        return 1
    except Exception as error:
        from pathlib import Path

        from wwfast.cli.failures import told
        from wwfast.paths import Paths

        if getattr(error, "filename", None) == standard.OUTPUT:
            standard.drop()
        places = Paths.from_environment(option(words, "--root"))
        return told(error, debug=debug, places=(*places.own, places.etc, places.root, Path.cwd()))


def option(words: list[str], name: str) -> str | None:
    """The value of a global option, also of a command line that could not be used."""
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None
