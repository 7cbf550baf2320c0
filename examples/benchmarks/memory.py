"""Peak memory of a packed DPO step against responses K, tokens T and vocabulary V: one command, a table and a picture.

    python examples/benchmarks/memory.py

A step is the policy's forward and backward on one pack, its reference's log-probabilities given, its gradients there
as every pack but a step's first finds them. What is measured is the most that is live at once above what was live
before (`peak_memory.py`): on the CPU every block that torch hands out, on a GPU the allocator's own count. A straight
line is fitted to each series. For contrast stand one attention with a table of T x T, which must bend, and a head that
keeps all logits.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import matplotlib
from peak_memory import peak_bytes  # before torch: it quietens the profiler

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

import vlmpack
from vlmpack import Pack, Sample, losses
from vlmpack.model import run

MEBIBYTE = 1 << 20
FOLDER = Path(__file__).parent.parent.parent / "assets" / "benchmarks" / "memory"


@dataclass(frozen=True)
class Size:
    """How large things are where they do not vary.

    Attributes:
        hidden: width of the decoder; heads are 64 wide.
        layers: of the decoder.
        vocabulary: V.
        prompt: tokens of a prompt.
        response: tokens of a response.
        responses: K.
        prompts: in the pack.
        dtype: of weights and activations.
    """

    hidden: int = 128
    layers: int = 2
    vocabulary: int = 4096
    prompt: int = 256
    response: int = 64
    responses: int = 4
    prompts: int = 1
    dtype: str = "float32"


SMALL = Size()
LARGE = Size(hidden=2048, layers=8, vocabulary=32_000, prompt=1024, response=256, dtype="bfloat16")


@dataclass(frozen=True)
class Axis:
    """One thing that varies.

    Attributes:
        title: for the picture.
        field: of `Size`.
        small: its values on the CPU.
        large: its values on a GPU.
        tokens: whether the horizontal axis is the pack's tokens, not the value.
        series: which ways of computing are shown.
        fixed: what does not vary but is not as in `Size` either.
    """

    title: str
    field: str
    small: Sequence[int]
    large: Sequence[int]
    tokens: bool
    series: Sequence[str]
    fixed: Mapping[str, int] = field(default_factory=dict)


PATHS, DENSE, LOGITS = "paths", "dense", "paths, all logits kept"
AXES = {
    "K": Axis(
        title="responses K to one prompt",
        field="responses",
        small=(2, 4, 8, 12, 16),
        large=(2, 4, 8, 16, 32),
        tokens=False,
        series=(PATHS, DENSE),
    ),
    "T of prompts": Axis(
        title="tokens T: more prompts",
        field="prompts",
        small=(1, 2, 4, 6, 8),
        large=(1, 2, 4, 8, 16),
        tokens=True,
        series=(PATHS, DENSE),
    ),
    "T of one prompt": Axis(
        title="tokens T: one prompt gets longer",
        field="prompt",
        small=(256, 768, 1792, 2816, 3840),
        large=(1024, 3072, 7168, 15_360, 31_744),
        tokens=True,
        series=(PATHS, DENSE),
    ),
    "V": Axis(
        title="vocabulary V, with K = 16",
        field="vocabulary",
        small=(16_384, 32_768, 65_536, 98_304, 131_072),  # where the head reads in chunks; one chunk grows with V too
        large=(32_000, 64_000, 128_000, 256_000),
        tokens=False,
        series=(PATHS, LOGITS),
        fixed={"responses": 16},
    ),
}
SAID = {
    PATHS: "paths",
    DENSE: "dense: quadratic in a tree's tokens, for contrast",
    LOGITS: "paths with a head that keeps all logits, for contrast",
}
LOOKS = {PATHS: ("#0072b2", "o", "-"), DENSE: ("#d55e00", "s", "--"), LOGITS: ("#009e73", "^", ":")}  # Okabe and Ito


def model_of(size: Size, device: str) -> nn.Module:
    """A Llama with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 64,
        num_key_value_heads=size.hidden // 64,
        vocab_size=size.vocabulary,
        max_position_embeddings=1 << 17,
    )
    return LlamaForCausalLM(config).to(device, getattr(torch, size.dtype)).train()


def pack_of(size: Size) -> Pack:
    """Random tokens: prompts with K responses each, the first preferred to all others; no two begin alike."""
    random = torch.Generator().manual_seed(0)

    def tokens(count: int, number: int) -> Tensor:
        drawn = torch.randint(size.vocabulary, (count,), generator=random)
        return drawn.index_fill(0, torch.tensor([0]), number)

    pairs = tuple((0, other) for other in range(1, size.responses))
    samples = [
        Sample(tokens(size.prompt, n), tuple(tokens(size.response, k) for k in range(size.responses)), pairs)
        for n in range(size.prompts)
    ]
    (pack,) = vlmpack.pack(samples, max_tokens=sum(sample.lengths.packed for sample in samples))
    return pack


def all_logits(model: nn.Module, pack: Pack) -> Tensor:
    """Log-probabilities as a plain head gives them: a row of V logits for every predicted token, kept for backward."""
    logits = run(model, pack, logits_to_keep=pack.previous[0, pack.targets]).logits[0].float()
    targets = pack.input_ids[0, pack.targets]
    token_logps = -nn.functional.cross_entropy(logits, targets, reduction="none")
    return token_logps.new_zeros(pack.responses).index_add(0, pack.terms[:, 1], token_logps[pack.terms[:, 0]])


def step_of(series: str, size: Size, device: str) -> tuple[Callable[[], None], int]:
    """Forward and backward of one pack, and the tokens of the pack."""
    model, pack = model_of(size, device), pack_of(size).to(device)
    vlmpack.enable(model, "dense" if series == DENSE else "paths")
    logps = all_logits if series == LOGITS else vlmpack.response_logps
    reference = torch.full((pack.responses,), -1.0, device=device)

    def step() -> None:
        losses.dpo(logps(model, pack).float(), reference, pack.pairs).mean().backward()

    step()  # gradients are there from now on, and whatever is made only once
    return step, pack.tokens


def measured(axis: Axis, series: str, base: Size, device: str) -> dict:
    """The peak for every value of an axis, and the straight line through them."""
    values = axis.small if device == "cpu" else axis.large
    places, peaks = [], []
    for value in tqdm(values, desc=f"{axis.title}, {series}", leave=False):
        step, tokens = step_of(series, Size(**{**asdict(base), **axis.fixed, axis.field: value}), device)
        peaks.append(peak_bytes(step, device))
        places.append(tokens if axis.tokens else value)
    return {axis.field: list(values), "at": places, "bytes": peaks, **line(places, peaks)}


def line(places: Sequence[float], peaks: Sequence[float]) -> dict[str, float]:
    """The straight line through points, by least squares, and how far they lie from it.

    Returns:
        slope and intercept; `r_squared`; `worst`: the largest distance from the line, as a share of the line's value.
    """
    x, y = np.asarray(places, dtype=float), np.asarray(peaks, dtype=float)
    slope, intercept = np.polyfit(x, y, 1)
    fitted = slope * x + intercept
    r_squared = 1 - ((y - fitted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    worst = float(np.abs(y / fitted - 1).max())
    return {"slope": float(slope), "intercept": float(intercept), "r_squared": float(r_squared), "worst": worst}


def draw(results: dict[str, dict], about: str) -> plt.Figure:
    """One panel an axis: what was measured as points, the fitted lines of what is to be straight."""
    figure, panels = plt.subplots(2, 2, figsize=(10, 7.6), layout="constrained")
    for panel, (name, found) in zip(panels.flat, results.items(), strict=True):
        _draw_panel(panel, AXES[name], found)
    figure.suptitle(f"Peak memory of a packed DPO step above weights and gradients\n{about}", fontsize=11)
    return figure


def _draw_panel(panel: Axes, axis: Axis, found: dict[str, dict]) -> None:
    for series, each in found.items():
        colour, marker, style = LOOKS[series]
        at, mebibytes = np.array(each["at"]), np.array(each["bytes"]) / MEBIBYTE
        label = SAID[series]
        if series == PATHS:
            label += f"; straight line: R² = {each['r_squared']:.5f}, off by {each['worst']:.2%} at most"
            panel.plot(at, (each["slope"] * at + each["intercept"]) / MEBIBYTE, style, color=colour, linewidth=1.5)
            panel.plot(at, mebibytes, marker, color=colour, label=label)
        else:
            panel.plot(at, mebibytes, style + marker, color=colour, linewidth=1.2, markersize=5, label=label)
    panel.set(xlabel=axis.title, ylabel="peak, MiB", xlim=(0, None), ylim=(0, None))
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.grid(color="0.9")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def table(results: dict[str, dict]) -> str:
    """The results as Markdown."""
    lines = [
        "| against | computed by | from | to | peak, MiB | R² of a line | furthest from it |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in results.items():
        for series, each in found.items():
            peaks = [value / MEBIBYTE for value in each["bytes"]]
            columns = [AXES[name].title, SAID[series], f"{each['at'][0]:,}", f"{each['at'][-1]:,}"]
            columns += [f"{peaks[0]:.1f} to {peaks[-1]:.1f}", f"{each['r_squared']:.5f}", f"{each['worst']:.2%}"]
            lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=AXES, help="what to vary")
    parser.add_argument("--output-dir", type=Path, default=FOLDER, help="where results are written")
    args = parser.parse_args(arguments)
    base = SMALL if args.device == "cpu" else LARGE
    results = {
        name: {series: measured(AXES[name], series, base, args.device) for series in AXES[name].series}
        for name in args.axes
    }
    machine = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    about = (
        f"{machine}, torch {torch.__version__}: Llama of {base.layers} layers of {base.hidden}, {base.dtype}; unless "
        f"varied\n{base.prompts} prompt of {base.prompt} tokens, K = {base.responses} responses of {base.response}, "
        f"V = {base.vocabulary:,}"
    )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    facts = {"about": about.replace("\n", " "), "size": asdict(base), "device": machine, "results": results}
    (args.output_dir / f"{args.device}.json").write_text(json.dumps(facts, indent=1))
    text = f"{facts['about']}.\n\n{table(results)}\n"
    (args.output_dir / f"{args.device}.md").write_text(text)
    print(text)
    if set(args.axes) == set(AXES):
        draw(results, about).savefig(args.output_dir / f"{args.device}.png", dpi=150)
    print(f"results: {args.output_dir}")


if __name__ == "__main__":
    main()
