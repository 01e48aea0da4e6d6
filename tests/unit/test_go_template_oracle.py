"""Go templates against what Go itself wrote: every function, the semantics, random templates and overlays of sites.

`tests/data/go/recorded.json` holds templates with the output of text/template and sprig (recorder/ beside it, Go
1.26.8, sprig 3.3.0) on the nodes of `nodes.conf`. Where Go fails, so must we; the words are ours.
"""

from __future__ import annotations

import datetime
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wwfast.config.settings import load
from wwfast.errors import ConfigError
from wwfast.nodes.registry import Registry
from wwfast.overlays.templates import environment
from wwfast.overlays.templates.data import Cluster, Names, Server
from wwfast.overlays.templates.environment import Environment
from wwfast.overlays.templates.go import render
from wwfast.overlays.templates.go.library import dates, site
from wwfast.overlays.templates.go.library.builtin import REFUSED, SPRIG
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths

DATA = Path(__file__).parents[1] / "data/go"
# The types of the recorder are in its package main.
TEXT = (
    (DATA / "recorded.json").read_text().replace("main.WWbool", "wwtype.WWbool").replace("main.NetDev", "node.NetDev")
)
CASES: list[dict[str, Any]] = json.loads(TEXT)
GROUPS = Counter(case["name"].split("-")[0] for case in CASES)


class Bench:
    """The nodes and files that the recorder had."""

    def __init__(self, root: Path) -> None:
        paths = Paths.at(root)
        paths.etc.mkdir(parents=True)
        for name in ("nodes.conf", "warewulf.conf"):
            shutil.copy(DATA / name, paths.etc / name)
        files = {"motd": "welcome\nto all\n", "blocks": "one\ntwo # MARK here\nthree\n", "empty": ""}
        for name, text in files.items():
            (paths.etc / name).write_text(text)
        image = root / "image"
        (image / "etc").mkdir(parents=True)
        (image / "etc/os").write_text("Rocky\n")
        sources = Sources(paths, (), lambda name: image if name == "rocky-9" else None)
        self.env: Environment = environment.make(sources)
        self.nodes = dict(Registry(paths).snapshot().nodes)
        cluster = Cluster(self.nodes, lambda image: "")
        self.names = Names(self.env.globals, self.env.reader, Server(load(paths).conf), cluster)

    def run(self, case: dict[str, Any]) -> dict[str, Any]:
        """As the recorder tells it."""
        self.names.begin(self.nodes[case["node"]])
        facts = {"overlay": "o", "build_source": "/overlay/t.ww"}
        try:
            program = render.Program(render.engine(self.env), case["template"], "t")
            outputs = program.outputs(self.names, facts, case["node"], "etc/t")
        except ConfigError as error:
            return {"error": error.message}
        if not outputs:
            return {"error": "aborted"}
        if len(outputs) == 1 and outputs[0].path == "etc/t" and outputs[0].kind == "file":
            return {"output": outputs[0].content.decode("utf-8", "replace")}
        return {"outputs": [[it.path, it.kind, it.content.decode()] for it in outputs]}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    patch = pytest.MonkeyPatch()
    patch.setattr(dates, "_local", lambda: datetime.UTC)  # as the recorder ran
    yield Bench(tmp_path_factory.mktemp("go"))
    patch.undo()


def expected(case: dict[str, Any]) -> dict[str, Any]:
    if "error" in case:
        return {"error": ""}
    if "outputs" in case:
        return {
            "outputs": [
                [
                    "etc/t" if not it["name"] else it["name"][1:] if it["name"][0] == "/" else f"etc/{it['name']}",
                    "link" if "link" in it else "file",
                    it.get("link", it["content"]),
                ]
                for it in case["outputs"]
            ]
        }
    return {"output": case["output"]}


# Where we differ and mean it.
MEANT = {
    '{{ file "" }}': "a file needs a name",
    '{{ softlink "" }}': "a link without a target is refused when it is packed",
    '{{ index .NetDevs "default" }}': "a struct is not printed as a whole",
    '{{ mustToDate "Hello World" "Hello World" }}': "there is no year 0",
    '{{ toDate "[a-z]+" "[a-z]+" }}': "there is no year 0",
    '{{ toDate .Tags.list "a,b,,c" }}': "there is no year 0",
}


def agrees(bench: Bench, case: dict[str, Any]) -> bool:
    found, wanted = bench.run(case), expected(case)
    return found.keys() == wanted.keys() if "error" in wanted else found == wanted


def test_go_template_cases_cover_everything() -> None:
    """Each function, 300 random templates that Go runs, five overlays of sites."""
    named = {word for case in CASES for word in re.findall(r"\w+", case["template"]) if case["name"][0] != "r"}
    assert {*SPRIG, *site.functions(None)} - named - {"now", "ago", "IgnitionJson", "ImportLink", "readlink"} == set()  # type: ignore[arg-type]
    assert not SPRIG.keys() & REFUSED.keys()
    assert sum(case["name"].startswith("random") and "error" not in case for case in CASES) >= 300
    assert len({case["name"].split(".ww")[0] for case in CASES if case["name"].startswith("overlay")}) >= 5
    assert {case["template"] for case in CASES} >= MEANT.keys()


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_go_template_writes_what_go_wrote(bench: Bench, group: str) -> None:
    wrong = [
        (
            case["name"],
            case["template"],
            bench.run(case),
            {k: v for k, v in case.items() if k in ("output", "outputs", "error")},
        )
        for case in CASES
        if case["name"].split("-")[0] == group and case["template"] not in MEANT and not agrees(bench, case)
    ]
    assert wrong == []


def test_go_template_errors_are_told_in_our_words(bench: Bench) -> None:
    """What Go refuses is refused by us, and not by Python."""
    for case in CASES:
        if "error" in case and case["template"] not in MEANT:
            message = bench.run(case)["error"]
            assert not re.search("Error|Exception", message), (case["template"], message)
