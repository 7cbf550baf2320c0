"""Preference losses over response scores. Formulas only: no model, no packing.

Every function returns its values unreduced, so that a batch may be computed in several parts and its losses
may be added with weights: Mixed Preference Optimization (Wang et al., 2024, section 3.2,
https://arxiv.org/abs/2411.10442) is 0.8 times `dpo` plus 0.2 times `bco_pair` plus `sft`.

Example:
    >>> import torch
    >>> from vlmpack import losses
    >>> policy, reference = torch.tensor([-3.0, -5.0]), torch.tensor([-4.0, -4.0])
    >>> pairs = torch.tensor([[0, 1]])  # response 0 is preferred to response 1
    >>> losses.dpo(policy, reference, pairs, beta=0.5)
    tensor([0.3133])
"""

from vlmpack.losses.anchors import apo_down, apo_zero, bco_pair, nca_pair, sppo_hard
from vlmpack.losses.contrast import LossError, discopop, dpo, exo_pair, hinge, ipo, robust, sigmoid_norm
from vlmpack.losses.lists import dpo_plackett_luce, plackett_luce
from vlmpack.losses.quantiles import aot, aot_unpaired
from vlmpack.losses.reference_free import cpo, orpo, sft, simpo
from vlmpack.losses.rewards import bradley_terry, centering

__all__ = [
    "LossError",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "bco_pair",
    "bradley_terry",
    "centering",
    "cpo",
    "discopop",
    "dpo",
    "dpo_plackett_luce",
    "exo_pair",
    "hinge",
    "ipo",
    "nca_pair",
    "orpo",
    "plackett_luce",
    "robust",
    "sft",
    "sigmoid_norm",
    "simpo",
    "sppo_hard",
]
