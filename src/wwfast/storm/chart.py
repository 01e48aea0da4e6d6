"""Completion curves as a PNG (Pillow): how many nodes are through, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wwfast.errors import WwfastError

WIDTH, HEIGHT = 1000, 560
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 50, 90
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")


def curves(series: Mapping[str, Sequence[float]], path: Path, title: str) -> None:
    """Draw one curve per entry: the share of its values (seconds, in any order) that are past, over time."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise WwfastError("Pillow is not installed, so no chart can be drawn", hint="pip install pillow") from error
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    big, small = ImageFont.load_default(17), ImageFont.load_default(13)
    longest = max((max(values) for values in series.values() if values), default=1.0) or 1.0
    step = grid(longest)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(seconds: float) -> float:
        return LEFT + (right - LEFT) * seconds / longest

    def y(share: float) -> float:
        return bottom - (bottom - TOP) * share

    pen.text((LEFT, 16), title, "black", big)
    for quarter in range(5):
        pen.line((LEFT, y(quarter / 4), right, y(quarter / 4)), "#dddddd")
        pen.text((LEFT - 48, y(quarter / 4) - 8), f"{quarter * 25:3d} %", "black", small)
    at = 0.0
    while at <= longest:
        pen.line((x(at), TOP, x(at), bottom), "#eeeeee")
        pen.text((x(at) - 8, bottom + 6), f"{at:g} s", "black", small)
        at += step
    for index, (name, values) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        ordered = sorted(values)
        points = [(x(0.0), y(0.0))]
        for done, seconds in enumerate(ordered, 1):
            points += [(x(seconds), y((done - 1) / len(ordered))), (x(seconds), y(done / len(ordered)))]
        pen.line(points, colour, 2)
        column, row = index % 4, index // 4
        left, top = LEFT + column * 225, bottom + 34 + row * 22
        pen.rectangle((left, top + 3, left + 14, top + 13), fill=colour)
        pen.text((left + 20, top), name, "black", small)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def grid(longest: float) -> float:
    """A round step that gives five to twelve lines."""
    step = 1e-3
    while longest / step > 12:
        for factor in (2, 2.5, 2):
            step *= factor
            if longest / step <= 12:
                break
    return step
