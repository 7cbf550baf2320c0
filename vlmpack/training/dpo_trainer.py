"""DPO on packs."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from vlmpack import unpacked
from vlmpack.model import unwrapped
from vlmpack.pack import Pack
from vlmpack.sample import Sample
from vlmpack.scores import response_logps
from vlmpack.training.config import ConfigError, DPOConfig
from vlmpack.training.judgement import Judgement, reward_metrics
from vlmpack.training.objective import Scored, objective, rewards
from vlmpack.training.referencing import ReferencingTrainer


class DPOTrainer(ReferencingTrainer):
    """Direct Preference Optimization on packs (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290).

    The reference is, in this order: `ref_model`; the model with its PEFT adapter switched off; a frozen copy
    of the model as it is given. With `precompute_ref_log_probs` it is asked once, before training, and no copy is
    made. Losses that compare with no reference (`sft`, `cpo`, `simpo`, `orpo`) hold none.

    Args:
        model: a causal language model or an image-text-to-text model.
        args: settings.
        ref_model: the frozen reference; made as said above if None.
        others: as for `PreferenceTrainer`.

    Raises:
        ConfigError: `ref_model` is the model itself, the model has no language-model head, or settings do not go
            together.
    """

    def __init__(
        self,
        model: nn.Module,
        args: DPOConfig | None = None,
        *,
        ref_model: nn.Module | None = None,
        **others: Any,
    ) -> None:
        if ref_model is model:
            raise ConfigError("ref_model is the model itself; leave ref_model out, and a frozen copy is made")
        if unwrapped(model).get_output_embeddings() is None:
            raise ConfigError(
                f"{type(unwrapped(model)).__name__} has no language-model head, so it gives no log-probability"
            )
        super().__init__(model, args or DPOConfig(), ref_model=ref_model, **others)

    @property
    def compares_whole_batches(self) -> bool:
        """See `PreferenceTrainer`."""
        return self.args.compares_whole_batches

    def scores(self, model: nn.Module, unit: Pack | Sample) -> Float[Tensor, " R"]:
        """See `PreferenceTrainer`; scores are summed log-probabilities, nats."""
        return response_logps(model, unit) if isinstance(unit, Pack) else unpacked.response_logps(model, [unit])

    def judge(self, scored: Scored) -> Judgement:
        """See `PreferenceTrainer`; scores are the implicit rewards."""
        pairs = scored.preferences.pairs
        pair_rewards = rewards(scored, self.args)[pairs]
        chosen, rejected = scored.policy.detach()[pairs].unbind(dim=-1)
        metrics = reward_metrics(pair_rewards) | {"logps/chosen": chosen, "logps/rejected": rejected}
        return Judgement(objective(scored, self.args), pair_rewards, metrics)
