"""The evaluation engine: a LightningModule that answers evaluation batches of any model and gathers the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, cast

from lightning import LightningModule
from torch import nn

from unirs.data.eval_set import EvalSet
from unirs.data.feature_cache import encoder_fingerprint, is_frozen
from unirs.inference.generation_options import GREEDY, GenerationOptions
from unirs.metrics.bootstrap import point_estimate
from unirs.models.unirs_model import UniRSModel

if TYPE_CHECKING:
    from unirs.data.batch import Batch
    from unirs.data.processor import Processor
    from unirs.inference.clue_generator import ClueGenerator
    from unirs.inference.completion import Choices, Completion, Decoding
    from unirs.interfaces import Encoder
    from unirs.metrics.base import Prediction
    from unirs.metrics.gather import PredictionMetric
    from unirs.metrics.scorer import Scorer
    from unirs.tasks.perturbation import Perturbation


class CompleteBatch(Protocol):
    """Completes the prompts of an evaluation batch, which the model's processor made."""

    def __call__(
        self,
        batch: Any,  # noqa: ANN401 - the processor's
        *,
        max_new_tokens: int,
        choices: Choices | None,
        generation: GenerationOptions,
    ) -> Sequence[Completion]:
        """One completion for each of `batch.queries`."""
        ...


class EvaluationModule(LightningModule):
    """Answers evaluation batches, and gathers and scores the answers of each evaluation set.

    `unirs validate`, `test` and `bench` run it in a Trainer, for UniRS and Hugging Face models.

    Args:
        model: the weights.
        processor: describes the inputs of `complete`.
        complete: completes prompts with `model`.
        max_new_tokens: maximum length of free text in tokens.
        decoding: `generate` evaluates free text; `loglikelihood` chooses the likeliest answer if a task has choices.
        generation: how free text is generated.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Processor,
        complete: CompleteBatch,
        *,
        max_new_tokens: int,
        decoding: Decoding = "generate",
        generation: GenerationOptions = GREEDY,
    ) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.complete = complete
        self.max_new_tokens = max_new_tokens
        self.decoding: Decoding = decoding
        self.generation = generation
        self.clue_generator: ClueGenerator | None = None
        self.trained_steps: int | None = None
        # By name of the evaluation set: answers of this process, and gathered ones of all.
        self._metrics: dict[str, PredictionMetric] = {}
        self._gathered: dict[str, Sequence[Prediction]] = {}

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Prepares the processor for loaders: a frozen encoder is identified, since its features may be cached."""
        if self.clue_generator is not None:
            self.processor.generate_clues = self.clue_generator.generate_shared
        self.processor.fingerprint = None
        if isinstance(self.model, UniRSModel) and is_frozen(encoder := cast("Encoder", self.model.encoder)):
            context = f"{self.trainer.precision} {self.trainer.strategy.root_device.type}"
            # Lightning converts the module later than this, but encodes in the converted type.
            self.trainer.precision_plugin.convert_module(self.model)
            with self.trainer.precision_plugin.forward_context():
                self.processor.fingerprint = encoder_fingerprint(encoder, context)

    def on_test_start(self) -> None:
        """Resets metrics."""
        self._metrics, self._gathered = {}, {}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:  # noqa: ARG002
        """Answers a batch; `predictions` are its queries with the answers."""
        rows = self.answer(batch)
        self.add_predictions(batch.eval_set, rows)
        return {"predictions": rows}

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:  # noqa: ARG002
        """Answers a batch; predictions as dictionaries, since Lightning refuses frozen dataclasses."""
        return [asdict(row) for row in self.answer(batch)]

    def answer(self, batch: Batch) -> list[Prediction]:
        """The queries of an evaluation batch, with the model's answers."""
        choices = self._choices if self.decoding == "loglikelihood" else None
        completions = self.complete(
            batch, max_new_tokens=self.max_new_tokens, choices=choices, generation=self.generation
        )
        return [query.with_answer(one.text) for query, one in zip(batch.queries, completions, strict=True)]

    def _choices(self, query: Prediction) -> Sequence[str]:
        return self.processor.tasks[query.task].task.choices_for(query.category)

    def add_predictions(self, eval_set: str, rows: Sequence[Prediction]) -> None:
        """Adds answers to the metrics of an evaluation set. Every process adds to the same sets, possibly no rows."""
        if eval_set not in self._metrics:
            self._metrics[eval_set] = self._scorer(eval_set)(slow=False).to(self.device)
        self._metrics[eval_set].update(rows)

    def on_test_epoch_end(self) -> None:
        """Logs metrics as `test/<task>/<metric>`; of perturbed media, as `test/<perturbation>/<task>/<metric>`."""
        for name in sorted(self._metrics):
            one = EvalSet.from_name(name)
            prefix = "/".join(filter(None, ("test", one.perturbation, one.task)))
            rows = self._gather(name)
            statistics = self._scorer(name).evaluate(rows, slow=False).statistics if rows else {}
            self.log_dict({f"{prefix}/{key}": point_estimate(value) for key, value in statistics.items()})

    def predictions(self, perturbation: Perturbation | None = None) -> dict[str, Sequence[Prediction]]:
        """The answers of the last evaluation, by task. Collective: call it on every process.

        Args:
            perturbation: of the media, for a sanity baseline; None for the media as they are.
        """
        names = {task: EvalSet(task, perturbation).name for task in self.processor.tasks}
        return {task: self._gather(name) for task, name in names.items() if name in self._metrics}

    def _gather(self, eval_set: str) -> Sequence[Prediction]:
        if eval_set not in self._gathered:
            self._gathered[eval_set] = self._metrics[eval_set].predictions()
            # A million answers need hundreds of megabytes, once.
            self._metrics[eval_set].reset()
        return self._gathered[eval_set]

    def _scorer(self, eval_set: str) -> Scorer:
        return self.processor.tasks[EvalSet.from_name(eval_set).task].task.scorer
