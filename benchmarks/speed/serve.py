"""`unirs serve`: requests per second of several clients compared with one by one, to one and the same service.

    python benchmarks/speed/serve.py --model runs/quickstart

A request is a question about one image, as a data URL; answers are greedy, and the texts must be identical. The
questions differ. They are about one image, or each about an image of its own, whose features the service has in its
cache (`different images`) or not (`new images`). The clients are threads of another process than the service.
"""

import argparse
import base64
import http.client
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from measure import Row, in_turn, rates, report
from PIL import Image


def image_url(seed: int, size: int) -> str:
    """A PNG of random blocks as a data URL."""
    blocks = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((size, size)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def body(url: str, question: str, max_tokens: int) -> bytes:
    """A request."""
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    message = {"role": "user", "content": content}
    return json.dumps({"messages": [message], "max_tokens": max_tokens}).encode()


def ask(port: int, content: bytes) -> str:
    """The answer to a request."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("POST", "/v1/chat/completions", content, {"Content-Type": "application/json"})
        response = json.loads(connection.getresponse().read())
    return str(response["choices"][0]["message"]["content"])


def questions(name: str, number: int, seeds: Iterator[int], size: int, max_tokens: int) -> list[bytes]:
    """Requests about one image, or about different ones."""
    urls = [image_url(next(seeds), size)] * number
    if name != "one image":
        urls = [image_url(next(seeds), size) for _ in urls]
    return [body(url, f"Are there {index} roads?", max_tokens) for index, url in enumerate(urls)]


def measure(port: int, clients: int, options: argparse.Namespace, seeds: Iterator[int]) -> Iterator[Row]:
    """A row for each choice of images."""
    with ThreadPoolExecutor(clients) as pool:

        def together(requests: list[bytes]) -> list[str]:
            return list(pool.map(partial(ask, port), requests))

        def one_by_one(requests: list[bytes]) -> list[str]:
            return list(map(partial(ask, port), requests))

        for name in ("one image", "different images", "new images"):
            make = partial(questions, name, options.requests, seeds, options.image_size, options.max_tokens)
            same = make()
            if together(same) != one_by_one(same):
                raise SystemExit("The answers differ.")
            # Made before the clock starts.
            work = iter([make() if name == "new images" else same for _ in range(8)])
            seconds = in_turn(lambda: together(next(work)), lambda: one_by_one(next(work)))  # noqa: B023 - called here
            yield rates(f"{clients} clients, {name}", options.requests, "requests", seconds)


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="runs/quickstart")
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=24)
    options = parser.parse_args()
    unirs = str(Path(sys.executable).with_name("unirs"))
    command = [unirs, "serve", options.model, "--port", "0", "--batch-size", "32"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:  # noqa: S603 - its own options
        try:
            line = service.stdout.readline() if service.stdout else ""
            port = int(line.split("/v1")[0].rsplit(":", 1)[1])
            seeds = count()
            rows = [row for clients in options.clients for row in measure(port, clients, options, seeds)]
        finally:
            service.terminate()
    report("serve.py", rows)


if __name__ == "__main__":
    main()
