"""`unirs demo`: a page in the browser that answers questions about uploaded media."""

import argparse
import os
import signal
import tempfile
from pathlib import Path

from unirs.cli import check_positive
from unirs.errors import UniRSError


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("model", help="a run, a saved model, or a hub id")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on; others than this need a token")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")
    text = "password of the page (default: the environment variable UNIRS_TOKEN)"
    parser.add_argument("--token", default=os.environ.get("UNIRS_TOKEN"), metavar="TEXT", help=text)
    parser.add_argument("--max-upload-mb", type=int, default=64, metavar="N", help="largest file to upload")
    parser.add_argument("--no-examples", action="store_true", help="read or make no examples")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that the model's config names by file or dotted path"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.utils.hosts import is_loopback

    check_positive(options, "max_upload_mb")
    if not 1 <= options.port <= 65535:
        raise UniRSError(f"--port must be 1 to 65535, got {options.port}.")
    if not is_loopback(options.host) and not options.token:
        raise UniRSError(
            f"{options.host} may be reached from other machines: set a password with --token or UNIRS_TOKEN, or omit "
            "--host."
        )
    with tempfile.TemporaryDirectory(prefix="unirs-demo-") as folder:
        # Gradio reads these when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": f"{folder}/uploads", "GRADIO_ANALYTICS_ENABLED": "False"}
        # The temporary files are removed by a signal to end, too.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _serve(options, Path(folder))


def _serve(options: argparse.Namespace, folder: Path) -> None:
    try:
        from unirs.demo import page
    except ImportError as error:
        raise UniRSError(f"The demo needs Gradio ({error}): pip install 'unirs[demo]'.") from error
    from unirs.demo.examples import find_examples
    from unirs.demo.session import Session
    from unirs.inference.api import UniRS
    from unirs.plugins import installed_only
    from unirs.utils.sources import resolve_source

    trust = options.trust_remote_code
    model = UniRS.from_pretrained(options.model, trust_remote_code=trust)
    examples = []
    if not options.no_examples:
        modalities = Session(model).modalities
        with installed_only(options.model, trust_remote_code=trust):
            examples = find_examples(Path(resolve_source(options.model)), modalities, folder)
    session = Session(model, examples)
    page.serve(
        page.build_page(session, options.model),
        options.host,
        options.port,
        options.token or None,
        max_upload_mb=options.max_upload_mb,
    )
