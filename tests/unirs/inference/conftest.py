from collections.abc import Callable

import pytest
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from tests.unirs.inference.questions import Asked
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Media


@pytest.fixture
def asked(make_model: Callable[..., UniRSModel], tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]) -> Asked:
    return Asked(make_model().eval(), tokenizer, list(media.values()))
