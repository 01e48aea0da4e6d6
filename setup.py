"""The native extensions: one per `src/wwfast/_ext/*.pyx`; everything else is in pyproject.toml.

WWFAST_BUILD=release (default) | debug (assertions, line tracing of errors; benchmarks refuse it).
libxxhash and libyaml are linked by their stable sonames, so no -dev package is needed.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

EXT = Path("src/wwfast/_ext")
BUILD = os.environ.get("WWFAST_BUILD", "release")
LINK = {"tree": ["-l:libxxhash.so.0"], "yamlevents": ["-l:libyaml-0.so.2"]}
CFLAGS = {"release": ["-O3", "-DNDEBUG"], "debug": ["-O0", "-g", "-DWWFAST_DEBUG"]}[BUILD]

extensions = [
    Extension(
        f"wwfast._ext.{source.stem}",
        [str(source), *sorted(str(c) for c in EXT.glob(f"c_{source.stem}*.c"))],
        extra_compile_args=[*CFLAGS, "-Wno-unused-function", "-Wno-sign-compare"],
        extra_link_args=["-pthread", *LINK.get(source.stem, [])],
        depends=[str(d) for d in EXT.glob("*.pxd")] + [str(d) for d in EXT.glob("*.h")],
    )
    for source in sorted(EXT.glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        language_level=3,
        compiler_directives={
            "boundscheck": BUILD == "debug",
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "binding": True,
        },
        nthreads=os.cpu_count() or 1,
    )
)
