"""A time limit for requests to arrive, which uvicorn has none of: `timeout_keep_alive` counts between requests only."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 10.0


class TimedProtocol(H11Protocol):
    """Close a connection whose request, headers and body, has not arrived after SECONDS."""

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):  # a whole request is there
            self._stop()
        elif self.deadline is None:
            self.deadline = asyncio.get_running_loop().call_later(SECONDS, self.transport.abort)

    def _stop(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
