"""The service in a process of its own, used by the `openai` package."""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.unirs.serve.conftest import Process, data_url, png
from unirs import Image, Pair, UniRS, Video


@pytest.fixture
def client(service: Process) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)


def message(question: str | None, *images: bytes) -> list[Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(one)}} for one in images]
    parts += [] if question is None else [{"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def send(service: Process, body: bytes | str, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, Any]:
    """Status and JSON of a request without a client's help."""
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("POST" if body else "GET", path, body or None, sent)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def metric(service: Process, name: str) -> float:
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def test_models_and_health(service: Process, client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "run"
    assert (model.model_extra or {})["tasks"] == {"rsvqa_lr": "image", "levir_cc": "pair", "era": "video"}
    assert send(service, "", "/health") == (200, {"status": "ok"})
    assert "try: curl" in service.line


def test_answers_are_those_of_predict(client: openai.OpenAI, model: UniRS) -> None:
    red, blue = png("red"), png("blue")
    media = [Image(red), Image(blue), Pair(red, blue), Video([red, blue])]
    questions = ["Is there a road?", "How many roads are there?", None, None]
    expected = [model.predict([one], text)[0] for one, text in zip(media, questions, strict=True)]
    messages = [message(questions[0], red), message(questions[1], blue), message(None, red, blue)]
    messages.append(message(None, red, blue))

    def ask(index: int) -> Any:  # noqa: ANN401
        extra = {"modality": "video"} if index == 3 else {}
        return client.chat.completions.create(
            model="run", messages=messages[index], logprobs=True, extra_body={"task": expected[index].task, **extra}
        )

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, [index % 4 for index in range(16)]))
    for index, answer in enumerate(answers):
        one = expected[index % 4]
        (choice,) = answer.choices
        assert choice.message.content == one.text
        assert answer.usage.prompt_tokens == one.num_prompt_tokens > 20
        tokens = [token for token in one.tokens if token != "</s>"]  # noqa: S105
        assert answer.usage.completion_tokens == len(tokens) == len(choice.logprobs.content)
        assert [token.logprob for token in choice.logprobs.content] == pytest.approx(
            one.logprobs[: len(tokens)], abs=1e-4
        )
        assert choice.finish_reason == ("length" if one.is_cut else "stop")


def test_a_stream(client: openai.OpenAI) -> None:
    for question, images in (("Is there a road?", [png("red")]), (None, [png("red"), png("blue")])):
        whole = client.chat.completions.create(model="run", messages=message(question, *images))
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(model="run", messages=message(question, *images), **options))
        assert chunks[0].choices[0].delta.role == "assistant"
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[
            0
        ].finish_reason
        assert chunks[-1].usage == whole.usage


def test_generation_options(client: openai.OpenAI, model: UniRS) -> None:
    red = png("red")
    cut = client.chat.completions.create(model="run", messages=message(None, red, red), max_tokens=2)
    (expected,) = model.predict([Pair(red, red)], max_new_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (
        expected.text,
        "length" if expected.is_cut else "stop",
    )
    chosen = client.chat.completions.create(
        model="run", messages=message("Is there a road?", red), extra_body={"choices": ["yes", "no"]}
    )
    (best,) = model.predict([Image(red)], "Is there a road?", choices=["yes", "no"])
    assert chosen.choices[0].message.content == best.text
    scores = (chosen.choices[0].model_extra or {})["choice_logprobs"]
    assert scores == pytest.approx(dict(best.choice_logprobs), abs=1e-4)
    sampled = [
        client.chat.completions.create(model="run", messages=message(None, red, red), temperature=2.0, seed=seed)
        for seed in (1, 1, 2)
    ]
    texts = [one.choices[0].message.content for one in sampled]
    assert texts[0] == texts[1] != texts[2]


def test_questions_about_one_image_encode_it_once(service: Process, client: openai.OpenAI) -> None:
    image = png("teal")
    before = metric(service, "unirs_cached_media_total")
    for question in ("Is there a road?", "Is there water?", "How many roads are there?"):
        client.chat.completions.create(model="run", messages=message(question, image))
    assert metric(service, "unirs_cached_media_total") == before + 2


BAD: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "model": ({"model": "gpt-4o"}, 404, "model"),
    "system message": ({"messages": [{"role": "system", "content": "x"}, *message("q?", png("red"))]}, 400, "messages"),
    "no image": ({"messages": [{"role": "user", "content": "Is there a road?"}]}, 400, "messages"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools"),
    "response_format": ({"response_format": {"type": "json_object"}}, 400, "response_format"),
    "n": ({"n": 2}, 400, "n"),
    "too many tokens": ({"max_tokens": 65}, 400, "max_tokens"),
    "top_p without sampling": ({"top_p": 0.5}, 400, None),
    "broken image": ({"messages": message("q?", b"no image")}, 400, None),
    "task": ({"extra_body": {"task": "rsvqa"}}, 400, None),
    "modality": ({"extra_body": {"modality": "pair"}}, 400, "modality"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_the_model_cannot_honour(client: openai.OpenAI, case: str) -> None:
    options, status, param = BAD[case]
    arguments: dict[str, Any] = {"model": "run", "messages": message("Is there a road?", png("red")), **options}
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**arguments)
    assert caught.value.status_code == status
    body: Any = caught.value.body
    assert body["param"] == param
    assert len(body["message"]) > 20


def test_urls_are_not_opened(service: Process, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    for url in (
        "http://127.0.0.1:1/a.png",
        "https://example.org/a.png",
        f"file://{tmp_path}/red.png",
        f"{tmp_path}/red.png",
    ):
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "q?"}]
        status, body = send(service, json.dumps({"messages": [{"role": "user", "content": content}]}))
        assert (status, body["error"]["param"]) == (400, "messages")
        assert "opens no files and no other URLs" in body["error"]["message"]


def test_other_requests(service: Process) -> None:
    body = json.dumps({"messages": message("Is there a road?", png("red"))})
    assert send(service, body)[0] == 200
    # Forms of web pages, and pages of names that point to this machine.
    assert send(service, body, Content_Type="text/plain")[0] == 415
    assert send(service, body, Host="evil.example")[0] == 403
    assert send(service, body, Host="localhost:80")[0] == 200
    assert send(service, " " * 1_000_001)[0] == 413
    assert send(service, "[" * 100_000)[0] == 400
    assert send(service, b'{"messages": "\xff"}')[0] == 400
    assert send(service, "", "/nowhere")[1]["error"]["message"] == "Not Found."
    assert send(service, "", "/v1/chat/completions")[0] == 405
    assert send(service, body)[0] == 200


def test_a_client_that_leaves(service: Process) -> None:
    """Its requests end, and the service answers others."""
    body = json.dumps({"messages": message(None, png("red"), png("blue")), "stream": True, "max_tokens": 64})
    address = urlsplit(service.url)
    for _ in range(4):
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        connection.close()
    assert send(service, json.dumps({"messages": message("Is there a road?", png("red"))}))[0] == 200
    waiting = threading.Event()
    for _ in range(600):
        if metric(service, "unirs_active_requests") == 0:
            break
        waiting.wait(0.05)
    assert metric(service, "unirs_active_requests") == 0
