"""Whatever fails in a template, no value of the node is in what is said of it: status and console are for everybody."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.overlays import Site
from support.planner import Fresh
from support.scripts import render
from wwfast.boot.loader.script import Scripts
from wwfast.boot.plan import Ask
from wwfast.boot.stages import Stage
from wwfast.config.settings import load
from wwfast.errors import WwfastError
from wwfast.overlays.templates import environment
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths

SECRET = "Hunter-2!"
SPELLINGS = re.compile("hunter|2!|" + SECRET, re.I)
NODES = f"""\
nodes:
  n1:
    system overlay: [o]
    ipxe template: ours
    ipmi: {{password: {SECRET}}}
    tags: {{secret: {SECRET}}}
"""
# By hand: what computes, formats, names files, and asks for what is not there.
EXPRESSIONS = (
    "P + 1", "P * P", "1 // P", "-P", "P()", "P.nothing", "P[P]", "tags[P]", "settings[P]", "this_node[P]",
    "this_node | attr(P)", "namespace(a=1)[P]", "[1][P]", "(1).x[P]", "{}[P]", "nothing[P]", "{P: 1}[P ~ P]",
    "('{0.' ~ P ~ '}').format(id)", "('{' ~ P ~ '}').format(id)", "'{:x}'.format(P)", "'%d' | format(P)",
    "('%(' ~ P ~ ')s') | format(a=1)", "'a'.index(P)", "P.index('zz')", "P.join(1)", "'a'.split(P, P)", "range(P)",
    "dict(P)", "include('/' ~ P)", "include(P ~ '/../../x')", "include_block('/' ~ P, P)", "import_link(P)",
    "import_link('/' ~ P)", "readlink('/' ~ P)", "file('../' ~ P)", "file(P ~ '/')", "file(P ~ '\\0')",
    "softlink('\\0' ~ P)", "unique_field(P, P, P)", "systemd_escape(P, P)", "loop[P]", "P is divisibleby(2)",
    "P is sameas", "1 < P", "P is P", "[P, 1] | sort", "('a: [' ~ P) | from_yaml", "(P ~ ': {') | from_yaml",
    "('{' ~ P) | from_json", "'x' | regex_split('(' ~ P)", "'x' is match('(' ~ P)", "'x' is search('*' ~ P)",
    "[1] | map(P) | list", "[1] | select(P) | list", "[{}] | map(attribute=P) | list | string",
    "[{}] | groupby(P) | string", "{P: 1} | dictsort(by=P)",
)  # fmt: skip


def expressions(filters: dict[str, Any], tests: dict[str, Any], functions: dict[str, Any]) -> Iterator[str]:
    for name in sorted(filters):
        yield from (
            f"P | {name}",
            f"'x' | {name}(P)",
            f"1 | {name}(P, P)",
            f"[P] | {name}(x=P)",
            f"{{P: P}} | {name}(P)",
        )
    for name in sorted(set(tests) - {"in", "<", ">", "==", "!=", "<=", ">="}):
        yield from (f"P is {name}", f"P is {name}(P)", f"[P] is {name}(P, P)")
    for name in sorted(functions):
        yield from (f"{name}(P)", f"{name}(P, P, P, P)", f"{name}(1, P)", f"{name}.x(P)", f"{name}(x=P)")
    yield from EXPRESSIONS


def failure(run: Callable[[], object]) -> WwfastError | None:
    try:
        run()
    except WwfastError as error:
        return error
    return None


def test_template_errors_hold_no_value_of_the_node(paths: Paths) -> None:
    site = Site(paths, nodes=NODES)
    env = environment.make(Sources(paths, (), lambda name: None))
    tried = list(expressions(env.filters, env.tests, env.globals))
    for at, expression in enumerate(tried):
        site.put("o", f"{at}.j2", "\n{{ " + re.sub(r"\bP\b", "ipmi.password", expression) + " | string }}")
    failed = 0
    for at, expression in enumerate(tried):
        error = failure(lambda at=at: site.service.render(site.snapshot, site.node(), "o", f"{at}.j2"))
        if error is not None:
            failed += 1
            assert not SPELLINGS.search(f"{error.message} {error.hint} {error!r} {error.args}"), expression
            assert error.message.startswith(f"overlay o, {at}.j2"), expression
            assert error.__cause__ is None or error.__suppress_context__, "a traceback would quote it"
    assert failed > len(tried) / 3


def test_template_errors_name_the_filter_the_line_and_the_kind(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(paths, nodes=NODES)
    site.put("o", "etc/bmc.j2", "one\nmask {{ ipmi.password | prefixlen }}\n")
    with pytest.raises(WwfastError) as caught:
        site.ask()
    said = site.service.failures["n1", "system"]
    for word in ("overlay o, etc/bmc.j2, line 2, node n1", "filter prefixlen", "ValueError"):
        assert word in said.message
        assert word in caught.value.message
        assert word in caplog.text
    assert not SPELLINGS.search(caplog.text + said.message + str(said.hint))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_boot_script_errors_hold_no_value_and_never_escape(paths: Paths, expression: str) -> None:
    """The console of a node shows why it cannot boot, whoever stands before it."""
    (paths.etc / "ipxe").mkdir(parents=True)
    (paths.etc / "ipxe/ours.ipxe.j2").write_text("{{ " + re.sub(r"\bP\b", "tags.secret", expression) + " | string }}")
    error = failure(lambda: render(Scripts(paths), "ours", {"id": "n1", "tags": {"secret": SECRET}}))
    assert error is None or not SPELLINGS.search(f"{error.message} {error.hint}")


def test_boot_script_that_fails_tells_the_console_where(paths: Paths) -> None:
    site = Site(paths, nodes=NODES.replace("ipxe template: ours", "ipxe template: localdisk"))
    (paths.etc / "ipxe").mkdir()
    (paths.etc / "ipxe/localdisk.ipxe.j2").write_text("#!ipxe\n{{ tags.secret | netmask }}\n")
    plan = Fresh(paths, load(paths), site.service).plan(
        site.snapshot, site.node(), Stage.IPXE, Ask("52:54:00:00:00:01")
    )
    assert "localdisk.ipxe.j2:2, node n1: filter netmask" in (plan.text or "")
    assert not SPELLINGS.search(f"{plan.text} {plan.reason}")
