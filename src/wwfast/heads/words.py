"""What heads say to each other beside manifests and files: closed forms, as JSON."""

# No `from __future__ import annotations`: msgspec reads the annotations of these classes when they are made.

import struct

import msgspec

from wwfast.heads.closings import Closed
from wwfast.heads.manifest import FORMAT

ROOT = "/heads"  # paths of all of it
PARTS = 1000  # of overlays by one request
CONTENT = 16  # bytes of a part's name
PART = struct.Struct("<IQ")  # before a part: bytes of its frame, and of what is in it


class Report(msgspec.Struct, frozen=True):
    """Of who follows: what it serves, how many bytes are still to come, what is wrong with it."""

    format: int = FORMAT
    version: str = ""
    name: str = ""
    revision: str = ""
    missing: int = 0
    said: str = ""
    closed: list[Closed] = []
    heard: int = 0  # the last of the other head's closings that arrived


class Answer(msgspec.Struct, frozen=True):
    """Of who is followed."""

    format: int
    version: str
    revision: str
    closed: list[Closed]
    last: int  # the number of the last of these
