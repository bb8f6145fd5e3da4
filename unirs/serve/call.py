"""A request in work: its job, its connection, and its stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from unirs.inference.completion import Completion
from unirs.serve.errors import RequestError
from unirs.serve.media import DecodedMedia
from unirs.serve.request import ChatRequest
from unirs.serve.worker import BatchWorker, Event, Job


class Call:
    """A request in work; its job's events in the event loop.

    Args:
        deadline: Time of the event loop at which it fails.

    Attributes:
        status: HTTP status of the response; 499 until there is one, as the client may end the connection.
    """

    def __init__(self, deadline: float) -> None:
        self.start, self.deadline, self.status = time.monotonic(), deadline, 499
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._job: Job | None = None

    def submit(self, media: DecodedMedia, parsed: ChatRequest, worker: BatchWorker) -> None:
        """Makes the job of the request."""
        loop = asyncio.get_running_loop()

        def emit(one: Event) -> None:
            # The loop ends before the worker if a shutdown takes too long.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._events.put_nowait, one)

        self._job = Job(media, parsed.question, parsed.options, parsed.stream, emit)
        worker.submit(self._job)

    def cancel(self) -> None:
        """Has no effect on a job that is done."""
        if self._job is not None:
            self._job.is_cancelled = True

    async def next_event(self) -> str | Completion:
        """The next piece of text, or the answer; raises the job's error."""
        one = await self._events.get()
        if isinstance(one, Exception):
            raise one
        return one


class EventStream(StreamingResponse):
    """A stream that reports its end, also if the client is gone before it starts."""

    def __init__(self, content: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def _until_disconnect(request: Request) -> None:
    # After the body, the last message is that of the end.
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def while_connected(request: Request, result: Awaitable[str | Completion]) -> str | Completion:
    """Waits for a result of a request whose body has been read.

    Raises:
        RequestError: The client has closed the connection.
    """
    waiting = asyncio.ensure_future(result)
    gone = asyncio.ensure_future(_until_disconnect(request))
    try:
        await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise RequestError("The client has closed the connection.", 499)
        return waiting.result()
    finally:
        waiting.cancel()
        gone.cancel()
