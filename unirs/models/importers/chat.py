"""Chat templates of processors, which take lists of images and texts, as templates of plain text with a placeholder."""

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.errors import ModelError
from unirs.tasks.prompt import VISUAL, VisualFormat

_PROBE = "<<text>>"

# A message that starts with the placeholder becomes an image and a text.
_SPLIT_MESSAGES = (
    "{% set unirs = namespace(messages=[]) %}{% for message in messages %}"
    "{% set texts = message.content.split('" + VISUAL + "') %}"
    "{% set image = [{'type': 'image'}] if texts | length > 1 else [] %}"
    "{% set content = image + [{'type': 'text', 'text': texts[-1]}] %}"
    "{% set unirs.messages = unirs.messages + [{'role': message.role, 'content': content}] %}"
    "{% endfor %}{% set messages = unirs.messages %}"
)


def render_chat(processor: Any, num_images: int, question: str) -> str:  # noqa: ANN401 - any processor
    """A prompt with images and a question, in the processor's chat template."""
    content = [*[{"type": "image"}] * num_images, {"type": "text", "text": question}]
    message = {"role": "user", "content": content}
    # As in the prompts of UniRS.
    options = {"enable_thinking": False} if "enable_thinking" in str(processor.chat_template) else {}
    return str(processor.apply_chat_template([message], add_generation_prompt=True, **options))


def takes_images(processor: Any) -> bool:  # noqa: ANN401
    """Whether the processor has a chat template, and not one of plain text."""
    try:
        parts = render_chat(processor, 1, _PROBE).split(processor.image_token)
    except (TypeError, ValueError, AttributeError, TemplateError):
        return False
    return len(parts) == 2 and _PROBE in parts[1]


def convert_chat(
    source: Path,
    processor: Any,  # noqa: ANN401 - any processor
    before: str,
    after: str,
    generation_config: Any,  # noqa: ANN401
) -> tuple[PreTrainedTokenizerBase, VisualFormat]:
    """The processor's tokenizer with a chat template of plain text, and the text around the visual tokens.

    Args:
        source: for messages.
        processor: of images and text.
        before: text that the processor writes before the visual tokens of an image.
        after: text that it writes after them.
        generation_config: of the model; names the tokens that end an answer.

    Raises:
        ModelError: the template has no form for several images that is a repetition of that for one.
    """
    tokenizer: PreTrainedTokenizerBase = processor.tokenizer
    template = processor.chat_template or tokenizer.chat_template
    if isinstance(template, dict):
        template = template["default"]
    image = processor.image_token
    processor.chat_template = template
    if not takes_images(processor):
        return tokenizer, VisualFormat(before, f"{after}\n", "", continued=True)
    (start, end), two = (render_chat(processor, count, _PROBE).split(image) for count in (1, 2))
    between = two[1] if len(two) == 3 else None
    if between is not None and two == [start, between, end] and end.startswith(between):
        marker, visual_format = image + between, VisualFormat(before, after + between, "", continued=True)
    elif between is not None and two == [start, between, end] and start.endswith(between):
        marker, visual_format = between + image, VisualFormat(between + before, after, "", continued=True)
    else:
        raise ModelError(f"{source} has a chat template that renders several images differently from one: {two}.")
    # The template may leave the start token to the tokenizer.
    add_bos = tokenizer("")["input_ids"] == [tokenizer.bos_token_id] and not start.startswith(str(tokenizer.bos_token))
    bos = "{{ bos_token }}" if add_bos else ""
    rendered = f"{{% set rendered %}}{template.removesuffix(chr(10))}{{% endset %}}"
    restored = f"{{{{ rendered.replace({json.dumps(marker)}, '{VISUAL}', 1) }}}}"
    tokenizer.chat_template = bos + _SPLIT_MESSAGES + rendered + restored
    _set_end(tokenizer, generation_config)
    return tokenizer, visual_format


def _set_end(tokenizer: PreTrainedTokenizerBase, generation_config: Any) -> None:  # noqa: ANN401
    """Sets the end token to the one that the template writes after an answer, if generation stops at it."""
    ids = generation_config.eos_token_id
    tokens = tokenizer.convert_ids_to_tokens([one for one in (ids if isinstance(ids, list) else [ids]) if one])
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
    rest = str(tokenizer.apply_chat_template(messages, tokenize=False)).partition(_PROBE)[2].lstrip()
    end = next((token for token in tokens if rest.startswith(token)), None)
    if end is not None:
        tokenizer.eos_token = end
