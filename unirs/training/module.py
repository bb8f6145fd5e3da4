"""The LightningModule: trains the model on answer tokens, and evaluates it by the text that it says."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import plugins
from unirs.data.batch import Batch, num_image_slots
from unirs.data.clues import ClueConfig
from unirs.data.collator import Collator
from unirs.data.datamodule import EvalSet, UniRSDataModule
from unirs.data.prompt_encoder import PromptEncoder
from unirs.errors import ModelError, did_you_mean
from unirs.inference.api import ClueGenerator, UniRS
from unirs.inference.completion import Decoding, reply
from unirs.interfaces import Encoder
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.gather import PredictionMetric
from unirs.models.builder import ProjectorConfig, _load_projector, check_components
from unirs.models.llm import LLMConfig, build_llm, describe_llm, tokenizer_from_json, train_tokenizer
from unirs.models.pretrained import PromptConfig, UniRSConfig
from unirs.models.unirs_model import LossReduction, UniRSModel
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.training.optim import COMPONENTS, OptimConfig, cosine_with_warmup
from unirs.utils.hashing import fingerprint


class UniRSModule(LightningModule):
    """Composes encoder, change extractor, projector and language model, and trains them.

    Args:
        encoder: `name` of an encoder plugin and its options.
        llm: which language model.
        change: `name` of a change extractor plugin and its options; null gives the language model both frames of a
            pair.
        projector: what lies between the two.
        optim: how the trainable parts learn.
        loss: `sample_mean` averages the log-likelihood of whole answers over samples; `token_mean` averages over
            tokens (the paper's).
        clue: who says the clues of tasks with `clue: test` or `clue: always`.
        max_new_tokens: the longest answer in tokens.
        decoding: `generate` evaluates free text; `loglikelihood` chooses the likeliest answer where a task has choices.
    """

    def __init__(
        self,
        encoder: dict[str, Any],
        llm: LLMConfig,
        change: dict[str, Any] | None = None,
        projector: ProjectorConfig = ProjectorConfig(),  # noqa: B008 - read only, and shown as default by --help
        optim: OptimConfig = OptimConfig(),  # noqa: B008
        loss: LossReduction = "sample_mean",
        clue: ClueConfig = ClueConfig(),  # noqa: B008
        max_new_tokens: int = 48,
        decoding: Decoding = "generate",
    ) -> None:
        super().__init__()
        if encoder.get("pretrained") == "given":
            raise ModelError(
                "Encoder option 'pretrained: given' is for saved models, whose weights follow. Use true or false."
            )
        built = plugins.create("unirs.encoders", encoder)
        if not isinstance(built, Encoder):
            raise ModelError(
                f"Encoder plugin '{encoder['name']}' built a {type(built).__name__} without image_size, resize, "
                "grid, embed_dim or init_config."
            )
        extractor = (
            None if change is None else plugins.create("unirs.change_extractors", change, built.grid, built.embed_dim)
        )
        check_components(built, extractor)
        language_model, self.tokenizer = build_llm(llm)
        self.model: UniRSModel = UniRSModel(built, extractor, language_model, projector.name)
        _load_projector(self.model, projector)
        self.vocab_size = llm.vocab_size
        self.optim = optim
        self.loss: LossReduction = loss
        self.clue = clue
        self._clues = ClueGenerator(clue, lambda: self.to_inference(self.data))
        self.max_new_tokens = max_new_tokens
        self.decoding: Decoding = decoding
        self.trained_steps = 0
        self._encoder_spec = {"name": encoder["name"], **built.init_config}
        self._change_spec = change
        self._projector_kind = projector.name
        self._llm_config = llm
        self._trained_tokenizer: str | None = None
        self._eval_sets: list[EvalSet] = []
        self._gathered: list[PredictionMetric] = []

    @property
    def encoder(self) -> Encoder:
        """What the frames are for."""
        return cast("Encoder", self.model.encoder)

    @property
    def data(self) -> UniRSDataModule:
        """The datamodule of this run."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    def collator(self, prompts: Mapping[str, PromptTemplate], max_length: int, *, training: bool) -> Collator:
        """Makes this model's batches.

        Raises:
            ModelError: the language model starts from scratch and its tokenizer has not been trained.
        """
        renderer = PromptEncoder(self._tokenizer(), max_length)
        # No method of the model: workers would be sent its weights with it.
        count = partial(num_image_slots, fused=self.model.change is not None)
        return Collator(
            renderer, prompts, count, self.model.projector.num_tokens, training, self.model.supports_tree_attention
        )

    def clues(self, media: Sequence[Media]) -> Mapping[Media, str]:
        """What the base VLM says about media. Every process describes its share; all read them from the cache."""
        self._clues(media[self.trainer.global_rank :: self.trainer.world_size])
        self.trainer.strategy.barrier("clues")
        return self._clues(media)

    def to_inference(self, data: UniRSDataModule) -> UniRS:
        """The model as it answers outside of training, and as it is saved; it shares the weights.

        Args:
            data: whose prompts it knows.
        """
        tokenizer = self._tokenizer()
        prompts = {
            name: PromptConfig(
                task.task.modality, task.task.prompt.task_tag, task.task.prompt.instruction, task.clue != "never"
            )
            for name, task in data.tasks.items()
        }
        config = UniRSConfig(
            encoder=self._encoder_spec,
            change=self._change_spec,
            projector=self._projector_kind,
            llm=describe_llm(self.model.llm, self._llm_config, tokenizer),
            prompts=prompts,
            max_new_tokens=self.max_new_tokens,
            max_length=data.max_length,
            clue=self.clue,
        )
        return UniRS(self.model, tokenizer, config)

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

    def load_checkpoint(self, checkpoint: Path) -> None:
        """Takes weights and tokenizer of a checkpoint.

        Raises:
            ModelError: the weights do not fit, with the keys; or the frozen ones are not those trained with.
        """
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.on_load_checkpoint(saved)
        self.load_state_dict(saved["state_dict"])

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 - torch's type
        """Takes weights, here and wherever Lightning loads a checkpoint; frozen ones stay, as checkpoints hold none.

        Raises:
            ModelError: the weights do not fit; lists the keys.
        """
        try:
            return super().load_state_dict({**self._frozen(), **state_dict}, strict, assign)
        except RuntimeError as error:
            told = " ".join(str(error).split())
            raise ModelError(f"The checkpoint's weights do not fit the config's model: {told}") from error

    def _frozen(self) -> dict[str, torch.Tensor]:
        """Weights that came from a source and do not learn."""
        # Tied weights have several names.
        learning = {id(parameter) for parameter in self.parameters() if parameter.requires_grad}
        state = self.state_dict(keep_vars=True)
        return {
            name: value.detach()
            for name, value in state.items()
            if isinstance(value, nn.Parameter) and id(value) not in learning
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out frozen weights, whose source has them, and keeps a trained tokenizer."""
        frozen = self._frozen()
        checkpoint["state_dict"] = {key: value for key, value in checkpoint["state_dict"].items() if key not in frozen}
        checkpoint["frozen"] = fingerprint(frozen)
        checkpoint["tokenizer"] = self._trained_tokenizer

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the number of steps and a trained tokenizer back.

        Raises:
            ModelError: the frozen weights are not those that the checkpoint was trained with, or it is another
                program's.
        """
        if "frozen" not in checkpoint:
            raise ModelError("The checkpoint is another program's: it does not say which weights were frozen.")
        self.trained_steps = checkpoint["global_step"]
        if checkpoint["frozen"] != fingerprint(self._frozen()):
            raise ModelError(
                "The checkpoint was trained with other frozen weights than the config's sources give now, or with "
                "other parts frozen. Name the sources, and the tuning, that it was trained with."
            )
        if checkpoint.get("tokenizer"):
            self._set_tokenizer(tokenizer_from_json(checkpoint["tokenizer"]))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's signature
        """The loss of a mixed batch."""
        loss = self.model.loss(self._add_vision_features(batch), self.loss)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.modalities))
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
        choices = self._choices if self.decoding == "loglikelihood" else None
        renderer = PromptEncoder(self._tokenizer())
        batch = self._add_vision_features(batch)
        replies = reply(self.model, renderer, batch, max_new_tokens=self.max_new_tokens, choices=choices)
        return [replace(row, text=said.text) for row, said in zip(batch.queries, replies, strict=True)]

    def _add_vision_features(self, batch: Batch) -> Batch:
        features = self.model.encode_frames(batch)
        self.data.cache_features(batch, features)
        return replace(batch, vision_features=features)

    def _choices(self, row: Prediction) -> Sequence[str]:
        return self.data.tasks[row.task].task.choices_for(row.category)

    def on_validation_epoch_end(self) -> None:
        """Logs each task's headline metric and `val/score`, their mean, by which checkpoints are chosen."""
        scores = []
        for name, rows in self.predictions().items():
            metric = self.data.tasks[name].task.metric
            value = point_estimate(metric.evaluate(rows, slow=False).statistics[metric.primary_metric])
            self.log(f"val/{name}/{metric.primary_metric}", value)
            scores.append(value)
        self.log("val/score", sum(scores) / len(scores), prog_bar=True)

    def predictions(self, *, blank: bool = False) -> dict[str, tuple[Prediction, ...]]:
        """What the last evaluation said, for each task. Collective: call it on every process.

        Args:
            blank: the answers to black media.
        """
        sets = zip(self._eval_sets, self._gathered, strict=True)
        return {eval_set.name: gathered.compute() for eval_set, gathered in sets if eval_set.blank == blank}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's type
        """AdamW with cosine decay over the whole run."""
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ModelError("Every part of the model is frozen: nothing to train.")
        for part in self.optim.lr_multipliers:
            if part not in COMPONENTS:
                raise ModelError(
                    f"optim.lr_multipliers names the unknown part '{part}'. {did_you_mean(part, COMPONENTS)}"
                )
        embeddings = {id(p) for m in self.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        groups = []
        for part in COMPONENTS:
            lr = self.optim.lr * self.optim.lr_multipliers.get(part, 1.0)
            module = getattr(self.model, part)
            learning = [] if module is None else [p for p in module.parameters() if p.requires_grad]
            matrices = [p for p in learning if p.ndim > 1 and id(p) not in embeddings]
            others = [p for p in learning if p.ndim <= 1 or id(p) in embeddings]
            groups += [{"params": matrices, "lr": lr, "weight_decay": self.optim.weight_decay}]
            groups += [{"params": others, "lr": lr, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.optim.lr, betas=self.optim.betas
        )
        steps = int(self.trainer.estimated_stepping_batches)
        rate = partial(cosine_with_warmup, warmup=round(self.optim.warmup_ratio * steps), steps=steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _begin(self, sets: list[EvalSet]) -> None:
        self._eval_sets = sets
        self._gathered = [PredictionMetric().to(self.device) for _ in sets]
