"""Names of images, kernels and builds: what is allowed, and the NAME@BUILD form that pins a build."""

from __future__ import annotations

import re

from wwfast.config import checks
from wwfast.errors import WwfastError

NAME = re.compile(r"[\w\-.:]+", re.ASCII)


def check(name: str, kind: str = "image") -> str:
    """Return `name`; raise WwfastError when it cannot be the name of a directory of ours."""
    if "@" in name and NAME.fullmatch(name.partition("@")[0]):
        raise WwfastError(f"{name} is a build, and the {kind} itself is wanted: {name.partition('@')[0]}")
    if not NAME.fullmatch(name) or name.startswith("."):
        raise WwfastError(
            f"{name!r} cannot be the name of an {kind}" if kind[0] in "aeiou" else f"{name!r} cannot name a {kind}",
            hint="letters, digits, '_', '-', '.' and ':' are allowed, and no '.' at the start",
        )
    return name


def fresh(name: str) -> str:
    """The name of an image that is to be made: one that nodes can name, which those of a Warewulf need not be."""
    if wrong := checks.name(check(name)):
        raise WwfastError(f"{wrong}, so no node could have this image")
    return name


def split(reference: str) -> tuple[str, str | None]:
    """`debian@20260102-030405` -> (`debian`, `20260102-030405`); without a build the second is None."""
    name, at, build = reference.partition("@")
    return name, build if at else None
