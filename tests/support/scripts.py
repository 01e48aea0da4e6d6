"""An iPXE script as a node gets it, without a worker: one of the site's goes through the same messages."""

from __future__ import annotations

from collections.abc import Mapping

from wwfast.boot.loader.script import Scripts
from wwfast.overlays.making.messages import Asked, Write, encode, questions

VARIABLES: dict[str, object] = {
    "id": "n1", "authority": "10.0.0.1:9873", "image_name": "debian", "image_build": "debian@1", "image_format": "zst",
    "image_arch": "amd64", "kernel_version": "6.1.0", "kernel_args": "quiet", "hwaddr": "52:54:00:00:00:01",
    "stages": ["image", "system"], "script_url": "http://10.0.0.1:9873/ipxe/x", "wait": 30, "place": 0, "eta": 0,
    "preload": True, "way": "in one stage", "lost": [],
}  # fmt: skip


def render(scripts: Scripts, name: str, variables: Mapping[str, object]) -> str:
    """Raises WwfastError."""
    made = scripts.script(name, variables)
    if isinstance(made, str):
        return made
    asked = questions.decode(encode(Asked([made], {})))
    assert isinstance(asked, Asked)
    [told] = asked.asks
    assert isinstance(told, Write)
    program = scripts.writer.compiled(told.path, told.source, "")
    return scripts.writer.run(program, told.variables, told.node)
