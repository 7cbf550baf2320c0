"""How good a reward model's signal is: measured on held-out rows that it scored."""

from vlmpack.quality.checking import QualityError
from vlmpack.quality.drawing import draw
from vlmpack.quality.judged import Judged
from vlmpack.quality.report import Quality, quality

__all__ = ["Judged", "Quality", "QualityError", "draw", "quality"]
