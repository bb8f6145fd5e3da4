"""The LightningModule: trains the model on answer tokens, and evaluates it by the text that it says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning import LightningModule
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import plugins
from unirs.api import Clues, UniRS
from unirs.batch import Batch, grids
from unirs.change import ChangeExtraction
from unirs.convert import load_exactly, read_projector
from unirs.data import EvalSet, UniRSData
from unirs.errors import ModelError, nearest
from unirs.interfaces import Encoder, check_parts
from unirs.items import Collator
from unirs.llm import LLMConfig, build_llm, describe_llm, tokenizer_from_json, train_tokenizer
from unirs.manifest import fingerprint
from unirs.media import Media
from unirs.metrics.base import Prediction
from unirs.metrics.gather import PredictionMetric
from unirs.metrics.interval import point
from unirs.model import LossKind, UniRSModel
from unirs.projector import ProjectorKind
from unirs.prompt import Prompt, Renderer
from unirs.reply import Answering, reply
from unirs.saved import ClueSource, SavedConfig, SavedPrompt


@dataclass
class OptimConfig:
    """AdamW with warm-up and cosine decay. The defaults are the paper's.

    Attributes:
        lr: the highest learning rate.
        weight_decay: on matrices; never on norms, biases and embeddings.
        warmup: the share of all steps that raises the learning rate, 0..1.
        betas: decay of the running means of gradient and squared gradient; 0.95 for the second suits short trainings.
        lr_scale: what the learning rate of a part is multiplied by; parts are `encoder`, `change`, `projector`, `llm`.
    """

    lr: float = 1e-4
    weight_decay: float = 0.0
    warmup: float = 0.03
    betas: tuple[float, float] = (0.9, 0.999)
    lr_scale: dict[str, float] = field(default_factory=dict)


@dataclass
class ProjectorConfig:
    """What lies between encoder and language model.

    Attributes:
        kind: `downsample` is the paper's: four tokens become one. `mlp` is LLaVA's.
        source: a VILA-1.5 or UniRS folder `mm_projector` with weights for `downsample`, and for `change_extraction` if
            it has them; random weights where left out.
        tune: `full` or `frozen`.
    """

    kind: ProjectorKind = "downsample"
    source: Path | None = None
    tune: Literal["full", "frozen"] = "full"


class UniRSModule(LightningModule):
    """Composes encoder, change extractor, projector and language model, and trains them.

    Args:
        encoder: `name` of an encoder plugin and its options.
        llm: which language model.
        change: `name` of a change extractor plugin and its options; null gives the language model both frames of a
            pair.
        projector: what lies between the two.
        optim: how the trainable parts learn.
        loss: `answer` averages the log-likelihood of whole answers over samples; `token` over tokens (the paper's).
        clue: who says the clues of tasks with `clue: test` or `clue: always`.
        max_new_tokens: the longest answer in tokens.
        answering: `generate` evaluates free text; `rank` chooses the likeliest answer where a task has choices.
    """

    def __init__(
        self,
        encoder: dict[str, Any],
        llm: LLMConfig,
        change: dict[str, Any] | None = None,
        projector: ProjectorConfig = ProjectorConfig(),  # noqa: B008 - read only, and shown as default by --help
        optim: OptimConfig = OptimConfig(),  # noqa: B008
        loss: LossKind = "answer",
        clue: ClueSource = ClueSource(),  # noqa: B008
        max_new_tokens: int = 48,
        answering: Answering = "generate",
    ) -> None:
        super().__init__()
        if encoder.get("pretrained") == "given":
            raise ModelError(
                "Encoder option 'pretrained: given' is for saved models, whose weights follow. Use true or false."
            )
        built = plugins.build("unirs.encoders", encoder)
        if not isinstance(built, Encoder):
            raise ModelError(
                f"Encoder plugin '{encoder['name']}' built a {type(built).__name__} without size, fit, grid, dim or "
                "spec."
            )
        extractor = None if change is None else plugins.build("unirs.change_extractors", change, built.grid, built.dim)
        check_parts(built, extractor)
        language_model, self.tokenizer = build_llm(llm)
        self.model: UniRSModel = UniRSModel(built, extractor, language_model, projector.kind)
        _load_projector(self.model, projector)
        self.vocab_size = llm.vocab_size
        self.optim = optim
        self.loss: LossKind = loss
        self.clue = clue
        self._clues = Clues(clue, lambda: self.as_unirs(self.data))
        self.max_new_tokens = max_new_tokens
        self.answering: Answering = answering
        self.trained_steps = 0
        self._encoder_spec = {"name": encoder["name"], **built.spec}
        self._change_spec = change
        self._projector_kind = projector.kind
        self._llm_config = llm
        self._trained_tokenizer: str | None = None
        self._eval_sets: list[EvalSet] = []
        self._gathered: list[PredictionMetric] = []

    @property
    def encoder(self) -> Encoder:
        """What the frames are for."""
        return cast("Encoder", self.model.encoder)

    @property
    def data(self) -> UniRSData:
        """The datamodule of this run."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    def collator(self, prompts: Mapping[str, Prompt], max_length: int, *, training: bool) -> Collator:
        """Makes this model's batches.

        Raises:
            ModelError: the language model starts from scratch and its tokenizer has not been trained.
        """
        renderer = Renderer(self._tokenizer(), max_length)
        # No method of the model: workers would be sent its weights with it.
        count = partial(grids, fused=self.model.change is not None)
        return Collator(renderer, prompts, count, self.model.projector.tokens, training, self.model.branches)

    def clues(self, media: Sequence[Media]) -> Mapping[Media, str]:
        """What the base VLM says about media. Every process describes its share; all read them from the cache."""
        self._clues(media[self.trainer.global_rank :: self.trainer.world_size])
        self.trainer.strategy.barrier("clues")
        return self._clues(media)

    def as_unirs(self, data: UniRSData) -> UniRS:
        """The model as it answers outside of training, and as it is saved; it shares the weights.

        Args:
            data: whose prompts it knows.
        """
        tokenizer = self._tokenizer()
        prompts = {
            name: SavedPrompt(task.task.kind, task.task.prompt.tag, task.task.prompt.instruction, task.clue != "never")
            for name, task in data.tasks.items()
        }
        config = SavedConfig(
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

    def load(self, checkpoint: Path) -> None:
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
        loss = self.model.loss(self._looked_at(batch), self.loss)
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
        choices = self._choices if self.answering == "rank" else None
        renderer = Renderer(self._tokenizer())
        batch = self._looked_at(batch)
        replies = reply(self.model, renderer, batch, max_new_tokens=self.max_new_tokens, choices=choices)
        return [replace(row, prediction=said.text) for row, said in zip(batch.rows, replies, strict=True)]

    def _looked_at(self, batch: Batch) -> Batch:
        features = self.model.encode(batch)
        self.data.keep_features(batch, features)
        return replace(batch, features=features)

    def _choices(self, row: Prediction) -> Sequence[str]:
        return self.data.tasks[row.task].task.choices_of(row.kind)

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
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ModelError("Every part of the model is frozen: nothing to train.")
        for part in self.optim.lr_scale:
            if part not in _PARTS:
                raise ModelError(f"optim.lr_scale names the unknown part '{part}'. {nearest(part, _PARTS)}")
        embeddings = {id(p) for m in self.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        groups = []
        for part in _PARTS:
            lr = self.optim.lr * self.optim.lr_scale.get(part, 1.0)
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
        rate = partial(_rate, warmup=round(self.optim.warmup * steps), steps=steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _begin(self, sets: list[EvalSet]) -> None:
        self._eval_sets = sets
        self._gathered = [PredictionMetric().to(self.device) for _ in sets]


_PARTS = ("encoder", "change", "projector", "llm")


def _rate(step: int, warmup: int, steps: int) -> float:
    """What the learning rate is multiplied by: up to 1 on a line, then down to 0 on half a cosine."""
    # Not transformers' schedule, whose module takes a second to import.
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _load_projector(model: UniRSModel, config: ProjectorConfig) -> None:
    if config.source is None:
        if config.tune == "frozen":
            raise ModelError("The projector is frozen with random weights. Name its 'source', or set 'tune: full'.")
        return
    if config.kind != "downsample":
        raise ModelError(f"projector.source holds a 'downsample' projector, not '{config.kind}'. See 'unirs convert'.")
    state, change = read_projector(config.source, change=isinstance(model.change, ChangeExtraction))
    load_exactly(model.projector, state, config.source)
    if change is not None and model.change is not None:
        load_exactly(model.change, change, config.source)
    model.projector.requires_grad_(config.tune == "full")
