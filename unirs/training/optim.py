"""Optimizer, learning rate schedule, and the parameter groups that both act on."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from unirs.errors import ModelError, did_you_mean
from unirs.ranges import HalfOpenUnitInterval, NonNegativeFloat, UnitInterval, check_ranges
from unirs.training.muon import Muon


@dataclass
class OptimConfig:
    """AdamW or Muon, with warm-up and cosine decay. The defaults are the paper's.

    Attributes:
        lr: peak learning rate.
        weight_decay: of matrices.
        warmup_ratio: share of all steps, 0..1, in which the learning rate rises; then it follows half a cosine to 0.
        betas: AdamW's decay of the running means of gradient and its square; 0.95 for the second suits short trainings.
        lr_multipliers: factor on the learning rate of a component (`encoder`, `change`, `projector`, `llm`).
        muon: train the matrices of linear layers with Muon, all other parameters with AdamW.
        lr_interval: how often `model.lr_scheduler` advances: each `epoch` or each `step`.
    """

    lr: NonNegativeFloat = 1e-4
    weight_decay: NonNegativeFloat = 0.0
    warmup_ratio: UnitInterval = 0.03
    betas: tuple[HalfOpenUnitInterval, HalfOpenUnitInterval] = (0.9, 0.999)
    lr_multipliers: dict[str, NonNegativeFloat] = field(default_factory=dict)
    muon: bool = False
    lr_interval: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        check_ranges(OptimConfig, self, "optim.")


COMPONENTS = ("encoder", "change", "projector", "llm")


def build_optimizer(
    model: nn.Module, config: OptimConfig, optimizer: OptimizerCallable | None, lr: float | None
) -> Optimizer:
    """Builds the optimizer of the trainable parameters of `COMPONENTS`; None uses the options of `config`.

    Norms, biases and embeddings get no weight decay. `lr` replaces the learning rate.

    Raises:
        ModelError: no parameter is trainable, or a multiplier names an unknown component.
    """
    for component in config.lr_multipliers:
        if component not in COMPONENTS:
            raise ModelError(
                f"optim.lr_multipliers names the unknown component '{component}'. {did_you_mean(component, COMPONENTS)}"
            )
    groups = list(_parameter_groups(model))
    if not groups:
        raise ModelError("Every component of the model is frozen: nothing to train.")
    if optimizer is None:
        chosen = Muon if config.muon else AdamW
        built: Optimizer = chosen(groups, lr=config.lr, weight_decay=config.weight_decay, betas=config.betas)
    else:
        _report_unused(config, "optimizer", "lr", "weight_decay", "betas", "muon")
        built = optimizer(groups)
    for group in built.param_groups:
        group["lr"] = (group["lr"] if lr is None else lr) * config.lr_multipliers.get(group["component"], 1.0)
    return built


def build_schedule(
    optimizer: Optimizer, config: OptimConfig, lr_scheduler: LRSchedulerCallable | None, steps: float
) -> dict[str, Any]:
    """Builds the learning rate schedule, in the form that `LightningModule.configure_optimizers` returns.

    The default is linear warm-up and cosine decay over `steps` optimizer steps, which are infinite without a limit.
    """
    if lr_scheduler is not None:
        _report_unused(config, "lr_scheduler", "warmup_ratio")
        schedule = lr_scheduler(optimizer)
        monitor = {"monitor": schedule.monitor} if isinstance(schedule, ReduceLROnPlateau) else {}
        return {"scheduler": schedule, "interval": config.lr_interval, **monitor}
    if math.isinf(steps):
        raise ModelError(
            "Cosine decay needs the number of training steps. Set trainer.max_epochs or trainer.max_steps, or choose a "
            "schedule without an end, for example '--model.lr_scheduler torch.optim.lr_scheduler.ConstantLR "
            "--model.lr_scheduler.factor 1'."
        )
    factor = partial(cosine_with_warmup, warmup=round(config.warmup_ratio * steps), steps=int(steps))
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def cosine_with_warmup(step: int, warmup: int, steps: int) -> float:
    """Factor on the learning rate: rises linearly to 1 in `warmup` steps, then falls to 0 along half a cosine."""
    # transformers has this schedule too, but its module takes a second to import.
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _parameter_groups(model: nn.Module) -> Iterable[dict[str, Any]]:
    modules = list(model.modules())
    embeddings = {id(p) for m in modules if isinstance(m, nn.Embedding) for p in m.parameters()}
    linear = {id(m.weight) for m in modules if isinstance(m, nn.Linear)} - embeddings
    for component in COMPONENTS:
        module = getattr(model, component)
        trainable = [] if module is None else [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in trainable if id(p) in linear]
        kernels = [p for p in trainable if p.ndim > 1 and id(p) not in embeddings | linear]
        others = [p for p in trainable if p.ndim <= 1 or id(p) in embeddings]
        if matrices:
            yield {"params": matrices, "component": component, "muon": True}
        if kernels:
            yield {"params": kernels, "component": component, "muon": False}
        if others:
            yield {"params": others, "component": component, "muon": False, "weight_decay": 0.0}


def _report_unused(config: OptimConfig, replacement: str, *names: str) -> None:
    defaults = {entry.name: entry.default for entry in fields(OptimConfig)}
    unused = [f"optim.{name}" for name in names if getattr(config, name) != defaults[name]]
    if unused:
        rank_zero_info(f"Not used, since model.{replacement} is set: {', '.join(unused)}.")
