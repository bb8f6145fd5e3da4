"""Limits what clients of the page can request: Gradio serves more than the page uses."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
App = Callable[[_Message, _Receive, _Send], Awaitable[None]]
"""An ASGI application."""

_PAGES = {
    "",
    "/config",
    "/favicon.ico",
    "/login",
    "/login_check",
    "/logout",
    "/manifest.json",
    "/robots.txt",
    "/theme.css",
}
_CALLS = {
    "cancel",
    "login_check",
    "queue/data",
    "queue/join",
    "reset",
    "startup-events",
    "theme.css",
    "upload",
    "upload_progress",
}
_API = "/gradio_api/"
_MAX_BODY = 1_000_000


class Guard:
    """ASGI middleware that passes on the requests of the page, and no others.

    Gradio also runs functions without the queue, fetches files from other machines and proxies requests.

    Args:
        app: the application.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answers 404 to other requests, and 400 to questions about files of other machines."""
        if scope["type"] != "http":
            # The page uses no websockets.
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path = str(scope["path"]).rstrip("/")
        if not is_allowed(path):
            await _refuse(send, 404, "The demo has no such page.")
            return
        if path == f"{_API}queue/join":
            body = await _read(receive)
            if body is None or not is_harmless(body):
                await _refuse(send, 400, "The demo reads uploaded files only.")
                return
            receive = _replay(body, receive)
        await self.app(scope, receive, send)


def is_allowed(path: str) -> bool:
    """Whether the page requests such a path, which has no slash at its end."""
    if path in _PAGES or path.startswith(("/assets/", "/static/", f"{_API}heartbeat/")):
        return True
    if path.startswith(f"{_API}file="):
        return "://" not in path
    return path.startswith(_API) and path.removeprefix(_API) in _CALLS


def is_harmless(body: bytes) -> bool:
    """Whether a call is JSON whose files are on this machine; Gradio checks that they were uploaded."""
    try:
        pending = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if any(isinstance(value.get(key), str) and ":/" in value[key] for key in ("path", "name", "orig_name")):
                return False
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return True


async def _read(receive: _Receive) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > _MAX_BODY or message["type"] != "http.request":
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: _Receive) -> _Receive:
    messages: list[_Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> _Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(send: _Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
