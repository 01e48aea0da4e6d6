"""What the tests of compatibility share: commands run as a person runs them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wwfast.cli.main import main
from wwfast.paths import Paths

Run = Callable[..., str]


@pytest.fixture
def run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that has to work; its output. Words are split at blanks unless given one by one."""

    def call(*words: str, status: int = 0) -> str:
        argv = words[0].split() if len(words) == 1 else list(words)
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(paths.root), *argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert int(caught.value.code or 0) == status, err
        return out

    return call
