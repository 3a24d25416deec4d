"""The recorder classes for asyncio: what starts and stops is a coroutine, the status stays a plain call.

    from sdisup import RecorderConfig, Settings
    from sdisup.aio import RecorderManager

Each coroutine runs its plain method in a thread. To cancel one ends the waiting and not the start or stop: systemd has
its job by then, and what a start left for the runner is cleared away as without.
"""

from __future__ import annotations

import asyncio

from sdisup.config.settings import Settings
from sdisup.contract.status import PortStatus
from sdisup.control import api
from sdisup.control.api import RecorderConfig


class RecorderManager:
    """sdisup.RecorderManager with coroutines; they raise what its methods raise."""

    def __init__(self, settings: Settings) -> None:
        self._manager = api.RecorderManager(settings)
        self.initialize = self._manager.initialize
        self.get_status = self._manager.get_status
        self.get_all_status = self._manager.get_all_status

    async def start_recording(self, port_index: int, config: RecorderConfig | None = None) -> PortStatus:
        """Start the port and return its status when systemd says that it has started."""
        return await asyncio.to_thread(self._manager.start_recording, port_index, config)

    async def stop_recording(self, port_index: int) -> None:
        """Stop the port and return when its file is closed. A stopped port is no error."""
        await asyncio.to_thread(self._manager.stop_recording, port_index)


class PortRecorder:
    """sdisup.PortRecorder with coroutines; they raise what its methods raise."""

    def __init__(self, port_index: int, settings: Settings) -> None:
        self._recorder = api.PortRecorder(port_index, settings)
        self.port_index = port_index
        self.get_status = self._recorder.get_status

    async def start(self, config: RecorderConfig | None = None) -> PortStatus:
        """Start the port and return its status when systemd says that it has started."""
        return await asyncio.to_thread(self._recorder.start, config)

    async def stop(self) -> None:
        """Stop the port and return when its file is closed. A stopped port is no error."""
        await asyncio.to_thread(self._recorder.stop)
