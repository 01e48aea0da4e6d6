"""Change one small thing of the code at a time and see whether a test notices: `make mutants` (MUTANTS=300 SEED=1).

A copy of src is changed, never src itself, and the tests of that file (TESTS) run against it; the first that fails
kills the mutant. What survives is printed as FILE:LINE, what was there -> what was tried; then the status is 1.
No mutants are what does nothing a test could see (EXPLAINED), and another value of a factor or of seconds that stand by
themselves: those are tuned, and the next one is as right.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCE = "src/wwfast"
HTTP = "tests/unit/test_http_*.py tests/property/test_http_fuzz.py tests/adversity/test_http_floods.py"
DHCP = "tests/unit/test_dhcp_*.py tests/property/test_dhcp_*.py tests/adversity/test_dhcp_leases_written.py"
DISK = "tests/adversity/test_writers_disk.py tests/unit/test_nodes_store.py tests/adversity/test_nodes_concurrency.py"
OVERLAYS = (
    "tests/unit/test_overlay_store.py tests/unit/test_overlay_service.py "
    "tests/adversity/test_overlay_disk.py tests/adversity/test_overlay_faults.py"
)
#: Files by the first pattern that they match, and the tests that are theirs.
TESTS = {
    "daemon/boot/guard.py": "tests/unit/test_daemon_guard.py tests/unit/test_follow_heads.py",
    "daemon/traffic/scheduler.py": "tests/unit/test_http_scheduler.py",
    "daemon/traffic/width.py": "tests/unit/test_http_scheduler.py",
    "net/http/server.py": "tests/interop/test_http_server.py " + HTTP,
    "net/http/message.py": "tests/unit/test_daemon_http.py " + HTTP,
    "net/http/*.py": HTTP,
    "net/dhcp/server.py": DHCP + " tests/interop/test_dhcp_tftp_clients.py",
    "net/dhcp/*.py": DHCP,
    "nodes/edit/store.py": DISK,
    "system/watch.py": "tests/unit/test_watch.py",
    "system/wal.py": "tests/unit/test_daemon_guard.py tests/unit/test_dhcp_leases.py "
    "tests/adversity/test_dhcp_leases_written.py",
    "system/settled.py": "tests/unit/test_settled.py tests/adversity/test_half_written.py",
    "system/work.py": "tests/unit/test_system_work.py " + DISK,
    "system/libc.py": "tests/unit/test_libc.py tests/interop/test_image_inside.py " + DISK,
    "system/files.py": "tests/unit/test_system_files.py " + DISK,
    "system/run.py": "tests/unit/test_system_run.py",
    "system/locks.py": "tests/unit/test_system_locks.py",
    "system/folders.py": "tests/unit/test_system_folders.py " + DISK,
    "system/within.py": "tests/unit/test_watch.py tests/property/test_system_within.py "
    "tests/unit/test_image_kernels.py",
    "system/*.py": DISK,
    "overlays/files/edit.py": "tests/unit/test_overlay_cli.py tests/adversity/test_overlay_disk.py",
    "overlays/making/store.py": OVERLAYS,
    "pack/cache.py": "tests/unit/test_pack_build.py tests/adversity/test_pack_faults.py tests/unit/test_pack_cache.py",
    "daemon/life/handover.py": "tests/interop/test_http_handover.py tests/adversity/test_server_replaced.py",
}
#: (file, what its line holds, what is tried): why nobody can tell.
EXPLAINED = {
    ("daemon/traffic/scheduler.py", "self._clocks.get(share, 0.0), min(busy)", "1.0"): "a byte of credit",
    ("daemon/traffic/scheduler.py", "self._clocks.get(share, 0.0) + size", "1.0"): "a byte of credit",
    ("daemon/traffic/scheduler.py", "sum(max(0.0, whole - ticket.sent)", "1.0"): "a byte of work",
    ("daemon/boot/guard.py", "self._seen.get(mac, float", "<"): "seen exactly so many seconds ago",
    ("overlays/making/store.py", "if self._arena >= 0 and", "1"): "0 is standard input",
    ("daemon/boot/guard.py", "self.clock() - phase.asked <= seconds", "<"): "asked exactly so many seconds ago",
    ("net/http/head.py", "if len(_heads) >= KEPT:", ">"): "a table of one more",
    ("net/http/head.py", "if len(_known) >= KNOWN:", ">"): "a table of one more",
    ("system/watch.py", "os.read(self._fd, 1 << 16)", "2"): "what did not fit is read next",
    ("system/watch.py", "os.read(self._fd, 1 << 16)", "17"): "what did not fit is read next",
    ("net/dhcp/pool.py", "BITS = 256", "257"): "tuned: the square root of 65,536, so that both levels cost the same",
    ("system/libc.py", "_prctl(_CAPBSET_READ, number, 0, 0, 0)", "1"): "an argument that the kernel does not look at",
    ("pack/cache.py", "if len(data) < HEAD.size:", "<="): "an index of no frames",
    ("daemon/traffic/scheduler.py", "held > HELD_AT_MOST", ">="): "held for exactly so long, and told a second later",
    ("net/http/serving.py", "self.clock() > end", ">="): "a turn of exactly so long",
    ("net/http/head.py", "end <= KEPT_BYTES", "<"): "a head of exactly so many bytes is read again",
    ("net/dhcp/server.py", "55: bytes((1, 3, 6, 54))", "2"): "who answers a probe need not answer all that it asks for",
    ("net/dhcp/server.py", "grow_send_buffer(sock)", "pass"): "room for bursts that no test of one machine fills",
    ("overlays/making/store.py", "self._sound[content, form] =", "pass"): "it is read and compared once more",
    ("system/watch.py", "self._known.get(name, (0, 0, 0))", "1"): "no inode is 0, so it counts as never watched",
    ("system/watch.py", "time.monotonic() >= self._next", ">"): "looked again a moment later",
    ("net/http/serving.py", "SAID = (20, 1)", "2"): "lines of the log a second",
    ("system/run.py", "if code < 0 else", "1"): "0 is no failure",
    ("system/settled.py", "return 0 <= time.time() - mtime_ns", "<"): "written in the very tick of the clock",
    ("net/dhcp/replies.py", "TEMPLATES if reservation", "> ("): "a table of one more",
    ("net/http/server.py", "socket.IPV6_V6ONLY, 1", "2"): "anything but 0 is yes",
    ("net/http/server.py", "socket.SO_REUSEADDR, 1", "2"): "anything but 0 is yes",
    ("net/http/server.py", "socket.SO_KEEPALIVE, 1", "2"): "anything but 0 is yes",
    ("net/http/server.py", "socket.TCP_NODELAY, 1", "2"): "anything but 0 is yes",
    ("net/http/server.py", "OPENERS = 4", "5"): "tuned: each more leaves one more for whom a dead server does not hold",
    ("net/http/server.py", "if not self._turn:", "bool(self._turn)"): "what is old is looked for more often",
    ("overlays/making/store.py", "self._arena, self._size = -1, 0", "1"): "set anew with the arena",
    ("system/wal.py", "LOG_BYTES = 4 << 20", "5"): "tuned: from 1 to 16 MiB, settle takes 52 to 76 ms at most",
    ("system/wal.py", "LOG_BYTES = 4 << 20", "21"): "tuned, see 5",
    ("pack/cache.py", "crc: Callable[[], int] = lambda: 0", "1"): "of zstd, of whose frames nobody reads this CRC",
    ("system/folders.py", "status.st_mode & 0o077 and", "64"): "what is private already is made so once more",
    ("net/dhcp/packet.py", "xid: int = 0", "1"): "every packet that is sent has one of its own",
    ("net/http/server.py", "await asyncio.sleep(0.005)", "1.005"): "looked again a moment later",
    ("daemon/traffic/width.py", "now - self._since < EPOCH", "<="): "an epoch of exactly 0.5 s, and one more tick",
}
COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
COMPUTED: dict[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*"}
SPOKEN = ("log.", "logging.", "raise ")  # what is said is not what is done
#: A mutant may rename the machine or forget its children: names and processes of its own, ended with it.
APART = ["unshare", "--uts", "--pid", "--mount-proc", "--fork", "--kill-child", "sh", "-c", '"$@"; exit $?', "sh"]
TIMEOUT = 300.0  # of all tests of one file; a mutant that hangs is noticed


class Mutant(NamedTuple):
    """Bytes [start, end) of a file give way to `text`."""

    file: Path
    line: int
    start: int
    end: int
    text: str

    def told(self) -> str:
        was = self.file.read_bytes()[self.start : self.end].decode()
        return f"{self.file.relative_to(ROOT)}:{self.line}: {' '.join(was.split())[:70]}  ->  {self.text[:70]}"


def tuned(value: ast.expr) -> bool:
    """Whether it is seconds or a factor, or some of them and nothing else; 0.0 is where something begins."""
    if isinstance(value, ast.Tuple):
        return all(tuned(each) for each in value.elts)
    if isinstance(value, ast.BinOp):
        return tuned(value.left) or tuned(value.right)
    return isinstance(value, ast.Constant) and isinstance(value.value, float) and value.value != 0


class Finder(ast.NodeVisitor):
    """All mutants of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.data = file.read_bytes()
        self.starts = [0]
        for line in self.data.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutant] = []
        self.visit(ast.parse(self.data))

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self.span(node)
        return self.data[start:end].decode()

    def add(self, node: ast.expr | ast.stmt, text: str) -> None:
        self.found.append(Mutant(self.file, node.lineno, *self.span(node), text))

    def between(self, left: ast.expr, right: ast.expr, text: str) -> None:
        """The operator between two operands; brackets around them stay."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.data[start:end].decode()
        sign = gap.strip(" ()\n\\")
        self.found.append(Mutant(self.file, left.lineno, start, end, gap.replace(sign, text, 1)))

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, sign, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self.between(left, right, COMPARED[type(sign)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, "or" if isinstance(node.op, ast.And) else "and")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in COMPUTED:
            self.between(node.left, node.right, COMPUTED[type(node.op)])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.add(node, f"bool({self.text(node.operand)})")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if node.col_offset or not tuned(node.value):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add(node, str(not node.value))
        elif isinstance(node.value, int | float):
            self.add(node, str(node.value + 1))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None and not tuned(node.value):
            self.visit(node.value)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in ("strict", "frozen") and not tuned(node.value):  # these are there to be never heard of
            self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        """Annotations do nothing."""

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body):
            self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Expr | ast.AugAssign | ast.Delete | ast.Assign | ast.Return) and node.col_offset:
            if self.text(node).startswith(SPOKEN) or isinstance(getattr(node, "value", None), ast.Constant):
                return
            names = isinstance(node, ast.Assign) and all(isinstance(each, ast.Name) for each in node.targets)
            if not names and not isinstance(node, ast.Return):
                self.add(node, "pass")
        if isinstance(node, ast.Raise):
            return
        super().generic_visit(node)


def explained(mutant: Mutant, lines: list[str]) -> bool:
    name, line = str(mutant.file.relative_to(ROOT / SOURCE)), lines[mutant.line - 1]
    return any(name == file and held in line and mutant.text.strip() == text for file, held, text in EXPLAINED)


def lot(seed: str, mutant: Mutant) -> float:
    """Of its own for each, so that other lines, tests and explanations leave the sample of a seed what it is."""
    data = mutant.file.read_bytes()
    begin, end = data.rfind(b"\n", 0, mutant.start) + 1, data.find(b"\n", mutant.end)
    place = f"{mutant.file.relative_to(ROOT)} {data[begin:end]!r} {mutant.start - begin}"
    return random.Random(f"{seed} {place} {mutant.text}").random()


def mutants() -> Iterator[tuple[Mutant, list[str]]]:
    done: set[Path] = set()
    for pattern, tests in TESTS.items():
        files = sorted(str(test.relative_to(ROOT)) for each in tests.split() for test in ROOT.glob(each))
        changed = sorted((ROOT / SOURCE).glob(pattern))
        if not changed or len(files) < len(tests.split()):
            raise SystemExit(f"mutants: {pattern}: there is no such file, or one of {tests} is gone")
        for file in (file for file in changed if file not in done):
            done.add(file)
            lines = file.read_text().splitlines()
            for mutant in Finder(file).found:
                if not explained(mutant, lines):
                    yield mutant, files


def outcome(mutant: Mutant, tests: list[str], copy: Path) -> str:
    """What becomes of it: "killed", "survived", or "too slow", which is killed unless the machine was busy."""
    place = copy / mutant.file.relative_to(ROOT / "src")
    whole = mutant.file.read_bytes()
    place.write_bytes(whole[: mutant.start] + mutant.text.encode() + whole[mutant.end :])
    options = ["-x", "-q", "-m", "not soak and not vm", "-p", "no:cacheprovider", "--no-header"]
    rooms = {"PYTHONPATH": str(copy), "PYTEST_DEBUG_TEMPROOT": str(copy.parent)}
    environment = {**os.environ, **rooms, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*(APART if os.geteuid() == 0 else []), sys.executable, "-m", "pytest", *options, *tests]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
        try:
            return "killed" if run.wait(TIMEOUT) else "survived"
        except subprocess.TimeoutExpired:
            return "too slow"
        finally:
            if run.poll() is None:
                os.killpg(run.pid, 9)
            place.write_bytes(whole)


def run_all(chosen: list[tuple[Mutant, list[str]]], jobs: int, until: float) -> Counter[str]:
    """So many at a time, each in a copy of its own, until that time; survivors are printed as they come."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copies.put(Path(name) / str(number) / "src")
            shutil.copytree(
                ROOT / "src", Path(name) / str(number) / "src", ignore=shutil.ignore_patterns("__pycache__")
            )

        def one(mutant: Mutant, tests: list[str]) -> None:
            if time.monotonic() > until:
                return
            copy = copies.get()
            became = outcome(mutant, tests, copy)
            copies.put(copy)
            counts[became] += 1
            if became != "killed":
                print(f"{mutant.told()}  ({became}; {counts.total()} tried)", flush=True)

        for task in [pool.submit(one, mutant, tests) for mutant, tests in chosen]:
            task.result()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--only", default="", help="part of FILE:LINE:")
    given = parser.parse_args()
    every = [(mutant, tests) for mutant, tests in mutants() if given.only in mutant.told()]
    chosen = sorted(every, key=lambda each: lot(given.seed, each[0]))[: given.count]
    until = time.monotonic() + 60 * given.minutes
    counts = run_all(chosen, given.jobs, until)
    said = ", ".join(f"{counts[word]} {word}" for word in ("killed", "too slow", "survived"))
    print(f"{counts.total()} of {len(every)} mutants tried: {said}")
    return 1 if counts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
