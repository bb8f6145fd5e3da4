"""Reads checkpoints of other programs as UniRS models: VILA-1.5, the published UniRS, and families of transformers."""

from unirs.models.importers.reader import read_checkpoint
from unirs.models.importers.vila import VICUNA

__all__ = ["VICUNA", "read_checkpoint"]
