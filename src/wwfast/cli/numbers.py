"""Numbers of the command line: digits 0 to 9 alone, where int() and float() also take blanks, `1_0`, `nan` and `４`."""

from __future__ import annotations

import re
from typing import Any

import click

WHOLE = re.compile(r"-?[0-9]{1,18}")
REAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]*)?")


class Whole(click.IntRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not WHOLE.fullmatch(value):
            self.fail(f"{value!r} is not a valid integer.", param, ctx)
        return super().convert(value, param, ctx)


class Real(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not REAL.fullmatch(value):
            self.fail(f"{value!r} is not a valid float.", param, ctx)
        return super().convert(value, param, ctx)
