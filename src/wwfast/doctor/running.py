"""What does not work in the server that runs: it goes on as well as it can, and tells."""

from __future__ import annotations

from collections.abc import Iterator

from wwfast.doctor.finding import ERROR, Finding, Scene


def service(scene: Scene) -> Iterator[Finding]:
    troubles = scene.running.get("troubles")
    for name, trouble in troubles.items() if isinstance(troubles, dict) else ():
        message = f"the running server: {name} fails ({trouble['count']} times): {trouble['error']}"
        yield Finding(ERROR, "service", message, "journalctl -u wwfast")
    if error := scene.running.get("registry error"):
        message = f"the running server goes on with the last good nodes.conf: {error}"
        yield Finding(ERROR, "service", message, "wwfast node edit")
