"""Errors of requests, in OpenAI's form."""

from __future__ import annotations

from typing import Any

from unirs.errors import UniRSError

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class RequestError(UniRSError):
    """A request that the service does not answer.

    Args:
        message: What is wrong, and what to do.
        status: HTTP status.
        param: The field of the request.
        code: A name of the error for programs.
    """

    def __init__(self, message: str, status: int = 400, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """The response as JSON values."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def as_request_error(error: Exception) -> RequestError:
    """The response to an exception: what a `UniRSError` says is meant for clients, others are internal."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, UniRSError):
        return RequestError(str(error))
    return RequestError("The model failed. The log of the service has the reason.", 500)
