"""What every command gets: the paths, and settings and registry loaded when first asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

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

    @classmethod
    def create(cls, *, verbose: bool, debug: bool, conf: str | None, root: str | None) -> App:
        level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
        logging.basicConfig(level=level, format="%(levelname)s: %(message)s")
        if root == "" or conf == "":
            name = "--root" if root == "" else "--warewulfconf"
            raise UsageError(f"{name} is given, but empty", hint=f"leave {name} out for the files of this server")
        if conf and not Path(conf).is_file():
            raise WwfastError(f"there is no {conf}", hint="it was named by --warewulfconf or WAREWULFCONF")
        return cls(Paths.from_environment(root, conf), verbose, debug)

    @cached_property
    def settings(self) -> Settings:
        from wwfast.config.settings import load

        return load(self.given)

    @cached_property
    def paths(self) -> Paths:
        """Locations after the `paths:` section of warewulf.conf, rid of what dead writers left there."""
        found = self.settings.locations
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


pass_app = click.make_pass_decorator(App)
