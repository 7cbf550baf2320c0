"""Trains a tiny model on one or several processes, and saves its losses, its weights and what each rank did.

    python tests/trajectory.py FOLDER dpo:1 dpo:ddp reward:fsdp2 ...

Each run is KIND:ENGINE, or KIND:ENGINE:VARIANT with one of `VARIANTS`. The parent imports everything once and forks the ranks of each run.
"""

import json
import os
import socket
import sys
import traceback
from pathlib import Path

import torch
import yaml

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "examples")]

from test_trainers import dataset
from tiny import EOS, llava, sample

from vlmpack import DPOConfig, DPOTrainer, RewardConfig, RewardModel, RewardTrainer
from vlmpack.training.fillers import NOBODY

STEPS, GLOBAL_BATCH, SAVED_AT = 20, 6, 8
CONFIGS = Path(__file__).parent.parent / "examples" / "accelerate"
FSDP = yaml.safe_load((CONFIGS / "fsdp2.yaml").read_text())["fsdp_config"]  # as `accelerate launch` hands it on
FSDP2 = {"ACCELERATE_USE_FSDP": "true", **{name.upper(): str(value) for name, value in FSDP.items()}}
ENGINES = {"1": {}, "ddp": {}, "fsdp2": FSDP2, "zero2": {}, "zero3": {}}

COUNTED = [  # what does not depend on how rows are dealt, for no two of them begin alike
    "num_tokens",
    "packing/tokens_saved",
    "packing/vision_passes_per_step",
    "packing/unpacked_vision_passes_per_step",
]
VARIANTS = {
    "cached": {"precompute_ref_log_probs": True},  # reference log-probabilities from the disk
    "aot": {"loss_type": "aot"},  # compares all pairs of a batch, whatever rank they are on
    "accumulated": {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 1},
}


def rows() -> list:
    """Few with images, and texts of very different lengths: ranks get packs that differ in number, some no image."""
    texts = [
        sample([1 + k, 2], [[3] * (1 + 9 * (k % 2)), [4, EOS], [5] * (2 + k % 4)], [(0, 1), (2, 1)], seed=k)
        for k in range(10)
    ]
    images = [sample([1, k], [[2, EOS], [3]], [(0, 1)], images=1 + k % 2, seed=20 + k) for k in range(3, 7)]
    return [*texts[:5], *images, *texts[5:]]


def settings(kind: str, engine: str, ranks: int, folder: Path, **others) -> dict:
    common = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": GLOBAL_BATCH // ranks,
        "per_device_eval_batch_size": 4,
        "max_tokens": 27,
        "learning_rate": 1e-2,
        "optim": "sgd",
        "max_grad_norm": 0.5,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    if engine.startswith("zero"):
        common["deepspeed"] = {
            "zero_optimization": {"stage": int(engine[-1]), "stage3_gather_16bit_weights_on_model_save": True},
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
    return {**common, **others}


def trainer(kind: str, engine: str, ranks: int, folder: Path, **others):
    """A trainer of this kind; `rows` and other settings by name."""
    torch.manual_seed(0)
    model = llava().float()
    data = others.pop("rows", None) or rows()
    evaluation = dataset(7)
    arguments = settings(kind, engine, ranks, folder, **others)
    if kind == "dpo":
        return DPOTrainer(model, DPOConfig(**arguments), train_dataset=data, eval_dataset=evaluation)
    model = RewardModel.from_backbone(model)
    torch.manual_seed(7)
    torch.nn.init.normal_(model.reward_head.score.weight)
    return RewardTrainer(model, RewardConfig(**arguments), train_dataset=data, eval_dataset=evaluation)


def run(kind: str, engine: str, ranks: int, rank: int, folder: Path, variant: str) -> None:
    """One rank's part of a run."""
    made = trainer(kind, engine, ranks, folder, **VARIANTS.get(variant, {}))
    did = []
    units_of = made.tasks

    def watched(inputs, loader):
        own = inputs["units"]
        if made.is_in_train:
            given = [made.train_dataset[place] for places in inputs["places"] for place in places if place != NOBODY]
            did.append({"packs": len(own), "images": sum(len(row.images) for row in given)})
        return units_of(inputs, loader)

    made.tasks = watched
    made.train()
    scores = made.evaluate()
    predictions = made.predict(dataset(5)).predictions
    made.save_model(str(folder / "model"))
    (folder / f"did-{rank}.json").write_text(json.dumps(did))
    if rank == 0:
        curve = [each["loss"] for each in made.state.log_history if "loss" in each]
        logged = [each["rewards/accuracies"] for each in made.state.log_history if "loss" in each]
        counted = [[each[name] for name in COUNTED] for each in made.state.log_history if "loss" in each]
        found = {"curve": curve, "accuracies": logged, "counted": counted, "eval": scores}
        found["qualities"] = {name: each.to_dict() for name, each in getattr(made, "qualities", {}).items()}
        torch.save({**found, "predictions": predictions.tolist()}, folder / "run.pt")


def fork(kind: str, engine: str, ranks: int, folder: Path, variant: str) -> int:
    """Run all ranks in processes of their own; 0 if all went well."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            if ranks > 1:
                os.environ |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(ranks),
                    "LOCAL_WORLD_SIZE": str(ranks),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    **ENGINES[engine],
                }
            status = 1
            try:
                run(kind, engine, ranks, rank, folder, variant)
                status = 0
            except BaseException:
                (folder / f"error-{rank}.txt").write_text(traceback.format_exc())
                traceback.print_exc()
            os._exit(status)
        children.append(child)
    return max(os.waitpid(child, 0)[1] for child in children)


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    for name in sys.argv[2:]:
        kind, engine, *variant = name.split(":")
        failed = fork(kind, engine, 1 if engine == "1" else 2, out / name.replace(":", "-"), "".join(variant))
        print(name, "failed" if failed else "done", flush=True)
