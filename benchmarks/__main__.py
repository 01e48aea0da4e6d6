"""python -m benchmarks NAME [--quick] [--json FILE] [--chart FILE.png] | list"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from pathlib import Path

import benchmarks
from benchmarks._harness import Bench


def names() -> list[str]:
    return sorted(
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")
    )


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("list", "-h", "--help"):
        print(__doc__)
        for name in names():
            what = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").strip().splitlines()[0]
            print(f"  {name:<10} {what}")
        return
    name = sys.argv[1]
    if name not in names():
        sys.exit(f"no benchmark '{name}'; there are: {', '.join(names())}")
    module = importlib.import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=module.__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="smaller and fewer runs: shows that it works, not how fast"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--chart", type=Path, metavar="FILE.png", help="draw the rows that have a peer")
    if hasattr(module, "arguments"):
        module.arguments(parser)
    args = parser.parse_args(sys.argv[2:])

    from wwfast._ext import newc

    if newc.DEBUG:
        sys.exit("this is a debug build; build it with WWFAST_BUILD=release (the default) to measure it")
    bench = Bench(name, args)
    print(f"{name}: load before the run {bench.load:.2f}", flush=True)
    module.run(bench)
    print()
    print(bench.table())
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(bench.result(), indent=1) + "\n")
    if args.chart:
        from benchmarks._chart import draw

        draw(bench, args.chart)


main()
