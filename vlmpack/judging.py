"""What a reward model is for: scoring, ranking and comparing the responses of rows as users have them."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from vlmpack.reading_rows import processor_at
from vlmpack.reward_model_config import RewardModelError
from vlmpack.sample import Sample
from vlmpack.scored import Scored
from vlmpack.scoring import scored

SHOWN = 5  # bad rows named in a message; the rest are counted


class ScoringError(RewardModelError):
    """Some rows cannot be scored; the message names them.

    Attributes:
        scores: of all rows, None for those that cannot be scored: nothing that was computed is lost.
    """

    def __init__(self, message: str, scores: list[list[float] | None]) -> None:
        super().__init__(message)
        self.scores = scores


class Judging:
    """What `RewardModel` does with rows; computed packed, in inference mode, dropout off.

    Rows are in any format that `PreferenceProcessor` reads, without scores too and with one response or more, or
    `Sample`s. Rewards are normalised if `normalize` was called: (reward - mean) / std.
    """

    @property
    def processor(self) -> Any:
        """What reads rows: the `PreferenceProcessor` that was set, or the one saved with the model.

        Raises:
            RewardModelError: there is none.
        """
        if vars(self).get("_processor") is None:
            self._processor = self._saved_processor()
        return self._processor

    @processor.setter
    def processor(self, value: Any) -> None:
        """Set what reads rows.

        Args:
            value: a `PreferenceProcessor`.
        """
        self._processor = value

    @property
    def processor_or_none(self) -> Any:
        """The processor if one was set or lies in the model's own folder; nothing is looked for elsewhere."""
        path = self.processor_path or self.name_or_path
        if vars(self).get("_processor") is None and not (path and Path(path).is_dir()):
            return None
        try:
            return self.processor
        except RewardModelError:
            return None

    def _saved_processor(self) -> Any:
        path = self.processor_path or self.name_or_path
        try:
            if not path:
                raise OSError("it was made in memory")
            return processor_at(path)
        except (OSError, ValueError) as error:
            raise RewardModelError(
                f"the reward model has no processor to read rows with, nor is one saved at {path!r}; set "
                f"reward_model.processor = PreferenceProcessor.from_pretrained(...), or give Samples"
            ) from error

    def score(
        self,
        rows: Iterable[Mapping[str, Any] | Sample],
        *,
        max_tokens: int = 8192,
        max_length: int | None = None,
        quiet: bool = False,
    ) -> list[list[float]]:
        """Rewards of all responses of some rows.

        Args:
            rows: a list, a data set or a stream.
            max_tokens: of a pack, as many as fit into memory. A row that is larger is computed in several packs.
            max_length: tokens of prompt + response; response tails are cut. None: nothing is.
            quiet: show no progress bar.

        Returns:
            For each row, the reward of each of its responses; higher is better.

        Raises:
            RewardModelError: these are no rows, or there is no processor to read them.
            ScoringError: some rows cannot be scored; its `scores` holds the others' rewards.
        """
        if isinstance(rows, Mapping | Sample | str):
            raise RewardModelError(f"rows is one {type(rows).__name__}; give a list of rows, [row]")
        found = self._scored(rows, max_tokens, max_length, quiet)
        scores = [None if each.error else [self.normalized(reward) for reward in each.rewards] for each in found]
        if bad := [each for each in found if each.error]:
            raise ScoringError(_told(bad, len(found)), scores)
        return scores

    def rank(
        self, row: Mapping[str, Any] | Sample, *, max_tokens: int = 8192, max_length: int | None = None
    ) -> list[int]:
        """The responses of a row from the best to the worst; `rank(row)[0]` is best-of-N.

        Args:
            row: with N responses, which share one encoding of their prompt and its images.
            max_tokens: as for `score`.
            max_length: as for `score`.

        Returns:
            Their numbers in the row, from 0; equal rewards keep the row's order.

        Raises:
            RewardModelError: there is no processor to read the row.
            ScoringError: the row cannot be scored.
        """
        (rewards,) = self.score([row], max_tokens=max_tokens, max_length=max_length, quiet=True)
        return sorted(range(len(rewards)), key=lambda response: -rewards[response])

    def compare(
        self, row: Mapping[str, Any] | Sample, a: Any, b: Any, *, max_tokens: int = 8192, max_length: int | None = None
    ) -> float:
        """The probability that one response is better than another.

            P(a > b) = sigmoid(reward_a - reward_b)

        Bradley and Terry, 1952 (Ouyang et al., 2022, equation 1, https://arxiv.org/abs/2203.02155), by rewards that
        are not normalised: these are its logits.

        Args:
            row: whose prompt they answer.
            a: the number of a response in the row, or a response: text or messages.
            b: likewise.
            max_tokens: as for `score`.
            max_length: as for `score`.

        Returns:
            0 to 1; 0.5 where the rewards are equal.

        Raises:
            RewardModelError: there is no such response, or a sample is asked about texts.
            ScoringError: the row cannot be scored.
        """
        row, places = _with_responses(row, a, b)
        (only,) = self._scored([row], max_tokens, max_length, quiet=True)
        if only.error:
            raise ScoringError(_told([only], 1), [None])
        for place in places:
            if not 0 <= place < len(only.rewards):
                raise RewardModelError(f"there is no response {place}; the row has 0 to {len(only.rewards) - 1}")
        difference = only.rewards[places[0]] - only.rewards[places[1]]
        return 1 / (1 + math.exp(-difference)) if difference >= 0 else 1 - 1 / (1 + math.exp(difference))

    def normalize(
        self,
        rows: Iterable[Mapping[str, Any] | Sample],
        *,
        max_tokens: int = 8192,
        max_length: int | None = None,
        quiet: bool = False,
    ) -> None:
        """Let rewards have mean 0 and standard deviation 1 over the responses of a calibration set.

        Kept in the configuration and so saved with the model. What is shown changes: `score`, and the commands; what
        the model computes does not, for losses and probabilities are about differences of rewards as they are.

        Args:
            rows: the calibration set, as for `score`.
            max_tokens: as for `score`.
            max_length: as for `score`.
            quiet: show no progress bar.

        Raises:
            RewardModelError: the rewards are all equal, or there are none.
            ScoringError: some rows cannot be scored.
        """
        found = self._scored(rows, max_tokens, max_length, quiet)
        if bad := [each for each in found if each.error]:
            raise ScoringError(_told(bad, len(found)), [None if each.error else [*each.rewards] for each in found])
        self.normalize_by([reward for each in found for reward in each.rewards])

    def normalize_by(self, rewards: list[float]) -> None:
        """As `normalize`, by rewards of a calibration set that are known already.

        Args:
            rewards: as the model computes them.

        Raises:
            RewardModelError: they are all equal, or there are none.
        """
        mean = math.fsum(rewards) / max(1, len(rewards))
        variance = math.fsum((reward - mean) ** 2 for reward in rewards) / max(1, len(rewards))
        if not variance > 0:
            raise RewardModelError(
                f"{len(rewards)} rewards with a standard deviation of {variance**0.5:.3g} calibrate nothing; give rows "
                f"whose responses differ"
            )
        self.config.reward_mean, self.config.reward_std = mean, variance**0.5

    def normalized(self, reward: float) -> float:
        """A reward as it is shown: (reward - mean) / std of the calibration set, if there was one.

        Args:
            reward: as the model computes it.
        """
        return (reward - self.config.reward_mean) / self.config.reward_std

    def _scored(self, rows: Iterable[Any], max_tokens: int, max_length: int | None, quiet: bool) -> list[Scored]:
        total = len(rows) if hasattr(rows, "__len__") else None
        found = scored(self, rows, self._read, max_tokens=max_tokens, max_length=max_length)
        return list(tqdm(found, desc="scoring", unit="row", total=total, disable=quiet, leave=False))

    def _read(self, row: Any) -> Sample:
        return self.processor.candidates(row)


def _with_responses(row: Any, a: Any, b: Any) -> tuple[Any, tuple[int, int]]:
    """A row, and the places of the two responses in it that are meant."""
    if isinstance(a, int) and isinstance(b, int):
        return row, (a, b)
    if isinstance(a, int) or isinstance(b, int) or not isinstance(row, Mapping) or "prompt" not in row:
        raise RewardModelError(
            f"compare is given a {type(a).__name__} and a {type(b).__name__} for a {type(row).__name__}; give two "
            f"numbers of its responses, or a row with a 'prompt' and two responses"
        )
    kept = {name: row[name] for name in ("images", "image", "prompt") if name in row}
    return {**kept, "responses": [a, b]}, (0, 1)


def _told(bad: list[Scored], rows: int) -> str:
    lines = [f"  row {each.place}: {each.error}" for each in bad[:SHOWN]]
    more = [f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
    head = f"{len(bad)} of {rows} rows cannot be scored (the others' rewards are in this error's `scores`):"
    return "\n".join([head, *lines, *more])
