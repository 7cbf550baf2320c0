"""Run DPO on image preference data; every prompt and its images are encoded once.

Without arguments: pictures are drawn, a tiny LLaVA is built, and both take about a minute on two CPU cores.
With your own: --model llava-hf/llava-1.5-7b-hf --dataset preferences.jsonl
"""

import inputs
from transformers import set_seed

from vlmpack import DPOConfig, DPOTrainer


def main(arguments: list[str] | None = None) -> DPOTrainer:
    """Train, evaluate and save; returns the trainer."""
    parser = inputs.flags(__doc__, "outputs/dpo_model", learning_rate=1e-3, epochs=2)
    parser.add_argument("--beta", type=float, default=0.1, help="strength of the pull towards the reference")
    add = parser.add_argument
    add("--loss-type", nargs="+", default=["sigmoid"], help="a loss by TRL's name, or several")
    add("--loss-weights", nargs="+", type=float, help="one for each of several losses; without it all 1")
    add("--label-smoothing", type=float, default=0.0, help="probability that a pair's label is flipped")
    add("--precompute-ref-log-probs", action="store_true", help="ask the reference once, keep it on disk, hold none")
    args = parser.parse_args(arguments)
    set_seed(args.seed)
    train, held_out = inputs.rows(args)
    model, processor = inputs.model_and_processor(args, train)
    trainer = DPOTrainer(
        model,
        DPOConfig(
            **inputs.training_arguments(args, from_scratch=1e-3),
            beta=args.beta,
            loss_type=args.loss_type,
            loss_weights=args.loss_weights,
            label_smoothing=args.label_smoothing,
            precompute_ref_log_probs=args.precompute_ref_log_probs,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,  # a share of all steps
            adam_beta2=0.98,
            logging_steps=50,
        ),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=processor,
        peft_config=inputs.adapter(args),
    )
    trainer.train(resume_from_checkpoint=args.resume or None)
    trainer.save_model()
    if held_out is not None:
        scores = trainer.evaluate()
        inputs.say(
            trainer, f"held-out pair accuracy {scores['eval_rewards/accuracies']:.1%}, loss {scores['eval_loss']:.3f}"
        )
    inputs.say(trainer, f"model: {args.output_dir}  (transformers' from_pretrained loads it)")
    return trainer


if __name__ == "__main__":
    inputs.run(main)
