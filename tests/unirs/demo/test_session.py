"""What the page of `unirs demo` shows and refuses, without the page."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import Image, Pair, Series, UniRS, Video
from unirs.demo.examples import Example, find_examples
from unirs.demo.guard import Guard, is_allowed, is_harmless
from unirs.demo.session import Session, choice_shares, plain_message, read_uploads
from unirs.errors import UniRSError
from unirs.inference.completion import Completion
from unirs.models.pretrained import PromptConfig, UniRSConfig
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.prompt import PromptTemplate

PROMPTS = {
    "vqa": PromptConfig("image", PromptTemplate("vqa", "{question}")),
    "changes": PromptConfig("pair", PromptTemplate("cc", "What changed?")),
}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    for index, name in enumerate(("before.png", "after.png")):
        PIL.Image.effect_noise((80, 40), 60 + 60 * index).convert("RGB").save(tmp_path / name)
    return Pair(tmp_path / "before.png", tmp_path / "after.png")


@pytest.fixture
def session(make_model: Callable[..., UniRSModel], tokenizer: PreTrainedTokenizerBase, pair: Pair) -> Session:
    config = UniRSConfig({}, None, {}, {}, PROMPTS, max_new_tokens=6)
    example = Example("changes", pair, "", "nothing", ("yes", "no"))
    return Session(UniRS(make_model().eval().requires_grad_(False), tokenizer, config), [example])


def test_tasks_and_their_hints(session: Session) -> None:
    assert session.modalities == ["image", "pair"]
    assert session.tasks("pair") == ["changes"]
    assert session.instruction("changes") == "none: What changed?"
    assert session.needs_question("vqa")
    assert session.choices("changes") == ("yes", "no")
    assert session.choices("vqa") == ()


def test_answer_is_passed_on_while_it_is_written(session: Session, pair: Pair) -> None:
    *texts, completion = session.answer(pair, "", "changes", "")
    assert isinstance(completion, Completion)
    assert all(str(longer).startswith(str(text)) for text, longer in pairwise(texts))
    assert completion.text == session.model.answer(pair)
    assert texts[-1] == completion.text
    assert completion.change_map is not None
    with pytest.raises(UniRSError, match="at most 2000 characters"):
        list(session.answer(pair, "x" * 3000, "changes", ""))
    with pytest.raises(UniRSError, match="no task 'vqa' for pair media"):
        list(session.answer(pair, "", "vqa", ""))


def test_choices_are_scored(session: Session, pair: Pair) -> None:
    *_, completion = session.answer(pair, "", "changes", "yes\n no \n\nyes")
    assert isinstance(completion, Completion)
    assert list(completion.choice_logprobs) == ["yes", "no"]
    shares = choice_shares({"yes": -1.0, "no": -1.0 - np.log(3)})
    assert shares == pytest.approx({"yes (-1.00)": 0.75, "no (-2.10)": 0.25})


def test_page_of_a_pair_has_its_map(session: Session, pair: Pair) -> None:
    assert 'class="map"' not in session.render(pair, "x")
    *_, completion = session.answer(pair, "", "changes", "")
    assert isinstance(completion, Completion)
    page = session.render(pair, '"<i>', completion)
    assert 'class="map" src="data:image/png' in page
    assert page.count("data:image/webp") == 2
    assert "<i>" not in page


def test_boxes_of_answer_and_reference(session: Session, pair: Pair) -> None:
    answer = Completion("{<10><20><40><60>}", ())
    page = session.render(pair, "x", answer, "{<0><0><50><50>}")
    assert len(re.findall('<polygon class="box-1" points="10.00,20.00', page)) == 2
    assert "reference" in page
    assert "polygon" not in session.render(pair, "x", replace(answer, text="yes"), "{<0><0><50><50>}")


def test_uploads_become_media() -> None:
    assert read_uploads("image", ["a.png"]) == Image("a.png")
    assert read_uploads("pair", ["a.png", "b.tif"]) == Pair("a.png", "b.tif")
    assert read_uploads("video", ["a.mp4"]) == Video("a.mp4")
    assert read_uploads("series", ["a.png", "b.png"], "2016, 2017") == Series(["a.png", "b.png"], ["2016", "2017"])


@pytest.mark.parametrize(
    ("modality", "files", "dates", "message"),
    [
        ("pair", ["a.png"], "", "Upload two images: got 1"),
        ("image", ["folder/a.mp4"], "", "Upload one image: a.mp4 is something else"),
        ("video", ["a.png"], "", "Upload one video: a.png"),
        ("image", ["a.txt"], "", "a.txt has no suffix"),
        ("series", ["a.png"] * 17, "", "two or more images, at most 16"),
        ("series", ["a.png", "b.png"], "2016", "dates"),
    ],
)
def test_other_uploads_are_errors(modality: Any, files: list[str], dates: str, message: str) -> None:  # noqa: ANN401
    with pytest.raises(UniRSError, match=message):
        read_uploads(modality, files, dates)


def test_damaged_uploads_are_errors_without_paths(session: Session, tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "empty.mp4").touch()
    PIL.Image.effect_noise((200, 200), 50).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    for modality, name in (("image", "text.png"), ("video", "empty.mp4"), ("image", "cut.jpg")):
        path = str(tmp_path / name)
        with pytest.raises(UniRSError) as caught:
            session.render(read_uploads(modality, [path]), "x")  # type: ignore[arg-type]
        message = plain_message(caught.value, [path])
        assert name in message
        assert str(tmp_path) not in message
    assert session.thumbnail(Image(tmp_path / "text.png")) == ""
    assert session.thumbnail(pair).startswith("data:image/webp")


def test_examples_are_those_of_the_run_or_synthetic(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    PIL.Image.new("RGB", (8, 8)).save(root / "a.png")
    row = {"image": "a.png", "question": "Why?", "answer": "so"}
    for split in ("train", "val", "test"):
        (root / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    config = {"data": {"tasks": [{"name": "jsonl", "root": str(root), "label": "mine"}, {"name": "levir_cc"}]}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    (example,) = find_examples(tmp_path, ["image"], tmp_path / "none")
    assert example == Example("mine", Image(root / "a.png"), "Why?", "so", ())
    made = find_examples(tmp_path / "saved", ["image"], tmp_path / "made")
    assert {one.media.modality for one in made} == {"image"}
    assert len(made) == 3


def test_only_requests_of_the_page_pass() -> None:
    for path in ("", "/config", "/gradio_api/queue/join", "/gradio_api/file=/folder/a.png", "/assets/index.js"):
        assert is_allowed(path)
    for path in (
        "/gradio_api/file=http://10.0.0.1/a",
        "/gradio_api/proxy=http://10.0.0.1",
        "/gradio_api/run/predict",
        "/gradio_api/call/f",
        "/gradio_api/info",
        "/docs",
        "/monitoring",
    ):
        assert not is_allowed(path)


@pytest.mark.parametrize("path", ["http://10.0.0.1/a.png", "https:/a", "HTTPS://a"])
def test_calls_name_no_files_of_other_machines(path: str) -> None:
    assert is_harmless(json.dumps({"data": [{"path": "/folder/a.png"}, "http://a"]}).encode())
    assert not is_harmless(json.dumps({"data": [[{"path": path}]]}).encode())
    assert not is_harmless(b"{")
    assert not is_harmless(b"[" * 100_000)


def test_guard_replays_the_body_of_a_call() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "body": message["body"]})

    def request(path: str, *chunks: bytes) -> dict[str, Any]:
        messages = [
            {"type": "http.request", "body": chunk, "more_body": index < len(chunks)}
            for index, chunk in enumerate(chunks, 1)
        ]
        sent: list[Any] = []

        async def receive() -> Any:  # noqa: ANN401
            return messages.pop(0)

        async def send(message: Any) -> None:  # noqa: ANN401
            sent.append(message)

        asyncio.run(Guard(app)({"type": "http", "path": path}, receive, send))
        return dict(sent[0])

    join = "/gradio_api/queue/join"
    assert request(join, b'{"data"', b": []}")["body"] == b'{"data": []}'
    assert request(join, b'{"path": "http://a"}')["status"] == 400
    assert request(join, b" " * 1_000_000, b"[]")["status"] == 400
    assert request("/gradio_api/proxy=http://a", b"")["status"] == 404
