"""The recorder classes for asyncio: what starts and stops is a coroutine, all else stays a plain call.

    from sdisup import RecorderConfig, Settings
    from sdisup.aio import RecorderManager

Each coroutine runs its plain method in a thread of its own. To cancel one ends the waiting and not the start or the
stop, for systemd may have its job by then: the thread goes on, and takes back what the start left for the runner, as
without. A later stop by the same object waits for such a start, so that the port is stopped after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from typing import Any, TypeVar

from sdisup.config.settings import Settings
from sdisup.contract.status import PortStatus
from sdisup.control import api
from sdisup.control.api import RecorderConfig, check_port_index
from sdisup.control.export import Exported

Result = TypeVar("Result")


class RecorderManager:
    """sdisup.RecorderManager with coroutines; they raise what its methods raise."""

    def __init__(self, settings: Settings) -> None:
        self._manager = api.RecorderManager(settings)
        self._starts: list[tuple[int, Future[Any]]] = []
        self.initialize = self._manager.initialize
        self.get_status = self._manager.get_status
        self.get_all_status = self._manager.get_all_status
        self.protect = self._manager.protect
        self.unprotect = self._manager.unprotect
        self.protections = self._manager.protections

    async def start_recording(
        self,
        port_index: int,
        config: RecorderConfig | None = None,
        *,
        at: datetime | None = None,
        until: datetime | None = None,
        for_s: float | None = None,
    ) -> PortStatus:
        """Start the port and return its status when systemd says that it has started."""
        start = _in_thread(lambda: self._manager.start_recording(port_index, config, at=at, until=until, for_s=for_s))
        self._starts = [(index, other) for index, other in self._starts if not other.done()] + [(port_index, start)]
        return await asyncio.wrap_future(start)

    async def start_recordings(
        self,
        port_indexes: Sequence[int],
        config: RecorderConfig | None = None,
        *,
        all_or_none: bool = False,
        wait_s: float = api.GANG_WAIT_S,
    ) -> list[PortStatus]:
        """Start several ports at once, and return their statuses when each has its first frame on disk."""
        indexes = list(port_indexes)
        start = _in_thread(
            lambda: self._manager.start_recordings(indexes, config, all_or_none=all_or_none, wait_s=wait_s)
        )
        self._starts = [(index, other) for index, other in self._starts if not other.done()]
        self._starts += [(index, start) for index in indexes]
        return await asyncio.wrap_future(start)

    async def stop_recording(self, port_index: int, *, unlock: bool = False) -> None:
        """Stop the port and return when its file is closed. A stopped port is no error."""
        starts = [start for index, start in self._starts if index == port_index and not start.done()]
        await asyncio.wrap_future(_in_thread(lambda: self._stop(port_index, starts, unlock)))

    async def export(self, port_index: int, take: str, directory: str, *, partial: bool = False) -> list[Exported]:
        """Make the files of a port's take one file in `directory`; to cancel it ends the waiting alone."""
        export = _in_thread(lambda: self._manager.export(port_index, take, directory, partial=partial))
        return await asyncio.wrap_future(export)

    async def cut_recording(self, port_index: int, take: str | None = None) -> PortStatus:
        """Let the next take begin now, without a lost frame, and return the port's status."""
        return await asyncio.wrap_future(_in_thread(lambda: self._manager.cut_recording(port_index, take)))

    def _stop(self, port_index: int, starts: list[Future[Any]], unlock: bool) -> None:
        self._manager.stop_recording(port_index, unlock=unlock)
        if starts:
            # systemd may have got their jobs after ours.
            wait(starts)
            self._manager.stop_recording(port_index, unlock=unlock)


class PortRecorder:
    """sdisup.PortRecorder with coroutines; they raise what its methods raise."""

    def __init__(self, port_index: int, settings: Settings) -> None:
        check_port_index(port_index, settings)
        self.port_index = port_index
        self._manager = RecorderManager(settings)

    async def start(
        self,
        config: RecorderConfig | None = None,
        *,
        at: datetime | None = None,
        until: datetime | None = None,
        for_s: float | None = None,
    ) -> PortStatus:
        """Start the port and return its status when systemd says that it has started."""
        return await self._manager.start_recording(self.port_index, config, at=at, until=until, for_s=for_s)

    async def stop(self, *, unlock: bool = False) -> None:
        """Stop the port and return when its file is closed. A stopped port is no error."""
        await self._manager.stop_recording(self.port_index, unlock=unlock)

    async def cut(self, take: str | None = None) -> PortStatus:
        """Let the next take begin now, without a lost frame, and return the port's status."""
        return await self._manager.cut_recording(self.port_index, take)

    def get_status(self) -> PortStatus:
        """The port's status."""
        return self._manager.get_status(self.port_index)


def _in_thread(call: Callable[[], Result]) -> Future[Result]:
    """The call's future. asyncio's own pool may have five threads, which ports without a signal hold for seconds."""
    pool = ThreadPoolExecutor(1, "sdisup")
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future
