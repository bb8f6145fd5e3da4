"""`unirs serve`: answers questions over HTTP, in OpenAI's form."""

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from unirs.cli import check_positive
from unirs.errors import UniRSError

_SHUTDOWN_SECONDS = 30


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("model", metavar="MODEL", help="folder of a trained run or of a saved model, or a hub id")
    parser.add_argument("--host", default="127.0.0.1", help="address; any but this machine's needs a token")
    parser.add_argument("--port", type=int, default=8000, help="0 for a free one")
    parser.add_argument("--token", help="the token that clients must send (default: the variable UNIRS_TOKEN, or none)")
    parser.add_argument("--name", help="the model's name in requests (default: the name of its folder)")
    parser.add_argument("--device", help="device of the weights (default: a GPU if there is one)")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--batch-size", type=int, default=16, help="requests that are answered together")
    limits.add_argument("--max-requests", type=int, default=64, help="requests in work or waiting; more get status 429")
    limits.add_argument("--max-body-mb", type=int, default=32, help="size of a request in MB")
    limits.add_argument("--max-images", type=int, default=16, help="images of a request")
    limits.add_argument("--max-new-tokens", type=int, default=1024, help="tokens of an answer that requests can set")
    limits.add_argument("--timeout", type=int, default=120, help="seconds of a request")
    limits.add_argument("--cache-mb", type=int, default=256, help="memory for features of recent images, in MB")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that the model's config names by file or dotted path"
    )
    parser.add_argument("--clue-source", help="the model that generates clues, if they were another's in training")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    try:
        import uvicorn

        from unirs.serve.access import AccessRules
        from unirs.serve.app import ServiceOptions, make_app
        from unirs.serve.request import RequestLimits
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("unirs"):
            raise
        raise UniRSError("unirs serve needs FastAPI and uvicorn: pip install 'unirs[serve]'.") from error
    from unirs.inference.api import UniRS

    names = ("batch_size", "max_requests", "max_body_mb", "max_images", "max_new_tokens", "timeout", "cache_mb")
    check_positive(options, *names)
    access = AccessRules(options.host, options.token or os.environ.get("UNIRS_TOKEN") or None)
    with _bind(options.host, options.port) as server_socket:
        model = UniRS.from_pretrained(
            options.model,
            device=options.device,
            trust_remote_code=options.trust_remote_code,
            clue_source=options.clue_source,
        )
        name = options.name or Path(options.model).resolve().name
        host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"http://{host}:{server_socket.getsockname()[1]}"
        service = ServiceOptions(
            access=access,
            name=name,
            request=RequestLimits(options.max_images, options.max_new_tokens),
            batch_size=options.batch_size,
            max_requests=options.max_requests,
            max_body=options.max_body_mb * 10**6,
            timeout=options.timeout,
            cache=options.cache_mb * 10**6,
            on_start=lambda: print(f"Serving '{name}' at {url}/v1; try: curl {url}/v1/models", flush=True),
        )
        config = uvicorn.Config(
            make_app(model, service),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            # Longer than that of proxies, which reuse connections.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        # After a graceful shutdown uvicorn raises the signal again, for which the default is a kill.
        former = signal.signal(signal.SIGTERM, _terminate)
        try:
            uvicorn.Server(config).run(sockets=[server_socket])
        finally:
            signal.signal(signal.SIGTERM, former)


def _terminate(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _bind(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise UniRSError(f"The service cannot use {host}, port {port} ({error}). Choose another '--port'.") from error
