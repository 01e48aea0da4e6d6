"""Templates that try to get out: everything they can reach is data, and no way leads to a file or to Python.

The walk starts at every name of every context, and takes every step that a template can take: attributes, items,
iteration, methods. What it meets must be data or one of the listed callables. The payloads are made from classes of
escapes times objects to start from; none may create a file, and none may print a secret.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jinja2 import Undefined
from jinja2.runtime import Context, LoopContext, Macro

from support.escapes import SECRET, tempting
from support.overlays import Site
from support.scripts import render
from wwfast._ext.attributes import Method, Place, View
from wwfast.boot.loader.script import Scripts
from wwfast.config.settings import Conf, Settings, load
from wwfast.errors import WwfastError
from wwfast.nodes import model
from wwfast.overlays.files.images import Images
from wwfast.overlays.files.model import find
from wwfast.overlays.templates import data, environment, sandbox
from wwfast.overlays.templates.render import Template
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths

SCALARS = (str, int, float, bool, type(None))
# What a template may call, by where it comes from; everything else that is callable is a hole.
FUNCTIONS = {
    "include", "include_from", "include_block", "readlink", "import_link", "softlink", "file", "nobackup", "abort",
    "ignition_json", "unique_field", "systemd_escape", "systemd_escape_path", "basename", "dirname", "range", "dict",
    "namespace",
}  # fmt: skip


@pytest.fixture
def site(paths: Paths) -> Site:
    return tempting(paths)


# -- what can be reached ---------------------------------------------------------------------------------------------


KINDS = (*SCALARS, dict, list, tuple, msgspec.Struct, View, Place, LoopContext, Macro)


class Walk:
    """Every object that a template of `env` can reach, by the steps a template can take."""

    def __init__(self, env: sandbox.Sandbox, functions: set[str]) -> None:
        self.env = env
        self.functions = [env.globals[name] for name in functions]
        self.seen: set[int] = set()
        self.kept: list[Any] = []  # so that ids stay theirs
        self.kinds: set[type] = set()

    def look(self, value: Any, path: str) -> None:
        if id(value) in self.seen or isinstance(value, Undefined):
            return
        self.seen.add(id(value))
        self.kept.append(value)
        self.kinds.add(type(value))
        if callable(value) and any(value is function for function in self.functions):
            self.steps(value, path)
            return
        assert isinstance(value, KINDS), (path, value)
        self.steps(value, path)
        if isinstance(value, dict):
            for key, item in value.items():
                self.look(key, f"{path} key")
                self.look(item, f"{path}[{key!r}]")
        elif isinstance(value, list | tuple):
            for at, item in enumerate(value):
                self.look(item, f"{path}[{at}]")

    def steps(self, value: Any, path: str) -> None:
        """Attributes, by every name that Python knows of the object and by those that escapes need."""
        for name in {*dir(value), *DUNDERS, *dir(Path), *dir(type)}:
            for step in (self.env.getattr, self.env.getitem):
                found = step(value, name)
                if isinstance(found, Undefined):
                    continue
                assert not name.startswith("_"), (path, name)
                if callable(found) and not isinstance(found, Macro | LoopContext | Method):
                    owner = getattr(getattr(found, "__wrapped__", found), "__self__", None)
                    assert isinstance(owner, str | dict | list | tuple | LoopContext), (path, name, found)
                elif not isinstance(found, Method):
                    self.look(found, f"{path}.{name}")


DUNDERS = (
    "__class__", "__mro__", "__base__", "__subclasses__", "__globals__", "__builtins__", "__init__", "__dict__",
    "__code__", "__closure__", "__func__", "__self__", "__module__", "__reduce_ex__", "__getattribute__", "__call__",
    "__wrapped__", "__loader__", "__struct_fields__", "__context__", "__traceback__", "mro", "gi_frame", "gi_code",
    "f_globals", "f_back", "cr_frame", "ag_frame", "func_globals", "im_func", "tb_frame", "co_consts", "_environment",
    "environment", "_func", "_undefined_obj", "_undefined_exception", "_iterator", "_iterable", "_recurse",
    "_TemplateReference__context", "_Namespace__attrs", "locations", "written", "warnings", "is_written", "parent",
)  # fmt: skip


def looked_up(site: Site) -> tuple[data.Names, environment.Environment]:
    """The names of n1, and the environment of overlays."""
    conf = load(site.paths)
    images = Images(site.paths)
    images.get("none")  # imports what it needs
    env = environment.make(Sources(site.paths, tuple(conf.wwfast.include), images.rootfs))
    names = data.Names(
        env.globals, env.reader, data.Server(conf.conf), data.Cluster(dict(site.snapshot.nodes), lambda image: "")
    )
    names.begin(site.node())
    return names, env


def contexts(site: Site) -> Iterator[tuple[str, dict[str, Any], sandbox.Sandbox]]:
    """Every context a template is run in, by name: overlays (of all kinds alike) and iPXE."""
    names, env = looked_up(site)
    known = [*data.FIELDS, *data.ALIASES, *data.SERVER, "settings", "build_host", "build_time", "build_time_unix"]
    every = {name: names.lookup.within({})(name) for name in [*known, *env.globals, "this_node", "all_nodes"]}
    yield "overlay", {**every, "overlay": "o", "build_source": "/o/file.j2"}, env
    node = site.node()
    ipxe = {
        "id": node.id, "tags": node.tags, "network_devices": node.network_devices, "stages": ["image"], "wait": 30,
        "message": ["no luck"], "kernel_args": "quiet", "root": "", "place": 0,
    }  # fmt: skip
    yield "ipxe", ipxe, Scripts(site.paths).writer.sandbox


def test_template_reaches_nothing_but_data(site: Site) -> None:
    for kind, names, env in contexts(site):
        functions = FUNCTIONS if kind == "overlay" else {"range", "dict", "namespace"}
        assert set(env.globals) == functions, "a new function needs a look at what it opens"
        walk = Walk(env, functions)
        for name, value in names.items():
            walk.look(value, name)
        made = env.from_string(
            "{% macro m(a) %}{{ caller() if caller }}{% endmacro %}"
            "{% for x in [1, 2] %}{{ catch(loop) }}{{ catch(m) }}{{ catch(x) }}{% endfor %}"
            "{{ catch(dict(a=1)) }}{{ catch(range(2) | list) }}{{ catch([1] | groupby('a') | list if 0 else []) }}"
            "{{ catch('a' | escape) }}{{ catch({'a': 1} | dictsort) }}{{ catch([{'a': 1}] | groupby('a')) }}"
        )
        caught: list[Any] = []

        def catch(value: Any, caught: list[Any] = caught, walk: Walk = walk) -> str:
            walk.look(value, "made")
            caught.append(value)
            return ""

        env.called |= {id(catch)}
        "".join(made.root_render_func(Context(env, {**env.globals, "catch": catch}, "t", made.blocks)))
        assert len(caught) > 8
        space = env.from_string("{% set s = namespace(a=1) %}").make_module().s  # type: ignore[attr-defined]
        for name in {*dir(space), *DUNDERS}:
            assert isinstance(env.getattr(space, name), Undefined | int), name


def test_template_filters_and_tests_are_jinjas_or_pure() -> None:
    """A filter is a way in, too: what is added beyond Jinja2's takes and gives data."""
    env = sandbox.Sandbox({})
    modules = {function.__module__.partition(".")[0] for function in (*env.filters.values(), *env.tests.values())}
    assert modules <= {"wwfast", "jinja2", "markupsafe", "_operator", "builtins"}


def test_template_fields_are_declared_as_data() -> None:
    """By construction: whoever adds a field that is no data to what templates see, hears of it here."""

    def check(hint: Any, path: str) -> None:
        info = msgspec.inspect.type_info(hint) if isinstance(hint, type) else hint
        allowed = (
            msgspec.inspect.StrType, msgspec.inspect.IntType, msgspec.inspect.BoolType, msgspec.inspect.NoneType,
            msgspec.inspect.AnyType,
        )  # fmt: skip
        if isinstance(info, msgspec.inspect.StructType):
            for field in info.fields:
                check(field.type, f"{path}.{field.name}")
        elif isinstance(info, msgspec.inspect.ListType):
            check(info.item_type, f"{path}[]")
        elif isinstance(info, msgspec.inspect.DictType):
            check(info.value_type, f"{path}{{}}")
        elif isinstance(info, msgspec.inspect.UnionType):
            for each in info.types:
                check(each, path)
        elif isinstance(info, msgspec.inspect.Metadata):
            check(info.type, path)
        else:
            assert isinstance(info, allowed), (path, info)

    check(Conf, "settings")
    check(model.Node, "node")
    assert set(Settings.__struct_fields__) - set(Conf.__struct_fields__) == {"locations", "written", "warnings"}


# -- ways out --------------------------------------------------------------------------------------------------------

STARTS = (
    "''", "id", "tags", "this_node", "settings", "settings.paths", "kernel.args", "network_devices", "all_nodes", "1",
    "include", "file", "range", "dict", "namespace", "self", "ignition_json", "loop", "m", "ns", "none", "nothing",
    "(1,2)", "tags.items", "'x'.upper", "'{}'.format", "tags.values()", "kernel.args | map('upper')", "'x' | escape",
    "[{'a': 1}] | groupby('a') | first", "caller", "cycler", "joiner", "lipsum", "ipmi", "warewulf",
)  # fmt: skip
STEPS = (
    ".__class__.__mro__", "['__class__']", "|attr('__class__')", "|attr('__cla' ~ 'ss__')", ".__init__.__globals__",
    ".__globals__['os']", ".__subclasses__()", ".gi_frame.f_globals", "._TemplateReference__context", ".__dict__",
    ".__self__", ".__func__.__code__", "['__init__']['__globals__']", ".locations.root", ".mro()", ".__call__.__self__",
)  # fmt: skip
PREPARED = (
    "{% set ns = namespace(a=1) %}{% macro m() %}{{ caller }}{% endmacro %}{% for loop_ in [1] %}",
    "{% endfor %}",
)
FORMATS = (
    "'{0.__class__}'.format(X)", "'{0[__class__]}'.format(X)", "'{x.__init__}'.format(x=X)",
    "'{0.__class__.__mro__}'.format_map({'0': X})", "('{0.__cla' ~ 'ss__}').format(X)",
    "'{0.__class__}' | attr('format') and ('{0.__class__}' | attr('format'))(X)", "'{0.__class__}'['format'](X)",
    "('{0.__class__}' | escape).format(X)", "(['{0.__class__}'] | map('attr', 'format') | first)(X)",
)  # fmt: skip
FILTERS = (
    "[X] | map(attribute='__class__') | list | first | string", "[X] | map(attribute='__class__.__mro__') | list",
    "[X] | map('attr', '__class__') | map('string') | list", "[X] | sort(attribute='__class__.x')",
    "[X] | sum(attribute='__class__', start=1)", "[X] | selectattr('__class__') | list | first",
    "[X] | groupby('__class__') | map('first') | map('string') | list",
    "[X] | unique(attribute='__class__.x') | list", "[X] | max(attribute='__class__') | attr('__class__') | string",
    "[X] | map('include') | list", "[X] | map('__import__') | list", "X | nosuchfilter",
)  # fmt: skip
PATHS = (
    "/etc/shadow", "../shadow", "/etc/warewulf/../shadow", "up", "absolute", "proc", "root/secret", "root/etc/shadow",
    "/proc/self/environ", "/proc/self/root/secret", "//etc//shadow", "./../shadow", "note/../../shadow", "/secret",
    "/etc/passwd/../shadow", "/dev/stdin",
)  # fmt: skip
READERS = (
    "include('P')",
    "include_block('P', 'none')",
    "readlink('P')",
    "import_link('P')",
    "include_from('../..', 'P')",
)
WRITES = (
    "settings.locations.root.joinpath('made').write_text('x')", "settings.locations.etc.joinpath('made').touch()",
    "settings.locations.root.joinpath('secret').read_text()", "settings.locations.conf.unlink()",
    "settings['locations']['root']", "settings | attr('locations')", "settings.warnings", "settings.written",
    "settings.is_written('x')", "settings.conf", "file('../../made')", "file('/../made')", "file('..')",
    "file('/')", "tags.update({'a': '2'})", "kernel.args.append('x')", "tags.clear()", "tags.__setitem__('a', 'b')",
    "kernel.args.sort()", "tags.setdefault('x', 'y')", "dict.fromkeys([1])", "range(10 ** 9)", "'x'.encode()",
    "namespace.__init__", "os.system('touch made')", "open('made', 'w')", "__import__('os')", "get_flashed_messages()",
    "request", "config", "environ", "ns.__class__", "ns.__init__", "loop.__class__", "m.__class__", "m._func",
    "m.__globals__", "(m | attr('_func'))()",
)  # fmt: skip
BLOCKS = (
    "{% include 'note' %}", "{% include '../shadow' %}", "{% import 'note' as x %}", "{% from 'note' import x %}",
    "{% extends 'note' %}", "{% include ['a', 'b'] ignore missing %}", "{% set tags.a = 'x' %}",
    "{% set this_node.id = 1 %}",
    "{% debug %}", "{% set ns.__class__ = 1 %}{{ ns.__class__ }}", "{% trans %}x{% endtrans %}",
    "{% for x in [].__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{% with a = ''.__class__ %}{{ a.mro() }}{% endwith %}",
    "{% macro q(a=''.__class__) %}{{ a }}{% endmacro %}{{ q() }}",
    "{% call(x) m() %}{{ x.__class__ }}{% endcall %}{{ m.__class__ }}",
    "{% filter attr('__class__') %}x{% endfilter %}",
    "{% set x %}{{ ''.__class__ }}{% endset %}",
    "{% if ''.__class__ %}open{% endif %}",
)  # fmt: skip


def payloads() -> list[str]:
    def shown(expression: str) -> str:
        return f"{PREPARED[0]}{{{{ {expression} }}}}{PREPARED[1]}"

    made = [shown(f"({start}){step}") for start in STARTS for step in STEPS]
    made += [shown(each.replace("X", start)) for start in STARTS[:10] for each in (*FORMATS, *FILTERS)]
    made += [shown(reader.replace("P", path)) for path in PATHS for reader in READERS]
    made += [shown(each) for each in WRITES]
    return made + [f"{{% set ns = namespace(a=1) %}}{{% macro m() %}}{{% endmacro %}}{block}" for block in BLOCKS]


# These name no secret and open nothing: what they give is said here, everything else is refused.
HARMLESS = ("readlink", "include_from", "include_block")


def tree(root: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for folder, _, files in os.walk(root):
        for file in files:
            path = Path(folder) / file
            st = path.lstat()
            found[str(path)] = (
                st.st_mode,
                st.st_size,
                path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
            )
    return found


Run = Callable[[str], str]
Watched: list[tuple[str, str]] | None = None


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    """What a payload does to files and processes, printed or not; hooks stay for ever, so this one is mostly off."""
    if Watched is not None and event.startswith(("open", "os.", "subprocess.", "socket.", "shutil.", "import")):
        Watched.append((event, str(arguments[0]) if arguments else ""))


@contextmanager
def watching() -> Iterator[list[tuple[str, str]]]:
    global Watched
    Watched = found = []
    try:
        yield found
    finally:
        Watched = None


sys.addaudithook(listen)


def overlays(site: Site, sources: list[str]) -> Run:
    """As the service renders, without building: the text, names of outputs included."""
    for at, source in enumerate(sources):
        site.put("o", f"{at}.j2", source)
    names, env = looked_up(site)
    items = {item.path: item for item in find(site.paths, "o").items()}

    def run(source: str) -> str:
        template = Template(env, "o", items[f"{sources.index(source)}.j2"])
        with watching() as found:
            try:
                return "".join(f"{it.path}\n{it.content.decode()}" for it in template.run(names, "n1"))
            finally:
                allowed = (str(site.paths.etc), *(str(site.paths.root / path) for path in ("etc/passwd", "etc/hosts")))
                assert [each for each in found if not each[1].startswith(allowed) and not each[1].isdigit()] == []

    return run


def scripts(site: Site, sources: list[str]) -> Run:
    (names,) = [names for kind, names, _ in contexts(site) if kind == "ipxe"]
    place = site.paths.etc / "ipxe"
    place.mkdir()
    for at, source in enumerate(sources):
        (place / f"{at}.ipxe.j2").write_text(source)
    made = Scripts(site.paths)

    def run(source: str) -> str:
        with watching() as found:
            try:
                return render(made, str(sources.index(source)), names)
            finally:
                assert [each for each in found if not each[1].startswith(str(place))] == []

    return run


@pytest.mark.parametrize("kind", [overlays, scripts])
def test_template_payloads_are_refused(site: Site, kind: Callable[[Site, list[str]], Run]) -> None:
    tried = sorted(set(payloads()))
    assert len(tried) >= 200
    run = kind(site, tried)
    before = tree(site.paths.root)
    opened: list[tuple[str, str]] = []
    for source in tried:
        try:
            text = run(source)
        except WwfastError as error:
            text = error.message.partition("\n")[0]
            assert "hunter2" not in text, source
        else:
            opened.append((source, text))
        for word in (SECRET, "<class", "<function", "<slot", "<bound"):
            assert word not in text, source
    assert tree(site.paths.root) == before
    assert not (Path.cwd() / "made").exists()
    assert [each for each in opened if not any(word in each[0] for word in HARMLESS)] == []
