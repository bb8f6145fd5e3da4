"""The LightningModule: trains the model on answer tokens, and evaluates the text that it generates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torchmetrics import MeanMetric

from unirs.data.batch import Batch
from unirs.data.clues import ClueConfig
from unirs.data.datamodule import EvalSet
from unirs.data.feature_cache import encoder_fingerprint, is_frozen
from unirs.data.loaders import world
from unirs.errors import ModelError
from unirs.inference.api import UniRS
from unirs.inference.clue_generator import ClueGenerator
from unirs.inference.completion import Decoding, complete
from unirs.interfaces import Encoder
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.gather import PredictionMetric
from unirs.models.builder import ModelConfig, ProjectorConfig, build_processor
from unirs.models.checkpoint import MODEL_PREFIX, check_frozen, frozen_weights, misfit, strip_frozen
from unirs.models.llm import LLMConfig
from unirs.models.run_folder import build, saved_config
from unirs.models.unirs_model import LossReduction
from unirs.tasks.media import Media
from unirs.training.optim import OptimConfig, build_optimizer, build_schedule


class UniRSModule(LightningModule):
    """Composes encoder, change extractor, projector and language model, and trains them.

    Its `processor` describes its inputs: give it to the datamodule (`data.processor = module.processor`).

    Args:
        encoder: `name` of an encoder plugin, and its options.
        llm: the language model.
        change: `name` of a change extractor plugin, and its options; null gives the language model both frames of a
            pair.
        projector: maps vision tokens to the language model's embeddings.
        optim: AdamW and its schedule, and learning rates by component.
        optimizer: another optimizer than AdamW, as `class_path` and `init_args`; in Python, a function of parameter
            groups.
        lr_scheduler: another schedule than warm-up and cosine decay, as `class_path` and `init_args`; in Python, a
            function of the optimizer.
        loss: `sample_mean` averages the negative log-likelihood of whole answers over samples; `token_mean` averages
            over tokens (the paper's).
        clue: the base VLM that generates the clues of tasks with `clue: test` or `clue: always`.
        max_new_tokens: maximum length of an answer in tokens.
        decoding: `generate` evaluates free text; `loglikelihood` chooses the likeliest answer if a task has choices.
        init: a training run, a saved model or a hub id to start from. Its components and tokenizer are kept, LoRA
            adapters are merged, and tuning is set anew: `encoder` needs only the options to change, such as `tune`, and
            `llm` neither `source` nor `config`.
        trust_remote_code: also run components that `init` names by file or dotted path.
    """

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        llm: LLMConfig = LLMConfig(),  # noqa: B008 - read only, and shown as default by --help
        change: dict[str, Any] | None = None,
        projector: ProjectorConfig = ProjectorConfig(),  # noqa: B008
        optim: OptimConfig = OptimConfig(),  # noqa: B008
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        loss: LossReduction = "sample_mean",
        clue: ClueConfig = ClueConfig(),  # noqa: B008
        max_new_tokens: int = 48,
        decoding: Decoding = "generate",
        init: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        # Checkpoints load with `weights_only` if these are plain; `load_from_checkpoint` rebuilds the dataclasses.
        plain = {name: _to_plain(value) for name, value in self.hparams.items()}
        self.save_hyperparameters({**plain, "_instantiator": "lightning.pytorch.cli.instantiate_module"})
        self.config = ModelConfig(encoder, llm, change, projector, init, trust_remote_code)
        self.built = build(self.config)
        self.model = self.built.model
        self.processor = build_processor(self.model, self.built.tokenizer, vocab_size=llm.vocab_size)
        self.processor.generate_clues = self.generate_clues
        self.optim = optim
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self._new_lr: float | None = None
        self.loss: LossReduction = loss
        self.clue = clue
        self._clue_generator = ClueGenerator(clue, self.to_inference)
        self.max_new_tokens = max_new_tokens
        self.decoding: Decoding = decoding
        self.trained_steps = 0
        self._metrics: dict[str, PredictionMetric] = {}
        self._val_loss = MeanMetric()

    def generate_clues(self, media: Sequence[Media]) -> Mapping[Media, str]:
        """The base VLM's clues. Collective: each process generates its share, and all read them from the cache."""
        size, rank = world()
        self._clue_generator(media[rank::size])
        if size > 1:
            torch.distributed.barrier()
        return self._clue_generator(media)

    def to_inference(self) -> UniRS:
        """The model for inference, and as it is saved; it shares the weights. Its prompts are the processor's tasks'.

        Raises:
            ModelError: the tokenizer has not been trained yet.
        """
        tokenizer = self.processor.require_tokenizer()
        config = saved_config(
            self.config,
            self.built,
            tokenizer,
            self.processor.tasks,
            clue=self.clue,
            max_new_tokens=self.max_new_tokens,
            max_length=self.processor.max_length,
        )
        return UniRS(self.model, tokenizer, config)

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Identifies a frozen encoder, whose features may be cached; anew for this trainer's precision and device."""
        encoder = cast("Encoder", self.model.encoder)
        self.processor.fingerprint = None
        if is_frozen(encoder):
            context = f"{self.trainer.precision} {self.trainer.strategy.root_device.type}"
            # Lightning converts the module later than this, but encodes in the converted type.
            self.trainer.precision_plugin.convert_module(self.model)
            with self.trainer.precision_plugin.forward_context():
                self.processor.fingerprint = encoder_fingerprint(encoder, context)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 - torch's type
        """Loads the weights of a checkpoint; frozen weights stay, since checkpoints do not hold them.

        Raises:
            ModelError: the weights do not fit; lists the keys.
        """
        frozen = {MODEL_PREFIX + name: value for name, value in frozen_weights(self.model).items()}
        try:
            return super().load_state_dict({**frozen, **state_dict}, strict, assign)
        except RuntimeError as error:
            raise misfit(error) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Removes frozen weights, which their source holds, and adds a trained tokenizer."""
        trained = self.processor.tokenizer if self.processor.train_tokenizer is not None else None
        strip_frozen(checkpoint, self.model, trained)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the number of steps and a trained tokenizer.

        Raises:
            ModelError: the frozen weights are not those of the training, or another program wrote the checkpoint.
        """
        trained = check_frozen(checkpoint, self.model)
        if trained is not None:
            self.processor.tokenizer = trained
        self.trained_steps = checkpoint["global_step"]

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's signature
        """The loss of a mixed batch."""
        loss = self.model.loss(self._add_vision_features(batch), self.loss)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.modalities))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Resets metrics."""
        self._metrics = {}
        self._val_loss.reset()

    def on_test_epoch_start(self) -> None:
        """Resets metrics."""
        self._metrics = {}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:  # noqa: ARG002
        """Answers a batch, and computes its loss."""
        batch = self._add_vision_features(batch)
        if batch.labeled is not None:
            labeled = replace(batch.labeled, vision_features=batch.vision_features)
            self._val_loss.update(self.model.loss(labeled, self.loss), len(batch.modalities))
        return self.test_step(batch, batch_idx)

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
        batch = self._add_vision_features(batch)
        prompt_encoder = self.processor.prompt_encoder()
        completions = complete(self.model, prompt_encoder, batch, max_new_tokens=self.max_new_tokens, choices=choices)
        return [replace(query, text=one.text) for query, one in zip(batch.queries, completions, strict=True)]

    def add_predictions(self, eval_set: str, rows: Sequence[Prediction]) -> None:
        """Adds answers to the metrics of an evaluation set. Every process adds to the same sets, if only no rows."""
        if eval_set not in self._metrics:
            scorer = self.processor.tasks[EvalSet.from_name(eval_set).task].task.scorer
            self._metrics[eval_set] = scorer(slow=False).to(self.device)
        self._metrics[eval_set].update(rows)

    def _add_vision_features(self, batch: Batch) -> Batch:
        """Encodes the frames of media without cached features, and caches them if the encoder is frozen."""
        if batch.processor_key and batch.processor_key != self.processor.key:
            raise ModelError(
                "This batch was made for another model. Set 'data.processor = module.processor' before the loaders are "
                "made."
            )
        features = self.model.encode_frames(batch)
        cache = self.processor.feature_cache
        if cache is not None:
            for media, cached, tokens in zip(batch.media, batch.vision_features, features, strict=True):
                if media is not None and cached is None:
                    cache.put(media, tokens)
        return replace(batch, vision_features=features)

    def _choices(self, query: Prediction) -> Sequence[str]:
        return self.processor.tasks[query.task].task.choices_for(query.category)

    def on_validation_epoch_end(self) -> None:
        """Logs `val/loss`, each task's primary metric, and their mean `val/score`, which selects checkpoints."""
        scores = []
        for name, rows in self.predictions().items():
            evaluation = self.processor.tasks[name].task.scorer.evaluate(rows, slow=False)
            value = point_estimate(evaluation.statistics[evaluation.primary_metric])
            self.log(f"val/{name}/{evaluation.primary_metric}", value)
            scores.append(value)
        self.log("val/loss", self._val_loss.compute())
        self.log("val/score", sum(scores) / len(scores), prog_bar=True)

    def on_test_epoch_end(self) -> None:
        """Logs each task's metrics as `test/<task>/<metric>`; of black frames, `test/blank_media/<task>/<metric>`."""
        for name in sorted(self._metrics):
            one = EvalSet.from_name(name)
            prefix = f"test/blank_media/{one.task}" if one.blank else f"test/{one.task}"
            self.log_dict({f"{prefix}/{key}": value for key, value in self._metrics[name].compute().items()})

    def predictions(self, *, blank: bool = False) -> dict[str, tuple[Prediction, ...]]:
        """The answers of the last evaluation, by task. Collective: call it on every process.

        Args:
            blank: whether to return the answers to black frames.
        """
        names = [EvalSet(task, blank).name for task in self.processor.tasks]
        sets = {EvalSet.from_name(name): self._metrics[name] for name in names if name in self._metrics}
        return {one.task: metric.predictions() for one, metric in sets.items()}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's type
        """AdamW with warm-up and cosine decay over the whole run, or the configured optimizer and schedule.

        Raises:
            ModelError: there is nothing to train, or the schedule needs a number of steps that is not set.
        """
        optimizer = build_optimizer(self.model, self.optim, self.optimizer, self._new_lr)
        steps = self.trainer.estimated_stepping_batches
        schedule = build_schedule(optimizer, self.optim, self.lr_scheduler, steps)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @property
    def lr(self) -> float:
        """Peak learning rate; Lightning's `LearningRateFinder` sets it."""
        return self.optim.lr if self._new_lr is None else self._new_lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._new_lr = value


def _to_plain(value: object) -> object:
    """Dataclasses as dictionaries, paths as text; functions, such as the optimizer's, as None."""
    if callable(value):
        return None
    return json.loads(json.dumps(asdict(value) if is_dataclass(value) else value, default=str))  # type: ignore[arg-type]
