"""Verify every family that transformers can build from a configuration alone.

Writes assets/families.md, what became of each, and vlmpack/proven.py, the families that are exact and so accepted.

    python examples/census.py                        # all of them: a few minutes
    python examples/census.py --types llava qwen2_vl  # some, printed and not written
    python examples/census.py --check                 # are those in vlmpack/proven.py exact here, on other rows too?
"""

import argparse
import datetime
import multiprocessing
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import torch
import transformers
from tqdm import tqdm
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from vlmpack import proven
from vlmpack.families import FAMILIES
from vlmpack.proof.verify import verify

ROOT = Path(__file__).parent.parent
SECONDS = 300  # for one family
IMAGE_TEXT = tuple(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
TEXT = tuple(name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in IMAGE_TEXT)
VISION_START = {"vision_start_token_id": 151652, "vision_end_token_id": 151653, "audio_start_token_id": 151647}
FULL_AND_SLIDING = {
    kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")
}
SPARSE = {"layer_types": ["full_attention", "minimax_m3_sparse"], "num_hidden_layers": 2}
# What every released checkpoint says and a configuration by itself leaves open, kinds of layers above all.
RELEASED = {
    "blip-2": {"image_token_index": 50265},
    "cohere_compass": {"text_config": {"rope_parameters": FULL_AND_SLIDING}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": FULL_AND_SLIDING["full_attention"]}},
    "gemma4": {"vision_config": {}, "text_config": {"use_bidirectional_attention": "vision"}},
    "gemma4_unified": {"vision_config": {}},
    "granite4_vision": {"deepstack_layer_map": [[-2, 0], [-1, 1]], "downsample_rate": "1/2"},
    "instructblip": {"image_token_index": 50265},
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "lfm2_vl": {
        "text_config": {"model_type": "lfm2", "layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}
    },
    "minimax_m3_vl": {"text_config": SPARSE},
    "minimax_m3_vl_text": SPARSE,
    "minicpm_ocr": {"image_token_id": 248056, "video_token_id": 248057},
    "minicpmv4_6": {"image_token_id": 248056, "video_token_id": 248057},
    "minicpmv4_7": {"image_token_id": 248056, "video_token_id": 248057},
    "nemotron_h_omni": {"image_token_id": 18},
    "qwen2_5_omni_thinker": VISION_START,
    "qwen3_omni_moe_thinker": VISION_START,
}
EXCLUDED = {"video_llava": "cannot be verified with transformers 5.17, where its images have other argument names"}
RULES = {  # a line of docs/models.md for each rule of vlmpack/families.py
    "the tokens of an image see each other both ways": lambda f: f.both_ways == "image",
    "but only if `use_bidirectional_attention` says so": lambda f: f.only_if is not None,
    "and only in layers of sliding attention": lambda f: f.layers == "sliding_attention",
    "all tokens of a prompt see each other both ways: two prompts share all their tokens or none": (
        lambda f: f.both_ways == "prompt"
    ),
    "positions begin at 1": lambda f: f.first_position == 1,
    "image tensors have a batch axis before the images": lambda f: bool(f.axes),
    "an image is cut into tiles only if it stands alone in its prompt": lambda f: f.counts_images,
}
BEGIN, END = "<!-- families: written by examples/census.py -->", "<!-- end of families -->"
OUTCOMES = {
    "exact": "packed equals unpacked: log-probabilities, every gradient, siblings, images",
    "different": "refused by vlmpack.enable, for packed and unpacked differ",
    "refused": "refused by vlmpack.enable with the reason",
    "not run": "could not be built or run from its configuration alone; refused by vlmpack.enable as not proven",
}


def configuration(model_type: str) -> PretrainedConfig:
    """A family's configuration by itself."""
    settings = RELEASED.get(model_type, {})
    config = AutoConfig.for_model(model_type, **settings)
    for name, value in settings.items():
        if name.endswith("_id") and getattr(config, name, None) is None:
            setattr(config, name, value)  # a name that the class does not declare, and its model reads
    return config


def judged(model_type: str, seed: int = 0) -> tuple[str, str]:
    """A family's outcome, and the largest relative difference or the reason."""
    if model_type in EXCLUDED:
        return "not run", EXCLUDED[model_type]
    try:
        report = verify(configuration(model_type), seed=seed)
    except Exception as error:  # a census goes on; what surprised it is in the table
        return "not run", f"verify itself failed with {type(error).__name__}: {error}"
    return report.outcome, f"{report.difference:.0e}" if report.exact else report.reason


def _quieten() -> None:
    """In a process of its own: one thread for small matrices, and no advice about made-up configurations."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)


def census(types: list[str], seed: int = 0) -> dict[str, tuple[str, str]]:
    """Every family's outcome, on two processes, each family with a time limit."""
    found = {}
    with multiprocessing.get_context("spawn").Pool(2, _quieten, maxtasksperchild=40) as pool:
        waiting = {name: pool.apply_async(judged, (name, seed)) for name in types}
        for name, result in tqdm(waiting.items(), desc="verifying families", unit="family"):
            try:
                found[name] = result.get(SECONDS)
            except multiprocessing.TimeoutError:
                found[name] = "not run", f"took longer than {SECONDS} s"
    return found


def page(found: dict[str, tuple[str, str]]) -> str:
    """assets/families.md."""
    made = f"transformers {transformers.__version__}, torch {torch.__version__}, {datetime.date.today()}"
    lines = [
        "# Model families",
        "",
        f"Made by `python examples/census.py` with {made}. `vlmpack verify` on a miniature of each family's",
        "default configuration, random weights, float64; the figure is the largest relative difference.",
        "",
        *(f"- **{name}**: {meaning}" for name, meaning in OUTCOMES.items()),
    ]
    for title, types in (("Image and text", IMAGE_TEXT), ("Text only", TEXT)):
        counts = Counter(found[name][0] for name in types)
        lines += ["", f"## {title}", "", ", ".join(f"{counts[name]} {name}" for name in OUTCOMES), ""]
        lines += ["| family | outcome | |", "|---|---|---|"]
        lines += [f"| {name} | {found[name][0]} | {_cell(found[name][1])} |" for name in sorted(types)]
    return "\n".join(lines) + "\n"


def _cell(reason: str) -> str:
    """A reason in one line of a table, without the advice that follows it."""
    text = " ".join(reason.split("\nTrain it unpacked")[0].split()).replace("|", "\\|")
    return text if len(text) <= 300 else text[:297] + "..."


def proven_page(found: dict[str, tuple[str, str]]) -> str:
    """vlmpack/proven.py."""
    parts = ['"""Families that packing is exact on, as found by examples/census.py, which writes this file."""', ""]
    for title, types in (("IMAGE_TEXT", IMAGE_TEXT), ("TEXT", TEXT)):
        names = [f'    "{name}",' for name in sorted(types) if found[name][0] == "exact"]
        parts += [f"{title} = (", *names, ")", ""]
    return "\n".join(parts)


def supported() -> str:
    """The table of the families that are accepted, and of what each needs to be told."""
    lines = ["| | model types |", "|---|---|"]
    for title, names in (("image and text", proven.IMAGE_TEXT), ("text only", proven.TEXT)):
        lines.append(f"| {title} ({len(names)}) | {', '.join(names)} |")
    lines += ["", "| what a family's models do not tell by themselves | families |", "|---|---|"]
    for rule, has in RULES.items():
        names = [family.model_type for family in FAMILIES if has(family) and family.model_type in proven.IMAGE_TEXT]
        lines.append(f"| {rule} | {', '.join(names)} |")
    return "\n".join(lines)


def write_docs() -> None:
    """Put the table into docs/models.md, between its marks."""
    path = ROOT / "docs" / "models.md"
    before, rest = path.read_text().split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{supported()}\n{END}{rest.split(END)[1]}")


def check(seeds: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    """Families of vlmpack/proven.py that this transformers knows and that are not exact on some weights and rows."""
    known = {*IMAGE_TEXT, *TEXT}
    names = [name for name in (*proven.IMAGE_TEXT, *proven.TEXT) if name in known]
    wrong = []
    for seed in seeds:
        wrong += [
            f"{name}, seed {seed}: {outcome}: {reason}"
            for name, (outcome, reason) in census(names, seed).items()
            if outcome != "exact"
        ]
    print(
        f"transformers {transformers.__version__}: {len(names)} families on {len(seeds)} seeds, {len(wrong)} not exact"
    )
    return wrong


def main() -> None:
    """Read the command line and do as it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="*", help="model types to print; without them all are verified and written")
    parser.add_argument("--check", action="store_true", help="verify the families that are accepted, write nothing")
    parser.add_argument("--docs", action="store_true", help="write the table of docs/models.md from vlmpack/proven.py")
    args = parser.parse_args()
    if args.docs:
        write_docs()
    elif args.check:
        sys.exit("\n".join(check()) or 0)
    elif args.types:
        for name, (outcome, reason) in census(args.types).items():
            print(f"{name}: {outcome}: {reason}")
    else:
        write_all()


def write_all() -> None:
    """Verify all families, and write what was found."""
    print(f"vlmpack: verifying {len(IMAGE_TEXT) + len(TEXT)} families")
    found = census([*IMAGE_TEXT, *TEXT])
    (ROOT / "assets" / "families.md").write_text(page(found))
    (ROOT / "vlmpack" / "proven.py").write_text(proven_page(found))
    subprocess.run([sys.executable, __file__, "--docs"], check=True)  # a fresh process reads the new proven.py
    print(f"wrote assets/families.md and vlmpack/proven.py: {dict(Counter(outcome for outcome, _ in found.values()))}")


if __name__ == "__main__":
    main()
