"""What every command gets: the paths, and settings and registry loaded when first asked for."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wwfast.errors import UsageError, WwfastError
from wwfast.paths import Paths
from wwfast.system import folders, work

if TYPE_CHECKING:
    from wwfast.api.service import Service
    from wwfast.config.settings import Settings
    from wwfast.nodes.registry import Registry


@dataclass
class App:
    given: Paths
    verbose: bool = False
    debug: bool = False

    def take(self, name: str, value: Any) -> None:
        """A global flag, wherever it stood: nothing was read yet."""
        if name == "warewulfconf":
            self.given = self.given.with_(conf=existing(value))
        elif name == "emptyconf":
            self.given = self.given.with_(conf=Path(os.devnull))
        elif name == "loglevel":
            logging.getLogger().setLevel(value)
        else:
            self.verbose, self.debug = self.verbose or name == "verbose", self.debug or name == "debug"
            logging.getLogger().setLevel(logging.DEBUG if self.debug else logging.INFO)

    @classmethod
    def create(cls, *, verbose: bool, debug: bool, conf: str | None, root: str | None) -> App:
        level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
        logging.basicConfig(level=level, format="%(levelname)s: %(message)s")
        if root == "" or conf == "":
            name = "--root" if root == "" else "--warewulfconf"
            raise UsageError(f"{name} is given, but empty", hint=f"leave {name} out for the files of this server")
        if conf:
            existing(conf)
        return cls(Paths.from_environment(root, conf), verbose, debug)

    @cached_property
    def settings(self) -> Settings:
        from wwfast.config.settings import load

        return load(self.given)

    @cached_property
    def paths(self) -> Paths:
        """Locations after the `paths:` section of warewulf.conf, rid of what dead writers left there."""
        found = self.settings.locations.as_served()
        folders.tighten(*found.own)
        work.sweep(*found.workplaces())
        return found

    @cached_property
    def registry(self) -> Registry:
        from wwfast.nodes.registry import Registry

        return Registry(self.paths)

    @cached_property
    def service(self) -> Service:
        from wwfast.api.service import Service

        return Service(self.paths, lambda: self.settings, lambda: self.registry.snapshot())


def existing(conf: str) -> Path:
    if not Path(conf).is_file():
        what = f"{conf} is no file" if Path(conf).exists() else f"there is no {conf}"
        raise WwfastError(what, hint="it was named by --warewulfconf or WAREWULFCONF")
    return Path(conf)


pass_app = click.make_pass_decorator(App)
