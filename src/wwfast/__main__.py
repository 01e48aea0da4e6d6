"""python -m wwfast: the command."""

from wwfast.cli.main import main

main()
