"""Keeps this head what the one that it follows is: asked every two seconds, in a thread; the last good is served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from wwfast.daemon.life.supervision import Supervisor, Threads
from wwfast.errors import WwfastError

if TYPE_CHECKING:
    from wwfast.heads.closings import Closed
    from wwfast.heads.following import Following

POLL_SECONDS = 2.0
MIRRORING = "following the other head"


class Mirroring:
    """`switched` is called on the loop when another revision is served, `heard` with each boot that ended there."""

    def __init__(
        self,
        following: Following,
        supervisor: Supervisor,
        switched: Callable[[], None],
        heard: Callable[[Closed], None],
    ) -> None:
        self.following = following
        self._supervisor = supervisor
        self._switched, self._heard = switched, heard
        self._threads = Threads(1, "mirror")  # whose work takes as long as an image does
        self._ended = threading.Event()
        following.ended = self._ended.is_set

    def start(self) -> None:
        self._supervisor.keep(MIRRORING, self._turn)

    def close(self) -> None:
        """Safe to repeat."""
        self._ended.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                turn = asyncio.get_running_loop().run_in_executor(self._threads, self.following.turn)
                switched, closed = await turn
            except WwfastError as error:  # told, and tried again as soon: what the other head has may be new
                self._supervisor.failed(MIRRORING, error)
                continue
            self._supervisor.well(MIRRORING)
            for each in closed:
                self._heard(each)
            if switched:
                self._switched()
