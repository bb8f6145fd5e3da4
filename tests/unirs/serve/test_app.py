"""The service in this process: batches, limits and access."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.unirs.serve.conftest import data_url, png
from unirs import UniRS
from unirs.errors import UniRSError
from unirs.inference.completion import Completion
from unirs.serve.access import AccessRules
from unirs.serve.app import ServiceOptions, make_app
from unirs.serve.errors import RequestError
from unirs.serve.media import DecodedMedia
from unirs.serve.metrics import ServiceMetrics
from unirs.serve.request import RequestLimits, parse_request
from unirs.serve.worker import BatchWorker, Event, Job

CHAT = "/v1/chat/completions"


def body(question: str = "Is there a road?", **fields: Any) -> bytes:  # noqa: ANN401
    content = [{"type": "image_url", "image_url": {"url": data_url(png("red"))}}, {"type": "text", "text": question}]
    return json.dumps({"messages": [{"role": "user", "content": content}], **fields}).encode()


class Answers:
    """Events of jobs, and the end of each."""

    def __init__(self) -> None:
        self.events: dict[int, list[Event]] = {}
        self.ended: dict[int, threading.Event] = {}

    def job(self, model: UniRS, number: int, question: str, **fields: Any) -> Job:  # noqa: ANN401
        parsed = parse_request(body(question, **fields), "run", RequestLimits())
        processor = model.processor
        self.events[number], self.ended[number] = [], threading.Event()

        def emit(event: Event) -> None:
            self.events[number].append(event)
            if not isinstance(event, str):
                self.ended[number].set()

        media = DecodedMedia(parsed.media, processor.image_size, processor.resize)
        return Job(media, parsed.question, parsed.options, parsed.stream, emit)

    def last(self, number: int) -> Event:
        assert self.ended[number].wait(60)
        return self.events[number][-1]


@pytest.fixture
def metrics() -> ServiceMetrics:
    return ServiceMetrics()


@pytest.fixture
def worker(model: UniRS, metrics: ServiceMetrics) -> BatchWorker:
    return BatchWorker(model, 4, metrics)


def batches(metrics: ServiceMetrics) -> tuple[float, float]:
    """Number of batches, and of jobs in them."""
    lines = dict(line.rsplit(" ", 1) for line in metrics.render().decode().splitlines() if line[0] != "#")
    return float(lines["unirs_batch_size_count"]), float(lines["unirs_batch_size_sum"])


def test_jobs_that_wait_share_batches(model: UniRS, worker: BatchWorker, metrics: ServiceMetrics) -> None:
    answers = Answers()
    for number in range(5):
        worker.submit(answers.job(model, number, f"Are there {number} roads?"))
    worker.submit(answers.job(model, 5, "Is there water?", max_tokens=1))
    worker.start()
    texts = [answers.last(number) for number in range(6)]
    assert all(isinstance(one, Completion) for one in texts)
    # Five with equal options, at most four at once; one with others.
    assert batches(metrics) == (3, 6)
    worker.stop()


def test_an_error_is_of_its_job(model: UniRS, worker: BatchWorker) -> None:
    answers = Answers()
    worker.submit(answers.job(model, 0, "Is there a road?"))
    # More tokens than the model's context.
    worker.submit(answers.job(model, 1, "road " * 3000))
    worker.submit(answers.job(model, 2, "Is there water?"))
    worker.start()
    assert isinstance(answers.last(0), Completion)
    assert isinstance(answers.last(1), UniRSError)
    assert isinstance(answers.last(2), Completion)
    worker.stop()


def test_cancelled_jobs(model: UniRS, worker: BatchWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait are not answered, and a batch of them stops at its next token."""
    answers, pieces = Answers(), []
    predict = model.predict

    def cancel_first(*arguments: Any, on_text: Callable[[int, str], None], **options: Any) -> Any:  # noqa: ANN401
        def count_and_cancel(index: int, piece: str) -> None:
            pieces.append(piece)
            jobs[0].is_cancelled = True
            on_text(index, piece)

        return predict(*arguments, on_text=count_and_cancel, **options)

    monkeypatch.setattr(model, "predict", cancel_first)
    jobs = [answers.job(model, 0, "Is there a road?", choices=["yes", "no"]), answers.job(model, 1, "Is there water?")]
    jobs.append(answers.job(model, 2, "How many roads are there?"))
    jobs[1].is_cancelled = True
    for job in jobs:
        worker.submit(job)
    worker.start()
    assert isinstance(answers.last(2), Completion)
    assert not answers.events[0]
    assert not answers.events[1]
    assert len(pieces) > 0
    worker.stop()


def test_jobs_that_wait_at_the_end(model: UniRS, worker: BatchWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch in work is answered, others are refused."""
    answers, started, released = Answers(), threading.Event(), threading.Event()
    predict = model.predict

    def wait(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        started.set()
        assert released.wait(60)
        return predict(*arguments, **options)

    monkeypatch.setattr(model, "predict", wait)
    worker.start()
    worker.submit(answers.job(model, 0, "Is there a road?"))
    assert started.wait(60)
    worker.submit(answers.job(model, 1, "Is there water?"))
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    error = answers.last(1)
    assert isinstance(error, RequestError)
    assert error.status == 503
    released.set()
    assert isinstance(answers.last(0), Completion)
    stopping.join()


def client(model: UniRS, token: str | None = None, **options: Any) -> TestClient:  # noqa: ANN401
    access = AccessRules("127.0.0.1", token)
    app = make_app(model, ServiceOptions(access=access, name="run", **options))
    return TestClient(app, base_url="http://127.0.0.1:8000", headers={"Content-Type": "application/json"})


def test_a_token(model: UniRS) -> None:
    with client(model, "secret") as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            for answer in (http.post(CHAT, content=body(), headers=headers), http.get("/metrics", headers=headers)):
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
        assert http.get("/health").status_code == 200
        assert http.post(CHAT, content=body(), headers={"Authorization": "Bearer secret"}).status_code == 200


def test_busy_and_slow(model: UniRS) -> None:
    with client(model, max_requests=0) as http:
        answer = http.post(CHAT, content=body())
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["error"]["type"] == "rate_limit_error"
    with client(model, timeout=0) as http:
        assert http.post(CHAT, content=body()).status_code == 504


def test_a_failure_of_the_model(
    model: UniRS, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of order")

    with client(model) as http:
        with monkeypatch.context() as patched:
            patched.setattr(model, "predict", fail)
            answer = http.post(CHAT, content=body())
        assert answer.status_code == 500
        # The reason is for the log.
        assert "out of order" not in answer.text
        assert "out of order" in capsys.readouterr().err
        assert http.post(CHAT, content=body()).status_code == 200


@pytest.mark.parametrize(("host", "token"), [("0.0.0.0", None), ("example.org", None), ("::", None), ("0.0.0.0", " ")])  # noqa: S104
def test_other_machines_need_a_token(host: str, token: str | None) -> None:
    with pytest.raises(UniRSError, match="token"):
        AccessRules(host, token)
    AccessRules("::1", None)
    AccessRules(host, "secret")
