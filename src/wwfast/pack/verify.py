"""Compare a built image with its digests and with its tree."""

from __future__ import annotations

import os
from pathlib import Path

from wwfast.archive.artefact import FORMATS
from wwfast.pack import manifest
from wwfast.pack.build import damaged
from wwfast.pack.engine import SEGMENT, chunks, explain, scan

SHOWN = 10


def verify(dest: Path, tree: Path | None = None, *, segment: float = SEGMENT) -> list[str]:
    """What is wrong with the build in `dest`, one line each; nothing when all of it is as published.

    Every byte of every format is read and compared with its digest. With `tree`, its files are read too: lines then
    say where the tree is no longer what was packed. Raises WwfastError when `dest` or `tree` cannot be read.
    """
    broken = damaged(dest, manifest.read(dest))
    return ([broken] if broken else []) + (differences(dest, tree, segment=segment) if tree is not None else [])


def differences(dest: Path, tree: Path, *, segment: float = SEGMENT) -> list[str]:
    """Where `tree` is no longer what was packed into `dest`, one line each; its files are read."""
    listed = manifest.read(dest)
    problems: list[str] = []
    walked = scan(
        tree,
        patterns=[os.fsencode(pattern) for pattern in listed.excludes],
        skip_dirs=frozenset(listed.skip_dirs),
        epoch=listed.epoch,
        segment=segment,
        newc=any(fmt in FORMATS for fmt in listed.formats),
    )
    built = {segment.key for segment in listed.segments}
    buffer = bytearray(1 << 20)
    differing = 0
    for number in range(walked.segments_count):
        try:
            if walked.large(number):
                for _ in chunks(walked, number):
                    pass
            else:
                if len(buffer) < walked.size(number):
                    buffer = bytearray(walked.size(number))
                walked.fill(number, buffer)
        except OSError as error:
            raise explain(error, tree) from error
        key = walked.key(number)
        assert key is not None
        if key.hex() not in built:
            differing += 1
            if differing <= SHOWN:
                names = walked.paths(number)
                problems.append(
                    f"the tree changed after the build: somewhere among {len(names)} entries, from "
                    f"{names[0].decode(errors='backslashreplace')} to {names[-1].decode(errors='backslashreplace')}"
                )
    if differing > SHOWN:
        problems.append(f"and {differing - SHOWN} more groups of entries")
    elif not differing and walked.segments_count != len(listed.segments) - 1:
        problems.append("files were removed from the tree after the build")
    return problems
