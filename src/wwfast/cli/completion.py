"""Completion of names in the shell: nodes, profiles, images, overlays, kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def completer(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Names of nodes, profiles, images, overlays or kernels that begin with what was typed."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from wwfast.api.references import names
        from wwfast.config.settings import load
        from wwfast.errors import WwfastError
        from wwfast.paths import Paths

        top = ctx.find_root().params
        head, comma, word = incomplete.rpartition(",")
        try:
            paths = load(Paths.from_environment(top.get("root"), top.get("warewulfconf"))).locations.as_served()
            found = names(kind, paths)
        except (WwfastError, OSError):
            return []
        return [CompletionItem(f"{head}{comma}{name}") for name in found if name.startswith(word)]

    return complete
