import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.data.batch import tree_attention_mask
from unirs.data.prompt_encoder import PromptEncoder
from unirs.data.token_tree import IGNORE, NO_END
from unirs.errors import DataError, ModelError
from unirs.plugins import create
from unirs.tasks.media import Image, Media, Pair
from unirs.tasks.prompt import VISUAL, PromptTemplate, VisualFormat
from unirs.tasks.sample import Sample, Turn
from unirs.tasks.series import Series
from unirs.tasks.task import Task

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASK = PromptTemplate("vqa", "{question}")
END = 128


def ask(question: str = "a?", *answers: str) -> Turn:
    return Turn("t", answers or ("b",), {"question": question})


def sample(*turns: Turn, media: Media | None = None) -> Sample:
    return Sample("s", media or Image(Path("a.png")), turns)


def codes(text: str) -> list[int]:
    return [ord(character) for character in text]


def text(ids: list[int]) -> str:
    return "".join("." if code == 0 else "$" if code == END else chr(code) for code in ids)


@pytest.mark.parametrize(
    ("task", "grids", "expected"),
    [
        (
            "rsvqa_lr",
            1,
            "<|visual|>\n[vqa] Is there a road?\nAnswer the question using a single word or phrase.",
        ),
        (
            "rsvqa_hr",
            1,
            "<|visual|>\n[vqa] Is there a road?\nAnswer the question using a single word or phrase.",
        ),
        (
            "levir_cc",
            1,
            (
                "<|visual|>\n[change] Please briefly describe the main changes "
                "between the above two remote sensing images."
            ),
        ),
        ("era", 3, "<|visual|><|visual|><|visual|>\n[video] What is the event in the video?"),
    ],
)
def test_first_party_prompts(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, task: str, grids: int, expected: str
) -> None:
    built: Task = create("unirs.tasks", {"name": task, "root": tmp_path})
    turn = Turn("t", ("yes",), {"question": "Is there a road?"})
    assert PromptEncoder(tokenizer).render(built.prompt, turn, grids) == f"{expected}\n"
    tokenizer.chat_template = CHATML
    assert (
        PromptEncoder(tokenizer).render(built.prompt, turn, grids)
        == f"<|im_start|>user\n{expected}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_first_party_answer_in_a_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML
    sequence = PromptEncoder(tokenizer).encode_train(
        PromptTemplate("video", "What?"), sample(Turn("t", ("fire",))), 1, 1
    )
    assert text(sequence.input_ids) == (
        "<|im_start|>user\n.\n[video] What?<|im_end|>\n<|im_start|>assistant\nfire<|im_end|>\n$"
    )
    assert text([label for label in sequence.labels if label != IGNORE]) == "fire<|im_end|>\n$"


def test_text_of_a_sequence(tokenizer: PreTrainedTokenizerBase) -> None:
    sequence = PromptEncoder(tokenizer).encode_train(ASK, sample(ask("a?", "b")), num_images=1, tokens_per_image=2)
    #                      visual  \n  [   v    q    a   ]   _   a   ?   \n  b
    assert sequence.input_ids == [0, 0, 10, 91, 118, 113, 97, 93, 32, 97, 63, 10, 98, END]
    assert sequence.visual_mask == [True] * 2 + [False] * 12
    assert sequence.branch_end == [NO_END] * 2 + [14] * 12
    assert sequence.labels == [IGNORE] * 12 + [98, END]


def test_several_answers_and_turns_share_the_prefix(tokenizer: PreTrainedTokenizerBase) -> None:
    conversation = sample(ask("a?", "b", "c"), ask("d?", "e"))
    sequence = PromptEncoder(tokenizer).encode_train(ASK, conversation, num_images=1, tokens_per_image=1)
    # The last token of a question stands before each of its answers.
    assert text(sequence.input_ids) == ".\n[vqa] a?\nb$\nc$d?\ne$"
    assert sequence.branch_end == [NO_END] + [21] * 7 + [16] * 2 + [13] * 3 + [16] * 3 + [21] * 5
    assert text([label for label in sequence.labels if label != IGNORE]) == "b$c$e$"
    assert sequence.loss_weights == [0.0 if label == IGNORE else 1 / 3 for label in sequence.labels]
    assert all(label in (IGNORE, token) for label, token in zip(sequence.labels, sequence.input_ids, strict=True))


def test_labels_are_training_answers_rather_than_references(tokenizer: PreTrainedTokenizerBase) -> None:
    turn = Turn("t", ("road",), {"question": "a?"}, train_answers=("a road",))
    sequence = PromptEncoder(tokenizer).encode_train(ASK, sample(turn), 1, 1)
    assert text([label for label in sequence.labels if label != IGNORE]) == "a road$"


def test_empty_answer_trains_the_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    sequence = PromptEncoder(tokenizer).encode_train(ASK, sample(ask("a?", "")), 1, 1)
    assert text([label for label in sequence.labels if label != IGNORE]) == "$"


SERIES = Series(["a.png", "b.png", "c.png"], ["2016", "2017", "2019"])


@pytest.mark.parametrize(
    ("visual_format", "expected"),
    [
        (VisualFormat(), "Image 1, 2016:..Image 2, 2017:..Image 3, 2019:..\n[vqa] a?\n"),
        (VisualFormat("<", ">", ""), "Image 1, 2016:<..>Image 2, 2017:<..>Image 3, 2019:<..>[vqa] a?\n"),
    ],
)
def test_each_image_of_a_series_follows_its_label(
    tokenizer: PreTrainedTokenizerBase, visual_format: VisualFormat, expected: str
) -> None:
    encoder, dated = PromptEncoder(tokenizer, visual_format=visual_format), sample(ask(), media=SERIES)
    ((prompt, _),) = encoder.encode_prompts(ASK, dated, 3, 2)
    assert text(prompt.input_ids) == expected
    assert sum(prompt.visual_mask) == 6
    assert len(prompt.input_ids) == len(expected)
    for tree in (encoder.encode_train(ASK, dated, 3, 2), *encoder.encode_train_flat(ASK, dated, 3, 2)):
        assert text(tree.input_ids) == expected + "b$"
        assert [token for token, visual in zip(tree.visual_mask, tree.visual_mask, strict=True) if visual] == [True] * 6
    rendered = encoder.render(ASK, ask(), 3, labels=SERIES.frame_labels)
    assert rendered.replace(VISUAL, "..") == expected


def test_labels_follow_the_start_of_a_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML
    undated = sample(ask(), media=Series(["a.png", "b.png"]))
    ((prompt, _),) = PromptEncoder(tokenizer).encode_prompts(ASK, undated, 2, 1)
    assert text(prompt.input_ids) == (
        "<|im_start|>user\nImage 1:.Image 2:.\n[vqa] a?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_label_with_the_placeholder(tokenizer: PreTrainedTokenizerBase) -> None:
    dated = sample(ask(), media=Series(["a.png", "b.png"], ["2016", VISUAL]))
    with pytest.raises(DataError, match="label may not contain the visual placeholder"):
        PromptEncoder(tokenizer).encode_train(ASK, dated, 2, 1)


@pytest.mark.parametrize("template", [None, CHATML])
def test_generation_prompt_equals_training_prompt(tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
    tokenizer.chat_template = template
    encoder, conversation = PromptEncoder(tokenizer), sample(ask("a?", "bcd"))
    training = encoder.encode_train(ASK, conversation, num_images=2, tokens_per_image=3)
    ((generation, _),) = encoder.encode_prompts(ASK, conversation, num_images=2, tokens_per_image=3)
    n = len(generation.input_ids)
    assert training.input_ids[:n] == generation.input_ids
    assert training.visual_mask[:n] == generation.visual_mask
    assert set(generation.labels) == {IGNORE}
    assert training.labels[:n] == generation.labels
    assert IGNORE not in training.labels[n:]
    assert generation.prompt_ends == [n - 1]


def test_questions_with_a_common_prefix_share_it(tokenizer: PreTrainedTokenizerBase) -> None:
    conversation = sample(*map(ask, ("bc?", "a?", "bcd", "a?", "b")))
    ((sequence, turns),) = PromptEncoder(tokenizer).encode_prompts(ASK, conversation, num_images=1, tokens_per_image=1)
    assert text(sequence.input_ids) == ".\n[vqa] a?\nb\nc?\nd\n"
    assert sequence.branch_end == [NO_END] + [18] * 7 + [11] * 3 + [18] + [13] + [18] + [16] * 2 + [18] * 2
    assert turns == [1, 3, 4, 0, 2]
    assert sequence.prompt_ends == [10, 10, 12, 15, 17]


def test_rows_of_questions_are_full_and_even(tokenizer: PreTrainedTokenizerBase) -> None:
    conversation = sample(*map(ask, ("ab", "d", "ac", "b", "c")))
    rows = PromptEncoder(tokenizer).encode_prompts(ASK, conversation, num_images=1, tokens_per_image=1, max_tokens=15)
    # One row does not do. The first could take "b" as well, and would be longer than the second.
    assert [text(sequence.input_ids) for sequence, _ in rows] == [".\n[vqa] ab\nc\n", ".\n[vqa] b\nc\nd\n"]
    assert [turns for _, turns in rows] == [[0, 2], [3, 4, 1]]
    alike = PromptEncoder(tokenizer).encode_prompts(
        ASK, sample(*[ask()] * 9), num_images=1, tokens_per_image=1, max_tokens=13
    )
    # Ten tokens, and one for each that is the same.
    assert [turns for _, turns in alike] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


WORDS = st.text(st.sampled_from("ab?"), max_size=6)


@given(questions=st.lists(WORDS, min_size=1, max_size=8), answers=st.lists(WORDS, min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_answer_attends_to_its_question_and_nothing_else(
    tokenizer: PreTrainedTokenizerBase, questions: list[str], answers: list[str]
) -> None:
    encoder = PromptEncoder(tokenizer)
    turns = [ask(question, *answers) for question in questions]
    sequence = encoder.encode_train(ASK, sample(*turns), num_images=1, tokens_per_image=2)
    mask = tree_attention_mask(torch.tensor([sequence.branch_end]))[0]
    ends = [position for position, label in enumerate(sequence.labels) if label == END]
    attended = Counter(text(torch.tensor(sequence.input_ids)[mask[end]].tolist()) for end in ends)
    assert attended == Counter(f"..\n[vqa] {question}\n{answer}$" for question in questions for answer in answers)


@given(questions=st.lists(WORDS, min_size=1, max_size=8), max_tokens=st.none() | st.integers(0, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_question_is_encoded_once(
    tokenizer: PreTrainedTokenizerBase, questions: list[str], max_tokens: int | None
) -> None:
    encoded = PromptEncoder(tokenizer).encode_prompts(
        ASK, sample(*map(ask, questions)), num_images=1, tokens_per_image=2, max_tokens=max_tokens
    )
    assert sorted(turn for _, turns in encoded for turn in turns) == list(range(len(questions)))
    for sequence, turns in encoded:
        assert max_tokens is None or len(sequence.input_ids) - 2 <= max_tokens or len(turns) == 1
        mask = tree_attention_mask(torch.tensor([sequence.branch_end]))[0]
        for turn, position in zip(turns, sequence.prompt_ends, strict=True):
            attended = torch.tensor(sequence.input_ids)[mask[position]].tolist()
            assert text(attended) == f"..\n[vqa] {questions[turn]}\n"


def test_tokens_of_each_image(tokenizer: PreTrainedTokenizerBase) -> None:
    ((sequence, _),) = PromptEncoder(tokenizer).encode_prompts(ASK, sample(ask()), num_images=3, tokens_per_image=4)
    assert sum(sequence.visual_mask) == 12
    assert [code for code, visual in zip(sequence.input_ids, sequence.visual_mask, strict=True) if visual] == [0] * 12


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize(
    ("visual_format", "expected"),
    [
        (VisualFormat(), "....\n"),
        (VisualFormat(after="\n", end=""), "..\n..\n"),
        (VisualFormat("<", ">", " "), "<..><..> "),
    ],
)
def test_text_around_images(
    tokenizer: PreTrainedTokenizerBase, template: str | None, visual_format: VisualFormat, expected: str
) -> None:
    tokenizer.chat_template = template
    encoder = pickle.loads(pickle.dumps(PromptEncoder(tokenizer, visual_format=visual_format)))  # noqa: S301
    tree = encoder.encode_train(ASK, sample(ask("a?", "Y"), ask("c?", "Z")), 2, 2)
    mask = tree_attention_mask(torch.tensor([tree.branch_end]))[0]
    assert sum(tree.visual_mask) == 4
    plain, head = PromptEncoder(tokenizer), expected + "[vqa] "
    for question, label in [("a?", "Y"), ("c?", "Z")]:
        end = tree.labels.index(ord(label))
        attended = torch.tensor(tree.input_ids)[mask[end]].tolist()
        start = plain.render(ASK, ask(question), 1).partition(VISUAL)[0]
        assert text(attended).startswith(f"{start}{head}{question}")
        rendered = encoder.render(ASK, ask(question), 2)
        assert rendered.replace(VISUAL, "..").startswith(f"{start}{head}{question}")


def test_longest_sequence(tokenizer: PreTrainedTokenizerBase) -> None:
    conversation = sample(ask("a?", "b"), media=Pair(Path("x.png"), Path("y.png")))
    # 14 tokens, as written out above.
    assert len(PromptEncoder(tokenizer, max_length=14).encode_train(ASK, conversation, 1, 2).input_ids) == 14
    with pytest.raises(
        DataError, match=r"Sample 's' \(x\.png, y\.png\) has 14 tokens, 2 of them visual; max_length is 13"
    ):
        PromptEncoder(tokenizer, max_length=13).encode_train(ASK, conversation, 1, 2)
    with pytest.raises(DataError, match="has 12 tokens"):
        PromptEncoder(tokenizer, max_length=11).encode_prompts(ASK, conversation, 1, 2)


def test_context_of_the_language_model(tokenizer: PreTrainedTokenizerBase) -> None:
    conversation = sample(ask("a?", "bb"), ask("c?", "dd"), media=Pair(Path("x.png"), Path("y.png")))
    tree = PromptEncoder(tokenizer).encode_train(ASK, conversation, 1, 2)
    depth = tree.depth()
    assert depth == int(tree_attention_mask(torch.tensor([tree.branch_end]))[0].sum(1).max())
    assert depth < len(tree.input_ids)
    PromptEncoder(tokenizer, context=depth).encode_train(ASK, conversation, 1, 2)
    message = rf"Sample 's' \(x\.png, y\.png\) takes {depth} positions, 2 of them visual; .* has {depth - 1}"
    with pytest.raises(DataError, match=message):
        PromptEncoder(tokenizer, context=depth - 1).encode_train(ASK, conversation, 1, 2)


def test_no_answer_to_train_on(tokenizer: PreTrainedTokenizerBase) -> None:
    conversation = sample(ask(), Turn("t2", (), {"question": "b?"}))
    with pytest.raises(DataError, match=r"Sample 's' \(a\.png\), turn 't2' has no answer to train on"):
        PromptEncoder(tokenizer).encode_train(ASK, conversation, 1, 2)


def test_template_that_drops_the_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
    with pytest.raises(ModelError, match="drops the answer 'b'"):
        PromptEncoder(tokenizer).encode_train(ASK, sample(ask()), 1, 2)


def test_placeholder_in_a_question(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match="may not contain the visual placeholder"):
        PromptEncoder(tokenizer).render(ASK, ask(f"a {VISUAL}?"), 1)


def test_end_token_in_an_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match="may not contain the end-of-sequence token </s>: 'b</s>c'"):
        PromptEncoder(tokenizer).encode_train(ASK, sample(ask("a?", "b</s>c")), 1, 1)


@pytest.mark.parametrize("field", ["question", "", "question!r", "question:>9"])
def test_missing_field(field: str) -> None:
    with pytest.raises(DataError, match=r"which the turn does not have\. .*Known: questions\."):
        PromptTemplate("vqa", f"{{{field}}}")({"questions": "a?"})


def test_missing_field_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"field 'question'.*Did you mean 'questions'"):
        ASK({"questions": "a?"})


def test_braces() -> None:
    assert PromptTemplate("vqa", "{{x}} {question}")({"question": "{y}?"}) == "[vqa] {x} {y}?"


def test_template_that_renders_the_prompt_differently_with_an_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ messages | length }}" + CHATML
    encoder = PromptEncoder(tokenizer)
    assert encoder.render(ASK, ask(), 1).startswith("1<|im_start|>")
    with pytest.raises(ModelError, match="renders the prompt differently with an answer"):
        encoder.encode_train(ASK, sample(ask()), 1, 1)


QWEN3 = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
OPENS_A_BLOCK = QWEN3.replace("<think>\n\n</think>\n\n{% endif %}{% endif %}", "{% endif %}<think>\n{% endif %}")
"""The generation prompt opens a block that answers close, whatever the options."""
OPENS_A_BLOCK_ONLY_TO_GENERATE = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
IGNORES_OPTIONS = QWEN3.replace("enable_thinking is defined", "false")


@pytest.mark.parametrize(
    ("template", "before"),
    [
        (QWEN3, "<think>\n\n</think>\n\n"),
        (OPENS_A_BLOCK, "<think>\n\n</think>\n\n"),
        (IGNORES_OPTIONS, "<think>\n\n</think>\n\n"),
        (OPENS_A_BLOCK_ONLY_TO_GENERATE, ""),
    ],
)
def test_what_a_template_writes_before_the_answer_is_prompt(
    tokenizer: PreTrainedTokenizerBase, template: str, before: str
) -> None:
    tokenizer.chat_template = template
    encoder, conversation = PromptEncoder(tokenizer), sample(ask("a?", "yes"))
    training = encoder.encode_train(ASK, conversation, 1, 1)
    assert text([label for label in training.labels if label != IGNORE]) == "yes<|im_end|>\n$"
    ((generation, _),) = encoder.encode_prompts(ASK, conversation, 1, 1)
    assert training.input_ids[: len(generation.input_ids)] == generation.input_ids
    assert text(generation.input_ids).endswith(f"<|im_start|>assistant\n{before}")
    assert text(encoder.encode_choice("yes")) == "yes<|im_end|>\n$"


def test_template_that_does_not_render(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ raise_exception('no images') }}"
    with pytest.raises(ModelError, match=r"chat template does not render \(no images\)"):
        PromptEncoder(tokenizer).render(ASK, ask(), 1)


def test_template_that_drops_the_images(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ messages[0].content.split('\n')[1] }}"
    with pytest.raises(ModelError, match="dropped the visual placeholder"):
        PromptEncoder(tokenizer).render(ASK, ask(), 1)


def test_pickles_for_worker_processes(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = PromptEncoder(tokenizer, max_length=31)
    copy: PromptEncoder = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - its own bytes
    conversation = sample(ask("a?", "b"))
    assert copy.encode_train(ASK, conversation, 1, 2) == encoder.encode_train(ASK, conversation, 1, 2)
    assert copy.max_length == 31
