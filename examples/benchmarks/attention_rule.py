"""Which attention backend is faster for which packs: what the rule behind `attention="auto"` rests on.

    python examples/benchmarks/attention_rule.py

`dense` computes whole rows in one call; `paths` computes fewer pairs in more calls. For packs of several shapes
both are timed, forward and backward, A B A B, and the rule's choice is held against the times.
"""

import statistics
import time

import torch

from vlmpack import Forest, layout, masks, plan
from vlmpack.attention import attend

HEADS, HEAD_DIM, ROUNDS = 4, 64, 7
SHAPES = [  # tokens that all prompts share, prompts, prompt tokens, responses, response tokens
    *((0, n, 32, 4, 4) for n in (2, 8, 32)),
    *((0, n, 64, 2, 32) for n in (1, 4, 16)),
    *((0, n, 200, 2, 60) for n in (1, 2, 8)),
    *((0, n, 600, 5, 130) for n in (1, 2, 4)),
    *((0, n, 1200, 4, 300) for n in (1, 2)),
    *((4, n, 32, 4, 4) for n in (8, 32)),
    *((4, n, 200, 2, 60) for n in (2, 8)),
    *((4, n, 60, 2, 300) for n in (2, 8)),
    *((4, n, 600, 5, 130) for n in (1, 2, 4)),
    *((580, n, 20, 5, 130) for n in (2, 3)),
]


def forest(shared: int, prompts: int, prompt: int, responses: int, response: int) -> Forest:
    parents, lengths = ([-1], [shared]) if shared else ([], [])
    for _ in range(prompts):
        root = len(parents)
        parents += [0 if shared else -1] + [root] * responses
        lengths += [prompt] + [response] * responses
    return Forest(tuple(parents), tuple(lengths))


def seconds(shape: Forest) -> dict[str, float]:
    """Median seconds of forward and backward by backend."""
    qkv = [torch.randn(1, HEADS, shape.tokens, HEAD_DIM, requires_grad=True) for _ in range(3)]
    plans = {b: plan.make(shape, masks.reach(shape), layout.position(shape), b) for b in ("dense", "paths")}
    times = {backend: [] for backend in plans}
    for _ in range(ROUNDS + 1):
        for backend, made in plans.items():
            start = time.perf_counter()
            attend(*qkv, made).sum().backward()
            times[backend].append(time.perf_counter() - start)
    return {backend: statistics.median(values[1:]) for backend, values in times.items()}


def main() -> None:
    right, worst = 0, 1.0
    print(f"{'shared + prompts x (prompt + responses)':40} {'T':>6} {'dense':>9} {'paths':>9}  rule")
    for shape in SHAPES:
        made = forest(*shape)
        measured = seconds(made)
        chosen = plan.make(made, masks.reach(made), layout.position(made), "auto").backend
        right += chosen == min(measured, key=measured.get)
        worst = max(worst, measured[chosen] / min(measured.values()))
        name = "{} + {} x ({} + {} x {})".format(*shape)
        times = " ".join(f"{1000 * measured[b]:7.1f}ms" for b in ("dense", "paths"))
        print(f"{name:40} {made.tokens:6} {times}  {chosen}")
    print(f"the rule picks the faster one in {right} of {len(SHAPES)} shapes; at worst it takes {worst:.2f}x the time")


if __name__ == "__main__":
    main()
