"""Loaded by every Python that a test starts: the first import of uvloop there puts its loops under watch."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any

import loopwatch


class Finder:
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "uvloop":
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def loaded(module: Any) -> None:
                load(module)
                loopwatch.install(module, forgives=False)

            spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


if os.environ.get(loopwatch.FOLDER):
    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
