"""Commands that run beside others of our own work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from wwfast.errors import WwfastError
from wwfast.system.run import beside


def test_run_beside_raises_what_the_command_said_last_when_it_is_waited_for() -> None:
    failed = pytest.raises(WwfastError, match=r"sh failed with exit status 3: .*\nno room")
    with beside(["sh", "-c", "echo far; echo no room >&2; exit 3"]) as ended, failed:
        ended()
    with beside(["true"]) as ended:
        ended()
    with pytest.raises(WwfastError, match="no-such is not installed") as caught, beside(["no-such"], package="nosuch"):
        pass
    assert "nosuch" in (caught.value.hint or "")


@pytest.mark.parametrize("how", ["error", "late", "left"])
def test_run_beside_ends_the_command_with_the_body(tmp_path: Path, how: str) -> None:
    noted = tmp_path / "pid"

    def body() -> None:
        with beside(["sh", "-c", f"echo $$ > {noted}; exec sleep 7777"], timeout=0.1) as ended:
            begun = time.monotonic()
            while not (noted.exists() and noted.read_text()):
                assert time.monotonic() - begun < 60
                time.sleep(0.01)
            if how == "late":
                ended()
            if how == "error":
                raise ValueError("of the body")

    if how == "left":
        body()
    else:
        with pytest.raises((ValueError, WwfastError), match=r"of the body|did not finish within 0\.1 s"):
            body()
    assert not Path("/proc", noted.read_text().strip()).exists()
