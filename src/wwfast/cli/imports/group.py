"""wwfast import ...: clusters as other provisioners describe them. A source is a command, made when it is asked for."""

from __future__ import annotations

import click

from wwfast.api.sources import FORMATS
from wwfast.cli.groups import AliasGroup, globals_anywhere

#: Commands that are no table of nodes: name -> (module:object, summary).
WHOLE = {"warewulf": ("wwfast.cli.imports.warewulf:warewulf", "Take over the files of a Warewulf 4.")}


class ImportGroup(AliasGroup):
    """A command for each format of nodes, and those of WHOLE."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in FORMATS:
            from wwfast.cli.imports.foreign import command

            return globals_anywhere(command(cmd_name))
        return super().get_command(ctx, cmd_name)


@click.group("import", cls=ImportGroup, epilog="Example: wwfast import xcat nodes.stanza --dry-run")
def import_() -> None:
    """Take nodes over from another provisioner."""


for name, (where, summary) in WHOLE.items():
    import_.add_lazy(name, where, summary)
for name, form in FORMATS.items():
    import_.add_lazy(name, "wwfast.cli.imports.foreign:command", form.summary)
