"""python -m wwfast.demo: as root one real machine boots before your eyes, otherwise simulated nodes do."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from wwfast.errors import WwfastError
from wwfast.system import signals


def main() -> int:
    console = Console(highlight=False)
    signals.take()  # a killed demo must end its machine and its server as well
    try:
        if os.geteuid() == 0:
            from wwfast.demo.real import run
        else:
            from wwfast.demo.simulated import run
        run(console)
    except WwfastError as error:
        console.print(f"[red]error:[/] {error.message}", markup=True)
        if error.hint:
            console.print(f"hint: {error.hint}", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has been stopped")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
