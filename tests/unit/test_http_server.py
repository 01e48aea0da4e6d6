"""The sockets of the HTTP server."""

from __future__ import annotations

import pytest

from wwfast.errors import WwfastError
from wwfast.net.http.server import listen


def test_http_server_listens_where_it_is_told_and_nowhere_else() -> None:
    (first,) = listen([("127.0.0.1", 0)])
    with first:
        host, port = first.getsockname()
        assert (host, port > 0) == ("127.0.0.1", True)
        (other,) = listen([("127.0.0.2", port)])
        with other:
            assert other.getsockname() == ("127.0.0.2", port)


def test_http_server_says_where_another_listens_and_leaves_nothing_open() -> None:
    (first,) = listen([("127.0.0.1", 0)])
    with first:
        port = first.getsockname()[1]
        with pytest.raises(WwfastError, match=f"cannot listen on 127.0.0.1:{port}") as caught:
            listen([("127.0.0.2", port), ("127.0.0.1", port)])
        assert "wwfast server --replace" in (caught.value.hint or "")
        (again,) = listen([("127.0.0.2", port)])
        again.close()
