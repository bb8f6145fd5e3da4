"""Who may use the service."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from unirs.errors import UniRSError
from unirs.serve.errors import RequestError
from unirs.utils.hosts import is_loopback


class AccessRules:
    """Checks of the headers of requests.

    With a token, requests need it. Without one the service is for programs of this machine, and web pages are kept
    out: pages of other sites cannot send `application/json` without the service's consent (CORS), and a page whose
    name was made to point here (DNS rebinding) is known by the header `Host`.

    Args:
        host: The address that the service is bound to.
        token: None for no token.

    Raises:
        UniRSError: Other machines can use the address, and there is no token; or the token is empty or not ASCII.
    """

    def __init__(self, host: str, token: str | None) -> None:
        if token is None and not is_loopback(host):
            raise UniRSError(
                f"Other machines can use a service at {host}. Set a token (UNIRS_TOKEN or '--token'), or omit '--host'."
            )
        if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
            raise UniRSError("The token is not printable ASCII text. Set another one.")
        self._token = token

    def check(self, headers: Mapping[str, str]) -> None:
        """Checks the headers of a request.

        Raises:
            RequestError: The token is missing or wrong, or the request comes from a web page.
        """
        if self._token is None:
            host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
            if not is_loopback(host.strip("[]")):
                raise RequestError("The header 'Host' names another machine. Use http://127.0.0.1.", 403)
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # As bytes: strings with other characters cannot be compared in constant time.
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode(), self._token.encode()):
            raise RequestError(
                "The token is missing or wrong. Send 'Authorization: Bearer TOKEN' (api_key=TOKEN of the client).",
                401,
                code="invalid_api_key",
            )


def check_is_json(headers: Mapping[str, str]) -> None:
    """Raises a `RequestError` for a body that is not declared as JSON, such as that of a form in a web page."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise RequestError(f"The content type is '{content_type[:64]}'. Send application/json.", 415)
