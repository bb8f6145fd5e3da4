"""UniRS as a model of lmms-eval: `lmms-eval --model unirs --model_args pretrained=RUN --tasks …`.

lmms-eval, which finds `manifest` by its entry point, imports this module; nothing else does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from unirs.data.dataset import Example
from unirs.errors import UniRSError
from unirs.inference.api import UniRS
from unirs.inference.completion import Decoding
from unirs.metrics.base import Prediction
from unirs.tasks.config import TaskConfig
from unirs.tasks.inputs import as_media
from unirs.tasks.sample import TaskSplit

# Frames of a video of a task that is not ours.
_NUM_FRAMES = 8


class UniRSForLmmsEval(lmms):  # type: ignore[misc] # lmms-eval has no types
    """Answers questions of lmms-eval.

    Tasks that `unirs export` wrote are answered as by `unirs bench`: with the task's prompt, clues and media. Of other
    tasks, one image is an image, two are a pair, more are a series, and the text is the question.

    Args:
        pretrained: a training run, a saved model or a hub id.
        device: of the model; the first GPU, or else the CPU, if None.
        batch_size: samples answered at once.
        max_batch_size: of lmms-eval; not used.
        decoding: `loglikelihood` chooses the likeliest answer if an exported task has choices.
        trust_remote_code: run code that the model's config names by file or dotted path.
    """

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        batch_size: int | str = 16,
        max_batch_size: object = None,  # noqa: ARG002 - lmms-eval passes it
        decoding: Decoding = "generate",
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UniRSError("The model 'unirs' of lmms-eval runs in one process: start it without a launcher.")
        self.unirs = UniRS.from_pretrained(pretrained, device=device, trust_remote_code=trust_remote_code)
        self.batch_size, self.decoding = int(batch_size), decoding

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers to questions of lmms-eval, in order."""
        arguments = [request.args for request in requests]
        documents = [self.task_dict[task][split][index] for _, _, _, index, task, split in arguments]
        exported: dict[str, list[int]] = {}
        for position, document in enumerate(documents):
            # The config of the task, in files that `unirs export` wrote.
            spec = document.get("task") if "row" in document else None
            exported.setdefault(str(spec or ""), []).append(position)
        answers = [""] * len(arguments)
        for spec, positions in exported.items():
            chosen = [documents[position] for position in positions]
            texts = self._exported(spec, chosen) if spec else [self._other(*arguments[one]) for one in positions]
            for position, text in zip(positions, texts, strict=True):
                answers[position] = text
        return answers

    def _exported(self, spec: str, documents: Sequence[Mapping[str, Any]]) -> Iterable[str]:
        config, split = _task(spec)
        turns: dict[int, set[str]] = {}
        for document in documents:
            turns.setdefault(document["sample"], set()).add(document["turn"])
        samples = [
            replace(split[index], turns=tuple(turn for turn in split[index].turns if turn.id in ids))
            for index, ids in turns.items()
        ]
        saved = self.unirs.config.prompts.get(config.name)
        media = [sample.media for sample in samples]
        clues = self.unirs.clue_generator(media) if saved is not None and saved.clue else {}
        rows = self.unirs.predict_examples(
            {config.name: config.task.prompt},
            [Example(config.name, sample, clues.get(sample.media, "")) for sample in samples],
            batch_size=self.batch_size,
            choices=self._choices(config) if self.decoding == "loglikelihood" else None,
            progress=True,
        )
        texts = {row.id: row.text for row, _ in rows}
        return [texts[document["turn"]] for document in documents]

    @staticmethod
    def _choices(config: TaskConfig) -> Any:  # noqa: ANN401 - `Choices`
        def choices(query: Prediction) -> Sequence[str]:
            return config.task.choices_for(query.category)

        return choices

    def _other(self, text: str, options: Mapping[str, Any], to_visual: Any, index: int, task: str, split: str) -> str:  # noqa: ANN401
        visuals = to_visual(self.task_dict[task][split][index])
        media = as_media(visuals[0] if len(visuals) == 1 else tuple(visuals), num_frames=_NUM_FRAMES)
        longest = options.get("max_new_tokens")
        (answer,) = self.unirs.predict([media], text.strip(), details=False, max_new_tokens=longest)
        found = answer.text
        for end in options.get("until") or ():
            found = found.split(end)[0] if end else found
        return found

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:  # noqa: ARG002 - lmms-eval's signature
        """Not supported."""
        raise UniRSError("The model 'unirs' answers tasks of output_type 'generate_until' only. Name another task.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:  # noqa: ARG002
        """Not supported."""
        raise UniRSError("The model 'unirs' answers tasks of output_type 'generate_until' only. Name another task.")


@lru_cache(maxsize=4)
def _task(spec: str) -> tuple[TaskConfig, TaskSplit]:
    config = TaskConfig.from_config(json.loads(spec))
    return config, config.task.load_split("test")


def manifest() -> Any:  # noqa: ANN401 - lmms-eval has no types
    """Registers the model with lmms-eval."""
    path = f"{UniRSForLmmsEval.__module__}.{UniRSForLmmsEval.__qualname__}"
    return ModelManifest(model_id="unirs", simple_class_path=path)
