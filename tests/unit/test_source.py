"""House rules a machine can check: which folder may import which, where sockets and subprocesses live."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from wwfast.paths import SHARE

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src/wwfast"

# folder -> folders it may import, beside its own and the common ground below.
COMMON = {"errors", "paths", "system", "_ext"}
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "_ext": set(),
    "errors": set(),
    "paths": set(),
    "system": set(),
    "config": set(),
    "nodes": {"config"},
    "archive": {"config"},
    "pack": {"archive"},
    "images": {"pack", "archive", "config", "nodes"},
    "overlays": {"images", "pack", "archive", "config", "nodes"},
    "bmc": {"config", "nodes"},
    "net": {"archive", "config", "nodes"},
    "boot": {"overlays", "images", "pack", "archive", "config", "nodes"},
}
ALLOWED["racks"] = ALLOWED["boot"] | {"boot"}
ALLOWED["heads"] = ALLOWED["racks"] | {"racks", "net"}
ALLOWED["doctor"] = ALLOWED["heads"] | {"heads"}
ALLOWED["daemon"] = ALLOWED["doctor"] | {"doctor"}
ALLOWED["storm"] = {"net", "config"}
ALLOWED["demo"] = {"storm", "boot", "net", "config"}
ALLOWED["api"] = ALLOWED["boot"] | {"boot", "net", "bmc"}
ALLOWED["cli"] = ALLOWED.keys() - {"__init__"}  # it may ask them all
ALLOWED["__main__"] = {"cli"}

# The folders inside a folder, lowest first: each may import those before it.
INSIDE = {
    "nodes": ["text", "edit", "foreign"],
    "images": ["kernels", "stage1", "sources", "inside"],
    "overlays": ["files", "templates", "making"],
    "boot": ["loader"],
    "daemon": ["traffic", "life", "state", "boot"],
    "cli": ["nodes", "bmc", "images", "overlays", "server", "imports"],
}
MOST = 12  # files of a folder: what one still sees at a glance
FLAT = {"_ext": 16}  # each an extension of its own, which has to lie there
LONGEST = {".py": 500, ".pyx": 600}  # lines of a module
TALLEST = 60  # lines of a function


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py")) + sorted(SRC.rglob("*.pyx"))


def imports(path: Path) -> set[str]:
    """Names of modules, and of what is taken from them (`wwfast.a.b` for `from wwfast.a import b`), wherever."""
    if path.suffix == ".pyx":
        words = [
            line.split() for line in path.read_text().splitlines() if line.startswith(("import ", "from ", "cimport "))
        ]
        return {line[1] for line in words}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name(path: Path) -> str:
    return ".".join(path.relative_to(SRC.parent).with_suffix("").parts).removesuffix(".__init__")


@cache
def graph() -> dict[str, set[str]]:
    """Every module and those of ours it imports, at the top, in a function or for types alone."""
    ours = {name(path): path for path in modules()}
    return {mine: {other for other in imports(path) if other in ours} for mine, path in ours.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring; empty when there are none."""
    done: set[str] = set()
    trail: list[str] = []

    def visit(module: str) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        trail.append(module)
        found = next((ring for other in sorted(graph[module]) if (ring := visit(other))), [])
        trail.pop()
        done.add(module)
        return found

    return next((ring for module in sorted(graph) if (ring := visit(module))), [])


SYSTEM = {"OSError", "URLError", "PermissionError", "FileNotFoundError", "ConnectionError", "TimeoutError"}


def verbatim(handler: ast.ExceptHandler) -> list[int]:
    """Lines where what was caught stands in a text as Python says it."""
    caught = list(ast.walk(handler.type)) if handler.type is not None else []
    names = {each.id for each in caught if isinstance(each, ast.Name)}
    names |= {each.attr for each in caught if isinstance(each, ast.Attribute)}
    if handler.name is None or not names & SYSTEM:
        return []
    said = (each.value for each in ast.walk(handler) if isinstance(each, ast.FormattedValue))
    return [each.lineno for each in said if isinstance(each, ast.Name) and each.id == handler.name]


def test_no_message_has_a_number_of_the_system_for_a_cause() -> None:
    """`[Errno 111]` is for programs: `errors.cause` has the words."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        handlers = (each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.ExceptHandler))
        found += [f"{path.relative_to(SRC)}:{line}" for handler in handlers for line in verbatim(handler)]
    assert found == []


def test_extensions_have_constants_that_c_knows() -> None:
    assert [path.name for path in modules() if path.suffix == ".pyx" and "\nDEF " in path.read_text()] == []


SOCKETS = ("server.py", "wire.py")


def folder(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_downwards(path: Path) -> None:
    mine = folder(path)
    ours = {it.split(".")[1] for it in imports(path) if it.startswith("wwfast.")}
    assert ours - {mine, "__version__"} <= ALLOWED[mine] | (COMMON if mine not in ("_ext", "errors") else set())


@pytest.mark.parametrize("top", INSIDE)
def test_imports_point_downwards_inside_a_folder(top: str) -> None:
    order = {f"wwfast.{top}.{room}": height for height, room in enumerate(INSIDE[top])}
    assert {it.parent.name for it in (SRC / top).glob("*/__init__.py")} == set(INSIDE[top])
    heights = {module: order[room] for module in graph() if (room := ".".join(module.split(".")[:3])) in order}
    upwards = [
        f"{mine} imports {other}"
        for mine in heights
        for other in graph()[mine]
        if other in heights and heights[other] > heights[mine]
    ]
    assert not upwards


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]  # it would be found
    assert circle(graph()) == []


def test_folders_are_no_crowds() -> None:
    sizes = Counter(path.parent for path in modules() if path.name != "__init__.py")
    named = {str(folder.relative_to(SRC)): size for folder, size in sizes.items()}
    assert not {name: size for name, size in named.items() if size > FLAT.get(name, MOST)}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SRC)))
def test_rooms_for_sockets_subprocesses_yaml_and_click(path: Path) -> None:
    names = {name.split(".")[0] for name in imports(path)}
    room = folder(path)
    if (
        room in ("doctor", "net", "boot", "overlays", "images", "pack", "archive", "nodes", "config")
        and path.name not in SOCKETS
    ):
        assert not names & {"asyncio", "socket", "uvloop"}, (
            "only net/*/server.py and wire.py, daemon and storm touch the event loop"
        )
    if path != SRC / "system/run.py":
        assert "subprocess" not in names, "subprocesses start in system/run.py"
    if path != SRC / "system/libc.py":
        assert "ctypes" not in names, "libc is called in system/libc.py"
    if room not in ("cli", "demo"):
        assert "click" not in names, "click stays in cli"
    if room not in ("config",):
        assert "yaml" not in names, "one YAML helper: wwfast.config.yaml"


CALLED_BY_LIBRARIES = {"enqueue", "format_commands"}  # of logging, of click
CALLED_BY_LIBRARIES |= {"do_GET", "do_POST", "log_message", "handle_error", "verify_request"}  # of http.server


def test_what_is_shipped_has_no_links() -> None:
    """A wheel leaves them out, and so does a copy: a template with `softlink` makes one on the node."""
    assert not [path for path in SHARE.rglob("*") if path.is_symlink()]


def test_no_function_is_there_for_tests_alone() -> None:
    words = Counter(word for path in modules() for word in re.findall(r"\w+", path.read_text()))
    defined = Counter(
        node.name
        for path in modules()
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list
    )
    unused = {name for name, places in defined.items() if words[name] == places and not name.startswith("__")}
    assert unused == CALLED_BY_LIBRARIES


def test_modules_and_functions_are_no_longer_than_one_reads() -> None:
    long: list[str] = []
    for path in modules():
        text = path.read_text()
        lines = text.count("\n")
        long += [f"{path.relative_to(SRC)}: {lines} lines"] if lines > LONGEST[path.suffix] else []
        for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                tall = node.end_lineno - node.lineno + 1
                long += [f"{path.relative_to(SRC)}:{node.lineno} {node.name}: {tall} lines"] if tall > TALLEST else []
    assert not long
