"""The thread that has the model: answers the requests that wait in batches."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unirs.errors import UniRSError
from unirs.inference.completion import Completion
from unirs.serve.errors import RequestError
from unirs.serve.media import DecodedMedia
from unirs.serve.metrics import ServiceMetrics
from unirs.serve.request import DecodingOptions

if TYPE_CHECKING:
    from unirs.inference.api import UniRS

Event = str | Completion | Exception
"""A piece of the answer, then the answer or an error."""


@dataclass(eq=False)
class Job:
    """A request in the queue.

    Attributes:
        media: Its input.
        question: None for the task's own instruction.
        options: Requests with equal options share a batch.
        stream: Whether pieces of the answer are passed on.
        emit: Called with events, in the worker's thread.
        is_cancelled: Set if nobody waits for the answer any more.
        has_text: Whether a piece of the answer has been passed on.
    """

    media: DecodedMedia
    question: str | None
    options: DecodingOptions
    stream: bool
    emit: Callable[[Event], None]
    is_cancelled: bool = field(default=False, init=False)
    has_text: bool = field(default=False, init=False)


class _CancelledError(Exception):
    """Nobody waits for the answers of the batch."""


class BatchWorker:
    """Answers jobs in batches: all that wait when the model is free, and have the options of the first one.

    Args:
        model: Used by the worker's thread alone.
        batch_size: Maximum number of jobs in a batch.
        metrics: Of the service.
    """

    def __init__(self, model: UniRS, batch_size: int, metrics: ServiceMetrics) -> None:
        self._model, self._batch_size, self._metrics = model, batch_size, metrics
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="unirs-model", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its batch; jobs that wait get an error."""
        with self._changed:
            self._is_stopped = True
            waiting, self._jobs = self._jobs, deque()
            self._changed.notify()
        for job in waiting:
            job.emit(RequestError("The service is shutting down. Try another one.", 503))
        self._thread.join()

    def submit(self, job: Job) -> None:
        """Appends a job to the queue."""
        with self._changed:
            self._jobs.append(job)
            self._metrics.queue.set(len(self._jobs))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._is_stopped)
                if self._is_stopped:
                    return
                batch = self._take()
                self._metrics.queue.set(len(self._jobs))
            if batch:
                self._metrics.batch_size.observe(len(batch))
                self._answer(batch)
            for job in batch:
                job.media.release()

    def _take(self) -> list[Job]:
        """Removes the first job and those that can be answered with it from the queue, and all cancelled ones."""
        waiting = [job for job in self._jobs if not job.is_cancelled]
        batch = [job for job in waiting if job.options == waiting[0].options][: self._batch_size]
        self._jobs = deque(job for job in waiting if job not in batch)
        return batch

    def _answer(self, jobs: Sequence[Job]) -> None:
        def pass_on(index: int, piece: str) -> None:
            if all(job.is_cancelled for job in jobs):
                raise _CancelledError
            if jobs[index].stream:
                jobs[index].has_text = True
                jobs[index].emit(piece)

        try:
            answers = self._model.predict(
                [job.media for job in jobs],
                [job.question for job in jobs],
                **vars(jobs[0].options),
                batch_size=len(jobs),
                on_text=pass_on,
            )
        except _CancelledError:
            return
        except Exception as error:  # noqa: BLE001 - the service goes on, whatever a request causes
            if isinstance(error, UniRSError) and len(jobs) > 1 and not any(job.has_text for job in jobs):
                # One of them is wrong.
                for job in jobs:
                    self._answer([job])
                return
            if not isinstance(error, UniRSError):
                traceback.print_exc(file=sys.stderr)
            for job in jobs:
                job.emit(error)
            return
        for job, answer in zip(jobs, answers, strict=True):
            job.emit(answer)
