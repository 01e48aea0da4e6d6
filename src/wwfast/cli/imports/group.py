"""wwfast import ...: clusters as other provisioners describe them. A source is a command, imported when it runs."""

from __future__ import annotations

import click

from wwfast.cli.groups import AliasGroup

#: Commands that are no table of nodes: name -> (module:object, summary).
WHOLE = {"warewulf": ("wwfast.cli.imports.warewulf:warewulf", "Take over the files of a Warewulf 4.")}


@click.group("import", cls=AliasGroup, epilog="Example: wwfast import --help")
def import_() -> None:
    """Take nodes over from another provisioner."""


for name, (where, summary) in WHOLE.items():
    import_.add_lazy(name, where, summary)
