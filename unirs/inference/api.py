"""`UniRS`: a trained model in three lines of Python.

from unirs import Pair, UniRS

model = UniRS.from_pretrained("runs/quickstart")
model.answer(Pair("before.tif", "after.tif"), "What changed?")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from huggingface_hub import ModelHubMixin
from tqdm import tqdm
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.data.clues import BaseVLM, ClueCache, ClueConfig, generate_clues
from unirs.data.dataset import Example, VisualInput
from unirs.data.processor import Processor
from unirs.errors import UniRSError, did_you_mean
from unirs.inference.completion import Choices, Reply, reply
from unirs.inference.hf_model import HFImageTextModel
from unirs.metrics.base import Prediction
from unirs.models.builder import build_processor
from unirs.models.pretrained import PromptConfig, UniRSConfig, is_saved_model, merged, write_model
from unirs.models.tuning import adapters_off, base_state, write_adapter
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn
from unirs.utils.hashing import fingerprint
from unirs.utils.io import replacing_folder
from unirs.utils.sources import resolve_source

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Answer:
    """What the model says about one medium, and how.

    Attributes:
        text: the answer.
        media: what was shown.
        task: whose prompt was used.
        prompt: the text that the model was given.
        clue: the clue in the prompt; empty where none was used.
        tokens: the answer's tokens, then the end token where the answer ended by itself; empty unless asked for.
        log_probabilities: the natural logarithm of each of these tokens' probability; one number, for the whole answer,
            where it was chosen.
        choices: the natural logarithm of each choice's probability, where there was a choice.
        change_map: for a pair, float32 `[h, w]` in -1..1, how alike the two times are at each place of the encoder's
            grid (1 is unchanged). None for other media, for change extractors without one, and unless asked for.
    """

    text: str
    media: Media
    task: str
    prompt: str
    clue: str
    tokens: tuple[str, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    choices: Mapping[str, float] = field(default_factory=dict)
    change_map: np.ndarray | None = None


class UniRS(ModelHubMixin, library_name="unirs", tags=["remote-sensing", "vision-language-model"]):
    """A trained model with its tokenizer and prompts. Made by `from_pretrained`.

    Args:
        model: the weights.
        tokenizer: the language model's.
        config: how the parts are built, and what they are asked.
    """

    def __init__(self, model: UniRSModel, tokenizer: PreTrainedTokenizerBase, config: UniRSConfig) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
        **hub: Any,  # noqa: ANN401 - as huggingface_hub has them
    ) -> UniRS:
        """Loads a model.

        Args:
            pretrained_model_name_or_path: the folder of a training run or of a saved model, or a hub id.
            device: where it runs; a GPU where there is one, if left out.
            trust_remote_code: also run components that a saved model names by file or dotted path, instead of an
                installed plugin's name. A training run names its own code: load only runs that you trust.
            hub: what `huggingface_hub.snapshot_download` takes: `revision`, `token`, `cache_dir`, …

        Raises:
            ModelError: it is neither, or its weights do not fit; lists the keys.
            UniRSError: the run has no checkpoint.
        """
        from unirs.models.run_folder import load_pretrained

        model = cls(*load_pretrained(pretrained_model_name_or_path, trust_remote_code=trust_remote_code, **hub))
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model.model.to(device)
        return model

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        merge: bool = False,
        **options: Any,  # noqa: ANN401 - as huggingface_hub has them
    ) -> str | None:
        """Writes weights, config, tokenizer and a model card to a folder that loads without the training config.

        Args:
            save_directory: a new folder, or that of an earlier saved model, which is replaced as a whole.
            merge: save `merged()`, a model without adapters.
            options: what `huggingface_hub.ModelHubMixin.save_pretrained` takes, such as `push_to_hub`.

        Raises:
            UniRSError: the folder holds something else.
        """
        if merge:
            return self.merged().save_pretrained(save_directory, **options)
        folder = Path(save_directory)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not is_saved_model(folder):
            raise UniRSError(f"{folder} holds something else than a saved UniRS model. Name a new folder.")
        with replacing_folder(folder) as partial_folder:
            return super().save_pretrained(partial_folder, **options)

    def merged(self) -> UniRS:
        """A copy of the model whose LoRA adapters are merged into its weights.

        Its answers are the same up to rounding in the weights' dtype.
        """
        model, config = merged(self.model, self.config)
        return UniRS(model, self.tokenizer, config)

    def save_adapter(self, save_directory: str | Path) -> None:
        """Writes the language model's LoRA adapters as a PEFT folder, with the tokenizer.

        `peft.PeftModel.from_pretrained(base, save_directory)` loads them, where `base` is the language model that was
        trained; if tokens were added, call `base.resize_token_embeddings(len(tokenizer))` before.

        Args:
            save_directory: a new or empty folder, or one that holds an earlier adapter, which is replaced as a whole.

        Raises:
            ModelError: the language model has no adapters.
            UniRSError: the folder holds something else.
        """
        folder = Path(save_directory)
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if occupied and not (folder / "adapter_config.json").is_file():
            raise UniRSError(f"{folder} holds something else than a LoRA adapter. Name a new folder.")
        with replacing_folder(folder) as partial_folder:
            write_adapter(partial_folder, self.model.llm)
            self.tokenizer.save_pretrained(partial_folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_model(save_directory, self.model, self.tokenizer, self.config)

    @property
    def processor(self) -> Processor:
        """Describes the model's inputs."""
        return build_processor(self.model, self.tokenizer, max_length=self.config.max_length)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @overload
    def answer(self, media: Media, question: str | None = ..., **options: Any) -> str: ...  # noqa: ANN401 - what `explain` takes
    @overload
    def answer(
        self,
        media: Sequence[Media],
        question: str | Sequence[str] | None = ...,
        **options: Any,  # noqa: ANN401
    ) -> list[str]: ...
    def answer(
        self,
        media: Media | Sequence[Media],
        question: str | Sequence[str] | None = None,
        **options: Any,
    ) -> str | list[str]:
        """Answers questions about media.

        Args:
            media: one, or several, which are batched and may be of several kinds.
            question: one for all, or one for each of the media; where left out, the task's own instruction.
            options: what `explain` takes.

        Returns:
            The text, or one text for each of the media.

        Raises:
            UniRSError: media, task and questions do not fit together.
        """
        if isinstance(media, Sequence):
            return [answer.text for answer in self.predict(media, question, **{"details": False} | options)]
        if question is not None and not isinstance(question, str):
            raise UniRSError("Several questions about one medium: name it once for each of them, as a list.")
        (answer,) = self.predict([media], question, **{"details": False} | options)
        return answer.text

    def predict(
        self,
        media: Sequence[Media],
        question: str | Sequence[str] | None = None,
        *,
        task: str | None = None,
        clue: bool | str | None = None,
        choices: Sequence[str] | None = None,
        details: bool = True,
        max_new_tokens: int | None = None,
        batch_size: int = 16,
        progress: bool = False,
    ) -> list[Answer]:
        """Answers questions about media, and tells how it came to the answers.

        Args:
            media: of any kinds.
            question: one for all, or one for each of the media; where left out, the task's own instruction.
            task: whose prompt to use; where left out, the first task of each medium's kind.
            clue: the clue to use, or whether to make one; where left out, as the task was trained.
            choices: the answers to choose among by likelihood; free text where left out.
            details: with tokens, log-probabilities and change maps.
            max_new_tokens: the longest answer in tokens; the model's own where left out.
            batch_size: media at once.
            progress: show a progress bar.

        Raises:
            UniRSError: media, task and questions do not fit together.
        """
        questions = [question] * len(media) if question is None or isinstance(question, str) else list(question)
        if len(questions) != len(media):
            raise UniRSError(f"{len(questions)} questions for {len(media)} media: give one for all, or one for each.")
        named = [self._prompt(medium, asked, task) for medium, asked in zip(media, questions, strict=True)]
        clues = self._clues(media, [saved.clue for _, saved, _ in named], clue)
        prompts, items = {}, []
        for index, (medium, asked, (name, _, prompt)) in enumerate(zip(media, questions, named, strict=True)):
            # A task may be asked in its own words here and in the user's there.
            key = f"{name}:{prompt.instruction}"
            prompts[key] = prompt
            turn = Turn(str(index), (), {"question": asked or ""})
            items.append(Example(key, Sample(str(index), medium, (turn,)), clue=clues.get(medium, "")))
        said = self.predict_examples(
            prompts,
            items,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            choices=None if choices is None else lambda _: choices,
            details=details,
            progress=progress,
        )
        return [
            Answer(
                text=row.text,
                media=medium,
                task=name,
                prompt=row.prompt,
                clue=row.clue,
                tokens=tuple(self.tokenizer.convert_ids_to_tokens(list(reply.ids))) if details else (),
                log_probabilities=reply.log_probabilities,
                choices=reply.choices,
                change_map=None if change_map is None else change_map.float().cpu().numpy(),
            )
            for medium, (name, _, _), (row, reply, change_map) in zip(media, named, said, strict=True)
        ]

    def _prompt(
        self, medium: Media, question: str | None, task: str | None
    ) -> tuple[str, PromptConfig, PromptTemplate]:
        """The task's name, its saved prompt, and the template to use."""
        known = self.config.prompts
        fitting = {name: saved for name, saved in known.items() if saved.modality == medium.modality}
        if task is not None and task not in fitting:
            raise UniRSError(
                f"The model has no task '{task}' for {medium.modality} media. {did_you_mean(task, fitting)}"
            )
        if not fitting:
            raise UniRSError(
                f"The model has no task for {medium.modality} media: it was trained on {', '.join(known)}."
            )
        name = task or next(iter(fitting))
        saved = fitting[name]
        if "{question}" in saved.instruction:
            if question is None:
                raise UniRSError(f"Task '{name}' needs a question, such as 'Is there a road?'.")
            return name, saved, saved.prompt
        # The task's instruction is fixed; a question of the user's own takes its place.
        return name, saved, saved.prompt if question is None else PromptTemplate(saved.task_tag, "{question}")

    def clues_for(self, task: str, media: Sequence[Media]) -> Mapping[Media, str]:
        """The clues that a task's prompts hold; none where it was trained without, or is not known."""
        saved = self.config.prompts.get(task)
        return self._clues(media, [saved is not None and saved.clue] * len(media), None)

    def _clues(self, media: Sequence[Media], trained: Sequence[bool], clue: bool | str | None) -> Mapping[Media, str]:
        if isinstance(clue, str):
            return dict.fromkeys(media, clue)
        wanted = [medium for medium, used in zip(media, trained, strict=True) if (used if clue is None else clue)]
        if not wanted:
            return {}
        return ClueGenerator(self.config.clue, lambda: self)(wanted)

    def predict_examples(
        self,
        prompts: Mapping[str, PromptTemplate],
        items: Sequence[Example],
        *,
        max_new_tokens: int | None = None,
        batch_size: int = 16,
        choices: Choices | None = None,
        details: bool = False,
        progress: bool = False,
    ) -> Iterator[tuple[Prediction, Reply, torch.Tensor | None]]:
        """Answers all turns of items, for evaluations; `explain` is what people use.

        Args:
            prompts: by task.
            items: what to ask; may be made one by one.
            max_new_tokens: the longest answer in tokens; the model's own where left out.
            batch_size: media at once.
            choices: what a question allows, where it is to be ranked.
            details: also log-probabilities and change maps.
            progress: show a progress bar.

        Yields:
            Each turn's row with the answer, the reply, and the change map `[h, w]` of its pair.
        """
        processor = self.processor
        renderer = processor.prompt_encoder()
        collate = replace(processor.collator(training=False), prompts=prompts)
        bar = tqdm(total=len(items), desc="answers", unit="media", disable=not progress)
        with bar, _evaluating(self.model):
            for start in range(0, len(items), batch_size):
                chunk = items[start : start + batch_size]
                frames = [item.sample.media.load_frames(processor.image_size, processor.resize) for item in chunk]
                batch = collate(list(zip(chunk, map(VisualInput, frames), strict=True))).to(self.device)
                with torch.no_grad():
                    batch = replace(batch, vision_features=self.model.encode_frames(batch))
                replies = reply(
                    self.model,
                    renderer,
                    batch,
                    max_new_tokens=max_new_tokens or self.config.max_new_tokens,
                    choices=choices,
                    log_probabilities=details,
                )
                maps = self.model.change_maps(batch) if details else [None] * len(chunk)
                for asked, said, (row, _) in zip(batch.queries, replies, batch.prompt_ends, strict=True):
                    (owner,) = batch.row_media[row]
                    yield replace(asked, text=said.text), said, maps[owner]
                bar.update(len(chunk))


class ClueGenerator:
    """The clues of a model: its base VLM, loaded when it is first needed, and their cache.

    Args:
        source: who says them.
        own: the model itself, for a source that names no other.
    """

    def __init__(self, source: ClueConfig, own: Callable[[], UniRS]) -> None:
        self.source = source
        self.own = own
        self._vlm: BaseVLM | None = None

    def __call__(self, media: Sequence[Media]) -> dict[Media, str]:
        """What the base VLM says about media; shows a progress bar for those that are not in the cache."""
        if self.source.source is None:
            # Another one after every training step.
            vlm: BaseVLM = _UniRSBaseVLM(self.own(), plain=True)
        else:
            vlm = self._vlm = self._vlm or self._load(self.source.source)
        return generate_clues(
            vlm,
            media,
            cache=ClueCache(Path(self.source.cache)),
            batch_size=self.source.batch_size,
            max_new_tokens=self.source.max_new_tokens,
        )

    @torch.inference_mode(False)
    def _load(self, source: str) -> BaseVLM:
        # Called within evaluation loops, in whose inference mode no model can be built.
        device = self.own().device
        folder = Path(resolve_source(source))
        if (folder / "config.yaml").is_file() or is_saved_model(folder):
            return _UniRSBaseVLM(UniRS.from_pretrained(folder, device=device), plain=False)
        return HFImageTextModel(source, device=device)


class _UniRSBaseVLM:
    """A UniRS model as base VLM.

    Args:
        model: whom to ask.
        plain: without tags and with its adapters off, as its language model was before it learnt.
    """

    def __init__(self, model: UniRS, *, plain: bool) -> None:
        self.model = model
        self.plain = plain

    @property
    def fingerprint(self) -> str:
        part = self.model.model
        return fingerprint(base_state(part) if self.plain else part.state_dict())

    def generate(self, media: Sequence[Media], questions: Sequence[str], max_new_tokens: int) -> list[str]:
        if not self.plain:
            return self.model.answer(media, questions, clue=False, max_new_tokens=max_new_tokens)
        turns = [Turn(str(index), (), {"question": question}) for index, question in enumerate(questions)]
        items = [Example("", Sample(turn.id, one, (turn,))) for turn, one in zip(turns, media, strict=True)]
        with adapters_off(self.model.model):
            said = self.model.predict_examples(
                {"": PromptTemplate("", "{question}")}, items, max_new_tokens=max_new_tokens, batch_size=len(items)
            )
            return [row.text for row, _, _ in said]


@contextmanager
def _evaluating(model: UniRSModel) -> Iterator[None]:
    """Evaluation mode, and then the mode before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
