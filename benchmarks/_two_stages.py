"""A storm of nodes that boot in two stages: kernel and stage-1 by iPXE, then the image in pieces and the overlays."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._harness import Bench
from benchmarks._http_peers import fill, versions
from benchmarks.storm import KERNEL, RATE, WIRE, overlays, storm
from wwfast.storm.node import IPXE, STAGE1, Step

PIECE = 8 << 20
PIECES = 4
ARCHIVE = 10 << 20  # bytes of stage-1
STARTS = 4.0  # s from the last byte of stage-1 to its first request: a small machine under KVM


def steps() -> list[Step]:
    """What real stage-1 fetches two at a time, one after the other: that leaves more to the link's other users."""
    spans = [f"{at}-{at + PIECE - 1}" for at in range(0, PIECES * PIECE, PIECE)]
    by_stage1 = [Step(f"image {span}", "/image/{mac}", STAGE1, span=span) for span in spans]
    by_stage1 += [Step(name, f"/{name}/{{mac}}", STAGE1) for name in ("system", "runtime")]
    by_ipxe = [Step(name, f"/{name}/{{mac}}", IPXE) for name in ("ipxe", "kernel", "stage1")]
    return [*by_ipxe, by_stage1[0]._replace(pause=STARTS), *by_stage1[1:]]


def run(bench: Bench) -> None:
    """Rows 5-storm and 5-lost."""
    versions()
    count = 40 if bench.quick else 500
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="wwbench-") as name:
        tree = Path(name)
        for file, size in (("kernel", KERNEL), ("stage1", ARCHIVE), ("image", PIECES * PIECE)):
            fill(tree / file, size)
        overlays(tree, count)
        played = storm(tree, "ours", count, steps())
    first, image = ((size * WIRE * 8) / RATE for size in (KERNEL + ARCHIVE, PIECES * PIECE))
    ends = [max((first + image) * place, first + STARTS + image * place) for place in range(1, count + 1)]
    bench.record(
        "5-storm", f"{count} nodes of two stages, 44 MiB each: mean to full set", played.mean,
        theirs=sum(ends) / count, peer="floor: bytes/link, and the start of the kernel", target="<= 1.10 x",
    )  # fmt: skip
    bench.record("5-lost", "nodes lost", float(played.lost), unit="nodes", target="0")
    bench.note(f"last {played.last:.1f} s (floor {ends[-1]:.1f}); {played.told_to_wait} x 503; {played.failures[:3]}")
