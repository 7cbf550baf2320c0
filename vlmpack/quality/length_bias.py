"""Whether longer responses get higher rewards, and whether the data wants that."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from vlmpack.quality.correlation import Correlation, correlation, levelled
from vlmpack.quality.judged import Judged
from vlmpack.quality.paired import Paired, paired
from vlmpack.quality.shares import Share, share


@dataclass(frozen=True, eq=False)
class LengthBias:
    """Reward against the length of the response.

    Attributes:
        overall: over all responses.
        within: of what is left when each prompt's mean is taken off both, over responses that have siblings. Only
            such differences decide between the responses of a prompt.
        model_longer: share of pairs in which the longer response has the higher reward; None if there are no pairs.
        data_longer: share of the same pairs in which the data prefers the longer response.
        difference: the model's share minus the data's.
        equal_lengths: pairs left out because both are equally long.
        ties: pairs of different lengths left out because their rewards are equal: the model prefers neither.
        centred_lengths: [n] what `within` is of, to be drawn: tokens above the prompt's mean.
        centred_rewards: [n] rewards above the prompt's mean.
    """

    overall: Correlation
    within: Correlation
    model_longer: Share | None
    data_longer: Share | None
    difference: Paired | None
    equal_lengths: int
    ties: int
    centred_lengths: Float64[np.ndarray, " n"]
    centred_rewards: Float64[np.ndarray, " n"]


def length_bias(judged: Judged) -> LengthBias:
    """Correlation of reward with length, and how often the longer response of a pair is preferred.

    That reward rises with length is no fault by itself: people prefer longer responses too. It is one as far as the
    model prefers them more often than the data does. Singhal et al., 2023 (https://arxiv.org/abs/2310.03716), show
    how far such a model carries a policy that is trained on it.

    Args:
        judged: rewards, lengths and pairs.
    """
    lengths = judged.lengths.astype(np.float64)
    centred = _centred(lengths, judged), _centred(judged.rewards, judged)
    longer = judged.lengths[judged.pairs[:, 0]] > judged.lengths[judged.pairs[:, 1]]
    unequal = judged.lengths[judged.pairs[:, 0]] != judged.lengths[judged.pairs[:, 1]]
    kept = unequal & (judged.gaps != 0)
    data, model = longer[kept], (longer == judged.right)[kept]
    return LengthBias(
        overall=correlation(lengths, judged.rewards),
        within=correlation(*centred),
        model_longer=share(model),
        data_longer=share(data),
        difference=paired(model, data, judged.row_of_pair[kept]),
        equal_lengths=int((~unequal).sum()),
        ties=int((unequal & ~kept).sum()),
        centred_lengths=centred[0],
        centred_rewards=centred[1],
    )


def _centred(values: Float64[np.ndarray, " R"], judged: Judged) -> Float64[np.ndarray, " n"]:
    """Values minus their row's mean, of responses that have siblings."""
    _, number, counts = np.unique(judged.row_of, return_inverse=True, return_counts=True)
    means = np.bincount(number, values) / counts
    return levelled(values - means[number], largest=float(np.abs(values).max()))[counts[number] > 1]
