"""Commands as a person gives them, run in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wwfast.cli.main import main
from wwfast.paths import Paths

Run = Callable[..., tuple[int, str, str]]


def runner(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Run:
    """Of the words of a command below the root of `paths`; -> status, stdout, stderr, which is never a traceback."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(paths.root), *map(str, words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(caught.value.code or 0), out, err

    return call
