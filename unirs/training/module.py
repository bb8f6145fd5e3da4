"""The LightningModule: the evaluation engine, with training on answer tokens."""

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torchmetrics import MeanMetric

from unirs.data.batch import Batch
from unirs.data.clues import ClueConfig
from unirs.errors import ModelError
from unirs.evaluation.engine import EvaluationModule
from unirs.inference.api import UniRS
from unirs.inference.clue_generator import ClueGenerator
from unirs.inference.completion import Decoding, add_vision_features, complete
from unirs.inference.generation_options import GREEDY, GenerationOptions
from unirs.metrics.bootstrap import point_estimate
from unirs.models.builder import ModelConfig, ProjectorConfig, build_processor
from unirs.models.checkpoint import MODEL_PREFIX, FrozenWeights, misfit
from unirs.models.dtypes import resolve_encoder
from unirs.models.llm import LLMConfig
from unirs.models.run_folder import build, saved_config
from unirs.models.unirs_model import LossReduction, UniRSModel
from unirs.plugins import installed_only
from unirs.ranges import PositiveInt, check_ranges
from unirs.tasks.prompt import VisualFormat
from unirs.training.optim import OptimConfig, build_optimizer, build_schedule


class UniRSModule(EvaluationModule):
    """Composes encoder, change extractor, projector and language model, and trains them.

    Its `processor` describes its inputs: give it to the datamodule (`data.processor = module.processor`).

    Args:
        encoder: `name` of an encoder plugin, and its options.
        llm: the language model.
        change: `name` of a change extractor plugin, its options, and `tune` and `source`; null gives the language model
            both frames of a pair.
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
        generation: how free text is generated.
        init: a training run, a saved model or a hub id to start from. Its components and tokenizer are kept, LoRA
            adapters are merged, and tuning is set anew: `encoder` needs only the options to change, such as `tune`, and
            `llm` neither `source` nor `config`.
        trust_remote_code: run code that the configs of `init` and `clue.source` name by file or dotted path.
        visual_format: text around the visual tokens of a prompt; by default that of `init`, or else a newline after
            the last image.
    """

    model: UniRSModel

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
        max_new_tokens: PositiveInt = 48,
        decoding: Decoding = "generate",
        generation: GenerationOptions = GREEDY,
        init: str | None = None,
        trust_remote_code: bool = False,
        visual_format: VisualFormat | None = None,
    ) -> None:
        check_ranges(UniRSModule, {"max_new_tokens": max_new_tokens}, "model.")
        # Before the hyperparameters are saved: a checkpoint's weights have this dtype on every machine.
        encoder, llm = resolve_encoder(encoder), replace(llm, dtype=llm.fixed_dtype)
        config = ModelConfig(encoder, llm, change, projector, init, trust_remote_code, visual_format)
        built = build(config)
        processor = build_processor(built.model, built.tokenizer, built.visual_format, vocab_size=llm.vocab_size)
        run = partial(complete, built.model, processor)
        super().__init__(
            built.model, processor, run, max_new_tokens=max_new_tokens, decoding=decoding, generation=generation
        )
        self.save_hyperparameters()
        # Checkpoints load with `weights_only` if these are plain; `load_from_checkpoint` rebuilds the dataclasses.
        plain = {name: _to_plain(value) for name, value in self.hparams.items()}
        self.save_hyperparameters({**plain, "_instantiator": "lightning.pytorch.cli.instantiate_module"})
        self.config, self.built = config, built
        self._frozen = FrozenWeights.of(built.model)
        self.optim = optim
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self._new_lr: float | None = None
        self.loss: LossReduction = loss
        self.clue = clue
        self.clue_generator = ClueGenerator(clue, self.to_inference, trust_remote_code=trust_remote_code)
        processor.generate_clues = self.clue_generator.generate_shared
        self.trained_steps = 0
        self._val_loss = MeanMetric()

    @classmethod
    def load_from_checkpoint(cls, *args: Any, trust_remote_code: bool = False, **options: Any) -> Self:  # noqa: ANN401
        """Loads a training checkpoint; arguments and options are Lightning's, and those of the module.

        The hyperparameters in the checkpoint may name code by file or dotted path only with `trust_remote_code`.
        """
        with installed_only(args[0] if args else "the checkpoint", trust_remote_code=trust_remote_code):
            return super().load_from_checkpoint(*args, **{**options, "weights_only": True})

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

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 - torch's type
        """Loads the weights of a checkpoint; frozen weights stay, since checkpoints do not hold them.

        Raises:
            ModelError: the weights do not fit; lists the keys.
        """
        try:
            return super().load_state_dict(self._frozen.add(state_dict, self.model, MODEL_PREFIX), strict, assign)
        except RuntimeError as error:
            raise misfit(error) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Removes frozen weights, which their source holds, and adds a trained tokenizer."""
        trained = self.processor.tokenizer if self.processor.train_tokenizer is not None else None
        self._frozen.strip(checkpoint, trained)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the number of steps and a trained tokenizer.

        Raises:
            ModelError: the frozen weights are not those of the training, or another program wrote the checkpoint.
        """
        trained = self._frozen.check(checkpoint)
        if trained is not None:
            self.processor.tokenizer = trained
        self.trained_steps = checkpoint["global_step"]

    def on_train_start(self) -> None:
        """Notes the run's seed, which `on_train_batch_start` combines with the step; resumes within an epoch."""
        self._seed = torch.initial_seed()
        # Lightning makes the loaders for `estimated_stepping_batches`, before it has read their state.
        self.trainer.fit_loop._load_combined_loader_states()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Seeds dropout by run, batch and process: a resumed training then draws what one that never stopped draws."""
        torch.manual_seed(hash((self._seed, self.trainer.fit_loop.total_batch_idx, self.global_rank)))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's signature
        """The loss of a mixed batch; of the batches of all processes as if they were one.

        Raises:
            ModelError: the loss is not finite; names step and samples.
        """
        total, count = self.model.loss_sum(add_vision_features(self.model, self.processor, batch), self.loss)
        sums = torch.stack([total.detach(), count])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(sums)
        # At least one: all samples of a batch may be fillers.
        count = sums[1].clamp(min=1)
        mean = sums[0] / count
        if not torch.isfinite(mean):
            raise ModelError(
                f"The loss of step {self.trainer.global_step} is {mean.item():g}. Lower 'model.optim.lr', or look at "
                f"the samples of this process: {', '.join(batch.sample_ids)}."
            )
        self.log("train/loss", mean, prog_bar=True, batch_size=len(batch.modalities))
        # Gradients are averaged over processes, not summed.
        return total * self.trainer.world_size / count

    def on_validation_start(self) -> None:
        """Resets metrics."""
        self.on_test_start()
        self._val_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:  # noqa: ARG002
        """Answers a batch, and computes its loss."""
        batch = add_vision_features(self.model, self.processor, batch)
        if batch.labeled is not None:
            labeled = replace(batch.labeled, vision_features=batch.vision_features)
            self._val_loss.update(self.model.loss(labeled, self.loss), len(batch.modalities))
        return self.test_step(batch, batch_idx)

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
