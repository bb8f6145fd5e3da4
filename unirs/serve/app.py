"""The routes of the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from unirs.data.memory_features import MemoryFeatureCache
from unirs.inference.completion import Completion
from unirs.inference.user_questions import user_questions
from unirs.serve.access import AccessRules, check_is_json
from unirs.serve.call import Call, EventStream, while_connected
from unirs.serve.errors import RequestError, as_request_error
from unirs.serve.media import DecodedMedia
from unirs.serve.metrics import ServiceMetrics
from unirs.serve.request import ChatRequest, RequestLimits, parse_request
from unirs.serve.responses import ResponseWriter, event, num_answer_tokens
from unirs.serve.worker import BatchWorker

if TYPE_CHECKING:
    from unirs.inference.api import UniRS


@dataclass(frozen=True)
class ServiceOptions:
    """Options of the service.

    Attributes:
        access: Who may use it.
        name: The model's name in requests.
        request: Limits of one request.
        batch_size: Maximum number of requests in a batch.
        max_requests: Maximum number of requests that are read, wait or are answered; more get status 429.
        max_body: Maximum size of a request in bytes.
        timeout: Maximum number of seconds of a request.
        cache: Budget for features of media in bytes.
        on_start: Called when the service is ready.
    """

    access: AccessRules
    name: str
    request: RequestLimits = field(default_factory=RequestLimits)
    batch_size: int = 16
    max_requests: int = 64
    max_body: int = 32 << 20
    timeout: float = 120
    cache: int = 256 << 20
    on_start: Callable[[], None] = lambda: None


class Service:
    """Answers requests with a model.

    Args:
        model: Its feature cache is replaced.
        options: Of the service.
    """

    def __init__(self, model: UniRS, options: ServiceOptions) -> None:
        self._model, self._options = model, options
        self._processor = model.processor
        self.metrics = ServiceMetrics()
        self._features = MemoryFeatureCache(options.cache)
        model.feature_cache = self._features
        self.worker = BatchWorker(model, options.batch_size, self.metrics)
        self._active = 0

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        if self._active >= self._options.max_requests:
            self.metrics.requests.labels("429").inc()
            busy = RequestError("The service is busy. Try again later.", 429, code="busy")
            return _error_response(busy, {"Retry-After": "1"})
        call = Call(asyncio.get_running_loop().time() + self._options.timeout)
        self._set_active(1)
        try:
            async with asyncio.timeout_at(call.deadline):
                body = await self._read(request)
                parsed, media = await asyncio.to_thread(self._prepare, body)
                call.submit(media, parsed, self.worker)
                # Before the response starts, so that an error has its status.
                first = await while_connected(request, call.next_event())
            if parsed.stream:
                content = self._stream(first, call, parsed)
                return EventStream(content, on_end=partial(self._finish, call))
            response: Response = JSONResponse(self._written(first, call, parsed))
        except Exception as error:  # noqa: BLE001 - the service goes on, whatever a request causes
            failure = _with_timeout(error)
            response, call.status = _error_response(failure), failure.status
        except BaseException:
            self._finish(call)
            raise
        self._finish(call)
        return response

    def _written(self, answer: str | Completion, call: Call, parsed: ChatRequest) -> dict[str, Any]:
        assert isinstance(answer, Completion)  # noqa: S101 - without a stream it is the only event
        self._succeed(answer, call)
        writer = ResponseWriter(self._options.name, self._model.tokenizer)
        return writer.completion(answer, logprobs=parsed.options.details)

    async def _stream(self, first: str | Completion, call: Call, parsed: ChatRequest) -> AsyncIterator[bytes]:
        writer = ResponseWriter(self._options.name, self._model.tokenizer)
        yield writer.start()
        try:
            while isinstance(first, str):
                yield writer.piece(first)
                async with asyncio.timeout_at(call.deadline):
                    first = await call.next_event()
            self._succeed(first, call)
            yield writer.end(first, include_usage=parsed.include_usage)
        except Exception as error:  # noqa: BLE001 - see `chat`
            failure = _with_timeout(error)
            call.status = failure.status
            yield event(failure.body())

    async def _read(self, request: Request) -> bytes:
        check_is_json(request.headers)
        limit = self._options.max_body
        length = request.headers.get("content-length", "0")
        body = bytearray()
        too_large = RequestError(f"The body has more than {limit:,} bytes. Send smaller media.", 413)
        if length.isdecimal() and int(length[:20]) > limit:
            raise too_large
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
        return bytes(body)

    def _prepare(self, body: bytes) -> tuple[ChatRequest, DecodedMedia]:
        """Parses a request and decodes its media; runs in a thread."""
        parsed = parse_request(body, self._options.name, self._options.request)
        media = DecodedMedia(parsed.media, self._processor.image_size, self._processor.resize)
        user_questions(self._model.config.prompts, [media], parsed.question, parsed.options.task)
        if media in self._features:
            self.metrics.cached.inc()
        else:
            media.decode()
        return parsed, media

    def _succeed(self, answer: Completion, call: Call) -> None:
        call.status = 200
        self.metrics.tokens.labels("prompt").inc(answer.num_prompt_tokens)
        self.metrics.tokens.labels("completion").inc(num_answer_tokens(answer, self._model.tokenizer))

    def _finish(self, call: Call) -> None:
        call.cancel()
        self._set_active(-1)
        self.metrics.requests.labels(str(call.status)).inc()
        self.metrics.seconds.observe(time.monotonic() - call.start)

    def _set_active(self, change: int) -> None:
        self._active += change
        self.metrics.active.set(self._active)


def _with_timeout(error: Exception) -> RequestError:
    if isinstance(error, TimeoutError):
        return RequestError("The request took too long. Try again later, or ask for a shorter answer.", 504)
    return as_request_error(error)


def _error_response(error: RequestError, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(error.body(), error.status, headers)


def make_app(model: UniRS, options: ServiceOptions) -> FastAPI:
    """Makes the application, whose lifespan starts and stops the model's thread."""
    service = Service(model, options)
    models = {
        "object": "list",
        "data": [
            {
                "id": options.name,
                "object": "model",
                "created": int(time.time()),
                "owned_by": "unirs",
                "tasks": {name: prompt.modality for name, prompt in model.config.prompts.items()},
            }
        ],
    }

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        options.on_start()
        yield
        await asyncio.to_thread(service.worker.stop)

    async def check_access(request: Request) -> None:
        if request.url.path != "/health":
            options.access.check(request.headers)

    # Its pages of documentation would load scripts from other servers.
    app = FastAPI(
        lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(check_access)]
    )

    @app.exception_handler(RequestError)
    async def refuse(_: Request, error: RequestError) -> Response:
        return _error_response(error)

    @app.exception_handler(HTTPException)
    async def refuse_path(_: Request, error: HTTPException) -> Response:
        return _error_response(RequestError(f"{error.detail}.", error.status_code), dict(error.headers or {}))

    @app.get("/v1/models")
    async def list_models() -> Response:
        return JSONResponse(models)

    @app.get("/health")
    async def report_health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def report_metrics() -> Response:
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")

    app.post("/v1/chat/completions", response_model=None)(service.chat)
    return app
