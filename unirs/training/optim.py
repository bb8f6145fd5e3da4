"""Optimizer and learning rate schedule."""

import math
from dataclasses import dataclass, field


@dataclass
class OptimConfig:
    """AdamW with warm-up and cosine decay. The defaults are the paper's.

    Attributes:
        lr: the highest learning rate.
        weight_decay: on matrices; never on norms, biases and embeddings.
        warmup_ratio: the share of all steps that raises the learning rate, 0..1.
        betas: decay of the running means of gradient and squared gradient; 0.95 for the second suits short trainings.
        lr_multipliers: what the learning rate of a part is multiplied by; parts are `encoder`, `change`, `projector`,
            `llm`.
    """

    lr: float = 1e-4
    weight_decay: float = 0.0
    warmup_ratio: float = 0.03
    betas: tuple[float, float] = (0.9, 0.999)
    lr_multipliers: dict[str, float] = field(default_factory=dict)


COMPONENTS = ("encoder", "change", "projector", "llm")


def cosine_with_warmup(step: int, warmup: int, steps: int) -> float:
    """What the learning rate is multiplied by: up to 1 on a line, then down to 0 on half a cosine."""
    # Not transformers' schedule, whose module takes a second to import.
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
