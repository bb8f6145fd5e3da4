"""`UniRS`: a trained model in Python, `UniRS.from_pretrained("runs/quickstart")`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.data.collator import Collator
from unirs.data.dataset import Example
from unirs.data.frame_cache import FrameCache
from unirs.data.loaders import make_loader
from unirs.data.memory_features import FeatureStore
from unirs.data.processor import Processor
from unirs.errors import UniRSError
from unirs.inference import options as checks
from unirs.inference.clue_generator import ClueGenerator
from unirs.inference.completion import Choices, Completion, add_vision_features, complete
from unirs.inference.generation_options import GREEDY, GenerationOptions
from unirs.inference.text_stream import OnText, TextStreams
from unirs.inference.user_questions import UserQuestion, group_by_media, user_questions
from unirs.metrics.base import Prediction
from unirs.models.builder import build_processor
from unirs.models.pretrained import UniRSConfig, is_saved_model, merged, write_model
from unirs.models.tuning import write_adapter
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.utils.io import replacing_folder
from unirs.utils.progress import progress_bar
from unirs.utils.sources import resolve_source


class UniRS(ModelHubMixin, library_name="unirs", tags=["remote-sensing", "vision-language-model"]):
    """A trained model with its tokenizer and prompts. Made by `from_pretrained`.

    Args:
        model: The components with their weights.
        tokenizer: The language model's.
        config: How the components are built, and the prompts of the tasks.

    Attributes:
        feature_cache: Features of the encoder, which `predict` looks up and adds; None by default.
    """

    def __init__(self, model: UniRSModel, tokenizer: PreTrainedTokenizerBase, config: UniRSConfig) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.feature_cache: FeatureStore | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
        clue_source: str | None = None,
        **hub: Any,  # noqa: ANN401 - as huggingface_hub has them
    ) -> UniRS:
        """Loads a model.

        Args:
            pretrained_model_name_or_path: Folder of a training run or of a saved model, or a hub id.
            device: Device of the weights; None for a GPU if there is one.
            trust_remote_code: Run code that its config names by file or dotted path, and use its clue paths.
            clue_source: `ClueConfig.source`, for a model that was trained with the clues of another one.
            hub: Options of `huggingface_hub.snapshot_download` for a hub id: `revision`, `token`, `cache_dir`, …

        Raises:
            ModelError: the source is neither, or its weights do not fit; lists the keys.
            UniRSError: an option is unknown or does not apply, or the run has no checkpoint.
        """
        from unirs.models.run_folder import load_pretrained

        source = str(pretrained_model_name_or_path)
        names = {"device", "trust_remote_code", "clue_source", *inspect.signature(snapshot_download).parameters}
        checks.check_names("UniRS.from_pretrained", hub, names)
        folder = Path(resolve_source(source))
        if hub and folder.exists():
            raise UniRSError(f"Options of a download do not apply to the folder {folder}: {', '.join(hub)}. Omit them.")
        model = cls(*load_pretrained(source, trust_remote_code=trust_remote_code, **hub))
        if clue_source is not None:
            model.config = replace(model.config, clue=replace(model.config.clue, source=clue_source))
        checks.move_to_device(model.model, device or ("cuda" if torch.cuda.is_available() else "cpu"), source)
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
            save_directory: A new folder, or that of an earlier saved model, which is replaced as a whole.
            merge: Save `merged()`, a model without adapters.
            options: Options of `huggingface_hub.ModelHubMixin.save_pretrained`, such as `push_to_hub`.

        Raises:
            UniRSError: an option is unknown, or the folder holds something else.
        """
        checks.check_names("UniRS.save_pretrained", options, checks.SAVING_OPTIONS)
        if merge:
            return self.merged().save_pretrained(save_directory, **options)
        folder = Path(save_directory)
        if _is_occupied(folder) and not is_saved_model(folder):
            raise UniRSError(f"{folder} holds something else than a saved UniRS model. Name a new folder.")
        with replacing_folder(folder) as partial_folder:
            return super().save_pretrained(partial_folder, **options)

    def merged(self) -> UniRS:
        """A copy of the model with merged LoRA adapters; its answers are the same up to rounding."""
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
        if _is_occupied(folder) and not (folder / "adapter_config.json").is_file():
            raise UniRSError(f"{folder} holds something else than a LoRA adapter. Name a new folder.")
        with replacing_folder(folder) as partial_folder:
            write_adapter(partial_folder, self.model.llm)
            self.tokenizer.save_pretrained(partial_folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_model(save_directory, self.model, self.tokenizer, self.config)

    @property
    def processor(self) -> Processor:
        """Describes the model's inputs."""
        return build_processor(self.model, self.tokenizer, self.config.visual_format, max_length=self.config.max_length)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device

    @overload
    def answer(self, media: list[Any], question: str | Sequence[str] | None = None, **options: Any) -> list[str]: ...  # noqa: ANN401
    @overload
    def answer(self, media: Any, question: str | None = None, **options: Any) -> str: ...  # noqa: ANN401
    def answer(self, media: Any, question: str | Sequence[str] | None = None, **options: Any) -> str | list[str]:
        """Answers questions about media.

        Args:
            media: One input: an `Image`, `Pair`, `Video`, `Series` or other `Media`; a path to an image or video, a PIL
                image or an array; or a tuple of two images, which is a pair, or of more, which is a series. Or a list
                of inputs of any modalities.
            question: One for all, or one for each input; None for the task's own instruction.
            options: Options of `predict`.

        Returns:
            The answer as text; for a list of inputs, a list of texts.

        Raises:
            MediaError: it is unclear what an input is, or it does not decode.
            UniRSError: media, task and questions do not fit together, or an option is unknown.
        """
        checks.check_names("UniRS.answer", options, _PREDICT_OPTIONS)
        all_media = isinstance(media, Sequence) and bool(media) and all(isinstance(one, Media) for one in media)
        several = isinstance(media, list) or all_media
        if not several and question is not None and not isinstance(question, str):
            raise UniRSError("Several questions about one input: repeat the input in a list, once for each question.")
        answers = self.predict(media if several else [media], question, **{"details": False} | options)
        return [answer.text for answer in answers] if several else answers[0].text

    def predict(
        self,
        media: Sequence[Any],
        question: str | Sequence[str | None] | None = None,
        *,
        task: str | None = None,
        clue: bool | str | None = None,
        choices: Sequence[str] | None = None,
        details: bool = True,
        max_new_tokens: int | None = None,
        generation: GenerationOptions = GREEDY,
        batch_size: int = 16,
        progress: bool = False,
        on_text: OnText | None = None,
    ) -> list[Completion]:
        """Answers questions about media, with details. Questions about equal media share the prefix of the prompt.

        Args:
            media: Inputs as `answer` takes them, of any modalities; at least one.
            question: One for all, or one for each input; None for the task's own instruction.
            task: The task whose prompt is used; None for the first task of each input's modality.
            clue: The clue to use, or whether to generate one; None for the way in which the task was trained.
            choices: Answers to choose among by likelihood; None for free text.
            details: Whether to return tokens, logprobs and change maps.
            max_new_tokens: Maximum length of an answer in tokens; None for the model's own.
            generation: How free text is generated; greedily by default.
            batch_size: Different inputs per batch.
            progress: Whether to show a progress bar.
            on_text: Called with the index of an input and the next piece of its answer while it is generated; the
                pieces together are the answer. One piece for choices, for beams, and for boxes that are converted
                to those of the image. An exception that it raises ends the generation.

        Raises:
            MediaError: it is unclear what an input is, or it does not decode.
            UniRSError: media, task and questions do not fit together, or an option is out of range.
        """
        if not isinstance(media, Sequence) or isinstance(media, str | bytes):
            raise UniRSError(f"predict takes a list of inputs, not a {type(media).__name__}. Use answer for one input.")
        if not media:
            raise UniRSError("The list of media is empty. Pass at least one.")
        checks.check_choices(choices)
        questions = user_questions(self.config.prompts, media, question, task)
        prompts, examples, order = group_by_media(questions, self._clues(questions, clue))
        answers = self.predict_examples(
            prompts,
            examples,
            max_new_tokens=max_new_tokens,
            generation=generation,
            batch_size=batch_size,
            choices=None if choices is None else lambda _: choices,
            details=details,
            progress=progress,
            on_text=None if on_text is None else lambda turn, piece: on_text(order[turn], piece),
        )
        found = {index: answer for index, (_, answer) in zip(order, answers, strict=True)}
        return [replace(found[index], task=one.task) for index, one in enumerate(questions)]

    @property
    def clue_generator(self) -> ClueGenerator:
        """Generates clues with the base VLM that the model was trained with."""
        return ClueGenerator(self.config.clue, self._itself, foreign=self.config.foreign_clues)

    def _itself(self) -> UniRS:
        # A bound method pickles, as a lambda does not.
        return self

    def _clues(self, questions: Sequence[UserQuestion], clue: bool | str | None) -> Mapping[Media, str]:
        if isinstance(clue, str):
            return dict.fromkeys((one.media for one in questions), clue)
        described = [one.media for one in questions if (one.uses_clue if clue is None else clue)]
        return self.clue_generator(described) if described else {}

    def predict_examples(
        self,
        prompts: Mapping[str, PromptTemplate],
        examples: Sequence[Example],
        *,
        max_new_tokens: int | None = None,
        generation: GenerationOptions = GREEDY,
        batch_size: int = 16,
        num_workers: int = 0,
        choices: Choices | None = None,
        details: bool = False,
        progress: bool = False,
        on_text: OnText | None = None,
    ) -> Iterator[tuple[Prediction, Completion]]:
        """Answers all turns of examples, for evaluations; `predict` is for interactive use.

        Args:
            prompts: Prompt template of each task.
            examples: May be made one by one.
            max_new_tokens: Maximum length of an answer in tokens; None for the model's own.
            generation: How free text is generated.
            batch_size: Examples per batch.
            num_workers: Processes that decode media and encode prompts.
            choices: The choices of each question; None for free text.
            details: Whether to return tokens, logprobs and change maps.
            progress: Whether to show a progress bar.
            on_text: As in `predict`, with the index of a turn among those of all examples.

        Yields:
            The prediction and the completion of each turn.

        Raises:
            UniRSError: an option is out of range.
        """
        longest = self.config.max_new_tokens if max_new_tokens is None else max_new_tokens
        checks.check_positive(max_new_tokens=longest, batch_size=batch_size)
        processor = replace(self.processor, feature_cache=self.feature_cache)
        frames = FrameCache(processor.image_size, processor.resize, limit=0)
        collator = Collator(processor, training=False, prompts=prompts)
        loader = make_loader(
            examples, collator, frames, self.feature_cache, batch_size=batch_size, num_workers=num_workers
        )
        num_turns = 0
        bar = progress_bar("answers", len(examples), unit="media", show=progress)
        with bar as advance, checks.evaluation_mode(self.model):
            for loaded in loader:
                with torch.no_grad():
                    batch = add_vision_features(self.model, processor, loaded.to(self.device))
                streams = None if on_text is None else TextStreams(self.tokenizer, batch.queries, on_text, num_turns)
                num_turns += len(batch.queries)
                completions = complete(
                    self.model,
                    processor,
                    batch,
                    max_new_tokens=longest,
                    choices=choices,
                    logprobs=details,
                    generation=generation,
                    on_token=None if streams is None else streams.add,
                )
                if streams is not None:
                    for index, (query, completion) in enumerate(zip(batch.queries, completions, strict=True)):
                        streams.finish(index, query.with_answer(completion.text).text)
                maps = self.model.change_maps(batch) if details else [None] * len(batch.modalities)
                for query, completion, (row, _) in zip(batch.queries, completions, batch.prompt_ends, strict=True):
                    (index,) = batch.row_media[row]
                    change_map = maps[index]
                    array = None if change_map is None else change_map.float().cpu().numpy()
                    tokens = self.tokenizer.convert_ids_to_tokens(list(completion.token_ids)) if details else ()
                    answered = query.with_answer(completion.text)
                    detailed = replace(completion, text=answered.text, tokens=tuple(tokens), change_map=array)
                    yield answered, detailed
                advance(len(batch.modalities))


_PREDICT_OPTIONS = tuple(inspect.signature(UniRS.predict).parameters)[3:]


def _is_occupied(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
