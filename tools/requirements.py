"""Print what pyproject.toml asks for (run and dev), for pip."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())
print("\n".join(project["project"]["dependencies"] + project["dependency-groups"]["dev"]))
