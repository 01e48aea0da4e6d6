"""A bar chart of a benchmark's rows: ours against the peer, each pair scaled to the longer of the two."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks._harness import Bench, commit, number

WIDTH, LEFT, RIGHT, PAIR, TOP = 1200, 420, 200, 58, 70
OURS, THEIRS, TEXT, PAPER = "#1f77b4", "#c7c7c7", "#222222", "#ffffff"


def draw(bench: Bench, path: Path) -> None:
    """Write a PNG; rows without a peer show one bar."""
    image = Image.new("RGB", (WIDTH, TOP + PAIR * len(bench.rows) + 20), PAPER)
    pen = ImageDraw.Draw(image)
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    pen.text((20, 15), f"wwfast benchmark '{bench.name}', {commit()}", TEXT, ImageFont.load_default(20))
    pen.text((20, 42), "blue: wwfast, grey: peer; bars of a pair share one scale", TEXT, small)
    for index, row in enumerate(bench.rows):
        top = TOP + PAIR * index
        longest = max(row.ours, row.theirs or 0) or 1
        pen.text((20, top + 4), row.id, TEXT, font)
        pen.text((20, top + 24), row.name[:58], TEXT, small)
        for offset, value, colour, who in ((4, row.ours, OURS, "wwfast"), (26, row.theirs, THEIRS, row.peer or "")):
            if value is not None:
                end = LEFT + round((WIDTH - LEFT - RIGHT) * value / longest)
                pen.rectangle((LEFT, top + offset, max(end, LEFT + 1), top + offset + 18), fill=colour)
                pen.text((end + 8, top + offset + 1), f"{number(value)} {row.unit}  {who[:22]}", TEXT, small)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
