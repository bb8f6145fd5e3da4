"""The LightningModule: trains the model on answer tokens, and evaluates it by the text that it says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import nn
from transformers import get_cosine_schedule_with_warmup
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import plugins
from unirs.batch import Batch, grids
from unirs.data import Collator, EvalSet, UniRSData
from unirs.errors import ModelError
from unirs.generate import generate
from unirs.interfaces import Encoder
from unirs.llm import LLMConfig, build_llm, tokenizer_from_json, train_tokenizer
from unirs.metrics.base import Prediction
from unirs.metrics.gather import PredictionMetric
from unirs.metrics.interval import point
from unirs.model import UniRSModel
from unirs.prompt import Prompt, Renderer


@dataclass
class OptimConfig:
    """AdamW with warm-up and cosine decay. The defaults are the paper's.

    Attributes:
        lr: the highest learning rate.
        weight_decay: on matrices; never on norms, biases and embeddings.
        warmup: the share of all steps that raises the learning rate, 0..1.
        betas: decay of the running means of gradient and squared gradient; 0.95 for the second suits short trainings.
    """

    lr: float = 1e-4
    weight_decay: float = 0.0
    warmup: float = 0.03
    betas: tuple[float, float] = (0.9, 0.999)


class UniRSModule(LightningModule):
    """Composes encoder, change extractor and language model, and trains them.

    Args:
        encoder: `name` of an encoder plugin and its options.
        llm: which language model.
        change: `name` of a change extractor plugin and its options; null gives the language model both frames of a
            pair.
        optim: how the trainable parts learn.
        max_new_tokens: the longest answer in tokens.
    """

    def __init__(
        self,
        encoder: dict[str, Any],
        llm: LLMConfig,
        change: dict[str, Any] | None = None,
        optim: OptimConfig = OptimConfig(),  # noqa: B008 - read only, and shown as default by --help
        max_new_tokens: int = 48,
    ) -> None:
        super().__init__()
        built = plugins.build("unirs.encoders", encoder)
        if not isinstance(built, Encoder):
            raise ModelError(
                f"Encoder plugin '{encoder['name']}' built a {type(built).__name__} without size, grid or dim."
            )
        extractor = None if change is None else plugins.build("unirs.change_extractors", change, built.grid, built.dim)
        language_model, self.tokenizer = build_llm(llm)
        self._frame_size = built.size
        self.model: UniRSModel = UniRSModel(built, extractor, language_model)
        self.vocab_size = llm.vocab_size
        self.optim = optim
        self.max_new_tokens = max_new_tokens
        self.trained_steps = 0
        self._trained_tokenizer: str | None = None
        self._eval_sets: list[EvalSet] = []
        self._gathered: list[PredictionMetric] = []

    @property
    def data(self) -> UniRSData:
        """The datamodule of this run."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width in pixels of the encoder's frames."""
        return self._frame_size

    def collator(self, prompts: Mapping[str, Prompt], max_length: int, *, training: bool) -> Collator:
        """Makes this model's batches.

        Raises:
            ModelError: the language model starts from scratch and its tokenizer has not been trained.
        """
        renderer = Renderer(self._tokenizer(), max_length)
        # No method of the model: workers would be sent its weights with it.
        count = partial(grids, fused=self.model.change is not None)
        return Collator(renderer, prompts, count, self.model.projector.tokens, training)

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise ModelError("This model has no tokenizer yet: train it, or load a checkpoint.")
        return self.tokenizer

    def setup(self, stage: str) -> None:
        """Trains the tokenizer of a language model that starts from scratch."""
        if self.tokenizer is None and stage == "fit":
            self._set_tokenizer(train_tokenizer(self.data.texts(), self.vocab_size))

    def _set_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._trained_tokenizer = tokenizer.backend_tokenizer.to_str()

    def load(self, checkpoint: Path) -> None:
        """Takes weights and tokenizer of a checkpoint.

        Raises:
            ModelError: the weights do not fit; lists the keys.
        """
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.on_load_checkpoint(saved)
        self.load_state_dict(saved["state_dict"])

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 - torch's type
        """Takes weights, here and wherever Lightning loads a checkpoint.

        Raises:
            ModelError: the weights do not fit; lists the keys.
        """
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            told = " ".join(str(error).split())
            raise ModelError(f"The checkpoint's weights do not fit the config's model: {told}") from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps a trained tokenizer beside the weights."""
        checkpoint["tokenizer"] = self._trained_tokenizer

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the number of steps and a trained tokenizer back."""
        self.trained_steps = checkpoint["global_step"]
        if checkpoint.get("tokenizer"):
            self._set_tokenizer(tokenizer_from_json(checkpoint["tokenizer"]))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's signature
        """The loss of a mixed batch."""
        loss = self.model.loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.kinds))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begins to collect answers."""
        self._begin(self.data.eval_sets("val"))

    def on_test_epoch_start(self) -> None:
        """Begins to collect answers."""
        self._begin(self.data.eval_sets("test"))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Answers a batch."""
        self._gathered[dataloader_idx].update(self.answer(batch))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Answers a batch."""
        self._gathered[dataloader_idx].update(self.answer(batch))

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Any]]:  # noqa: ARG002
        """Answers a batch, with predictions as dictionaries, since Lightning refuses frozen dataclasses."""
        return [asdict(row) for row in self.answer(batch)]

    def answer(self, batch: Batch) -> list[Prediction]:
        """The batch's rows with what the model says to each."""
        tokenizer = self._tokenizer()
        ids = generate(self.model, batch, end=tokenizer.eos_token_id, max_new_tokens=self.max_new_tokens)
        texts = [str(tokenizer.decode(said, skip_special_tokens=True)).strip() for said in ids]
        return [replace(row, prediction=text) for row, text in zip(batch.rows, texts, strict=True)]

    def on_validation_epoch_end(self) -> None:
        """Logs each task's headline metric and `val/score`, their mean, by which checkpoints are chosen."""
        scores = []
        for name, rows in self.answers().items():
            metric = self.data.tasks[name].task.metric
            value = point(metric.evaluate(rows, full=False).statistics[metric.headline])
            self.log(f"val/{name}/{metric.headline}", value)
            scores.append(value)
        self.log("val/score", sum(scores) / len(scores), prog_bar=True)

    def answers(self, *, blank: bool = False) -> dict[str, tuple[Prediction, ...]]:
        """What the last evaluation said, for each task. Collective: call it on every process.

        Args:
            blank: the answers to black media.
        """
        sets = zip(self._eval_sets, self._gathered, strict=True)
        return {eval_set.name: gathered.compute() for eval_set, gathered in sets if eval_set.blank == blank}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's type
        """AdamW with cosine decay over the whole run."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not trained:
            raise ModelError("Every part of the model is frozen: nothing to train.")
        embeddings = {id(p) for m in self.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        matrices = [p for p in trained if p.ndim > 1 and id(p) not in embeddings]
        others = [p for p in trained if p.ndim <= 1 or id(p) in embeddings]
        groups = [
            {"params": matrices, "weight_decay": self.optim.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.optim.lr, betas=self.optim.betas
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = get_cosine_schedule_with_warmup(optimizer, round(self.optim.warmup * steps), steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _begin(self, sets: list[EvalSet]) -> None:
        self._eval_sets = sets
        self._gathered = [PredictionMetric().to(self.device) for _ in sets]
