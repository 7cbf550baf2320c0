"""Train a reward model on image preference data; every prompt and its images are encoded once.

Without arguments: pictures are drawn, a tiny LLaVA is built, and both take about a minute on two CPU cores.
With your own: --model llava-hf/llava-1.5-7b-hf --dataset preferences.jsonl
"""

import inputs
from transformers import set_seed

from vlmpack import RewardConfig, RewardModel, RewardTrainer
from vlmpack.reward_head import HEADS
from vlmpack.scores import POOLINGS


def main(arguments: list[str] | None = None) -> RewardTrainer:
    """Train, evaluate and save; returns the trainer."""
    parser = inputs.flags(__doc__, "outputs/reward_model", learning_rate=1e-3, epochs=3)
    add = parser.add_argument
    add("--loss-type", default="bradley_terry", choices=["bradley_terry", "plackett_luce"], help="pairs, or rankings")
    add("--head", default="linear", choices=HEADS, help="one linear layer, or two layers")
    add("--pooling", default="last", choices=POOLINGS, help="what the head reads: a response's last token, or its mean")
    add("--normalize", action="store_true", help="rewards of mean 0 and deviation 1 on the held-out rows")
    add("--use-margin", action="store_true", help="ask pairs to be as far apart as their scores")
    add("--center-rewards-coefficient", type=float, help="weight of the term that holds rewards around 0, e.g. 0.01")
    args = parser.parse_args(arguments)
    set_seed(args.seed)
    train, held_out = inputs.rows(args)
    model, processor = inputs.model_and_processor(args, train)
    trainer = RewardTrainer(
        RewardModel.from_backbone(model, args.head, args.pooling),
        RewardConfig(
            **inputs.training_arguments(args, from_scratch=1e-3),
            loss_type=args.loss_type,
            use_margin=args.use_margin,
            center_rewards_coefficient=args.center_rewards_coefficient,
            normalize_rewards=args.normalize,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,  # a share of all steps
            adam_beta2=0.98,
            logging_steps=50,
        ),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=processor,
        peft_config=inputs.adapter(args, modules_to_save=["reward_head"]),
    )
    trainer.train(resume_from_checkpoint=args.resume or None)
    trainer.save_model()
    if held_out is not None:
        scores = trainer.evaluate()
        inputs.say(
            trainer, f"held-out pair accuracy {scores['eval_rewards/accuracies']:.1%}, loss {scores['eval_loss']:.3f}"
        )
    inputs.say(trainer, f"reward model: {args.output_dir}  (vlmpack.RewardModel.from_pretrained loads it)")
    return trainer


if __name__ == "__main__":
    inputs.run(main)
