"""Whatever stands in nodes.conf, the files that a shell reads give it back letter by letter."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wwfast.config import settings as conf
from wwfast.nodes.model import Ipmi, Node
from wwfast.overlays.files import model
from wwfast.overlays.templates import data, environment
from wwfast.overlays.templates.render import Template
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=("Cs",)), max_size=40)
NAMES = ("WWROOT", "WWINIT", "WWIPMI_USER", "WWIPMI_PASSWORD", "WWIPMI_VLAN")


class Maker:
    """The template of /warewulf/config and what it sees of the server."""

    def __init__(self, root: Path) -> None:
        paths = Paths.at(root)
        paths.etc.mkdir(parents=True)
        paths.conf.write_text("ipaddr: 10.0.0.1/16\n")
        (item,) = [item for item in model.find(paths, "wwinit").items() if item.output == "warewulf/config"]
        self.env = environment.make(Sources(paths, (), lambda image: None))
        self.template = Template(self.env, "wwinit", item)
        self.server = data.Server(conf.load(paths).conf)
        self.script = root / "config"

    def write(self, node: Node) -> None:
        names = data.Names({}, self.env.reader, self.server, data.Cluster({node.id: node}, lambda image: ""))
        names.begin(node)
        (output,) = self.template.run(names, node.id)
        self.script.write_bytes(output.content)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("config"))


@given(values=st.tuples(*[WORDS] * len(NAMES)))
@settings(max_examples=60, deadline=None)
def test_overlay_wwinit_config_gives_every_value_back(maker: Maker, values: tuple[str, ...]) -> None:
    root, init, user, password, vlan = values
    ipmi = Ipmi(write="true", username=user, password=password, tags={"vlan": vlan})
    maker.write(Node(id="n1", root=root, init=init, ipmi=ipmi))
    shown = "; ".join(f'printf "%s\\0" "${name}"' for name in NAMES)
    done = subprocess.run(["sh", "-c", f". {maker.script}; {shown}"], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == list(values)
