"""How attention is computed fastest on the CPU: what the rule behind `attention="auto"` rests on.

    python examples/benchmarks/attention_rule.py

Four tables. `dense` computes whole rows in one call, `paths` computes fewer pairs in more calls: packs of several
shapes are timed both ways, forward and backward, and the rule's choice is held against the times. Then: ways to compute
a prompt's further responses, ways to give each query head its key head, and what planning a pack takes. In each table
the ways alternate A B A B in one process; ratios are taken round by round, and their median is reported.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vlmpack import Forest, choosing, folding, layout, masks, plan
from vlmpack.attention import attend
from vlmpack.kernels import paths
from vlmpack.kernels.weighing import Settings

HEADS, HEAD_DIM = 4, 64
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
Way = Callable[[], object]


def forest(shared: int, prompts: int, prompt: int, responses: int, response: int) -> Forest:
    parents, lengths = ([-1], [shared]) if shared else ([], [])
    for _ in range(prompts):
        root = len(parents)
        parents += [0 if shared else -1] + [root] * responses
        lengths += [prompt] + [response] * responses
    return Forest(tuple(parents), tuple(lengths))


def planned(shape: Forest, attention: str) -> plan.Plan:
    return plan.make(shape, masks.reach(shape), layout.position(shape), attention)


def timed(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; one round before them warms up."""
    times = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def ratio(others: list[float], own: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(others, own, strict=True))


def heads(count: int, tokens: int) -> Tensor:
    """As a model gives them: tokens first in memory."""
    return torch.randn(1, tokens, count, HEAD_DIM).transpose(1, 2).requires_grad_()


def backends(rounds: int) -> None:
    """Which backend is faster for which packs."""
    right, worst = 0, 1.0
    print(f"{'shared + prompts x (prompt + responses)':40} {'T':>6} {'dense':>9} {'paths':>9} {'ratio':>6}  rule")
    for shape in SHAPES:
        made = forest(*shape)
        qkv = [heads(HEADS, made.tokens) for _ in range(3)]
        plans = {name: planned(made, name) for name in ("dense", "paths")}

        def step(name: str, qkv=qkv, plans=plans) -> None:
            attend(*qkv, plans[name], None, Settings()).sum().backward()

        times = timed({name: lambda name=name, step=step: step(name) for name in plans}, rounds)
        chosen = choosing.faster(planned(made, "auto"))
        other = "paths" if chosen == "dense" else "dense"
        lost = ratio(times[chosen], times[other])
        right, worst = right + (lost <= 1), max(worst, lost)
        name = "{} + {} x ({} + {} x {})".format(*shape)
        millis = " ".join(f"{1000 * statistics.median(times[b]):7.1f}ms" for b in ("dense", "paths"))
        print(f"{name:40} {made.tokens:6} {millis} {ratio(times['dense'], times['paths']):6.2f}  {chosen}", flush=True)
    print(
        f"the rule picks the faster one in {right} of {len(SHAPES)} shapes; at worst it takes {worst:.2f}x the time\n"
    )


def responses(rounds: int, prompt: int = 620, response: int = 120, count: int = 5) -> None:
    """Ways to compute one prompt and its responses."""
    lengths, path = [prompt, *[response] * count], prompt + response
    qkv = [heads(HEADS, sum(lengths)) for _ in range(3)]
    table = torch.ones(path, path, dtype=torch.bool).tril()[-response:]

    def one_by_one(mask) -> None:
        queries, keys, values = (x.split(lengths, dim=2) for x in qkv)
        whole = (torch.cat(x[:2], dim=2) for x in (queries, keys, values))
        found = [sdpa(*whole, is_causal=True)]
        for place in range(2, count + 1):
            pair = (torch.cat([x[0], x[place]], dim=2) for x in (keys, values))
            found.append(sdpa(queries[place], *pair, attn_mask=mask))
        torch.cat(found, dim=2).sum().backward()

    def one_batch() -> None:
        before, after = zip(*(x.split([prompt, response * count], dim=2) for x in qkv), strict=True)
        queries, *others = (x.unflatten(2, (count, response))[0].transpose(0, 1) for x in after)
        pairs = (torch.cat([x.expand(count, -1, -1, -1), y], dim=2) for x, y in zip(before[1:], others, strict=True))
        found = sdpa(queries, *pairs, attn_mask=table).transpose(0, 1).flatten(1, 2)[None]
        torch.cat([sdpa(*before, is_causal=True), found], dim=2).sum().backward()

    ways = {
        "a table of who is seen": lambda: one_by_one(table),
        "numbers that are added": lambda: one_by_one(torch.zeros(table.shape).masked_fill(~table, -torch.inf)),
        "causal_lower_right": lambda: one_by_one(causal_lower_right(response, path)),
        "all in one batch": one_batch,
    }
    show(f"a prompt of {prompt} and {count} responses of {response}", timed(ways, rounds))


def grouped(rounds: int, path: int = 740, own: int = 120) -> None:
    """Key heads repeated against handed over as they are."""
    table = torch.ones(path, path, dtype=torch.bool).tril()[-own:]
    for count, key_heads in ((4, 2), (16, 2)):
        query, key, value = heads(count, own), heads(key_heads, path), heads(key_heads, path)

        def repeated(query=query, key=key, value=value, times=count // key_heads) -> None:
            wide = (x.repeat_interleave(times, dim=1) for x in (key, value))
            sdpa(query, *wide, attn_mask=table).sum().backward()

        def as_they_are(query=query, key=key, value=value) -> None:
            sdpa(query, key, value, attn_mask=table, enable_gqa=True).sum().backward()

        times = timed({"repeated": repeated, "enable_gqa": as_they_are}, rounds)
        show(f"{count} query heads over {key_heads} key heads, {own} queries, {path} keys", times)


def planning(rounds: int) -> None:
    """What the host spends on a plan of 8 prompts with 5 responses each, lengths all different."""
    lengths = [length for n in range(8) for length in (600 + 7 * n, *(100 + 9 * n + k for k in range(5)))]
    parents = tuple(parent for n in range(8) for parent in (-1, *[6 * n] * 5))
    numbers = [[*lengths[:place], length + 1, *lengths[place + 1 :]] for place, length in enumerate(lengths)]
    packs = iter([Forest(parents, tuple(each)) for each in numbers] * (3 * rounds))

    def forgotten() -> Forest:
        folding.dealt.cache_clear()
        return next(packs)

    ways = {
        "auto": lambda: choosing.settled(planned(forgotten(), "auto")),
        "paths, with its calls": lambda: paths.calls(planned(forgotten(), "paths"), None, torch.float32),
        "dealing rows": lambda: folding.dealt(forgotten()),
        "dense, with its rows": lambda: choosing.settled(planned(forgotten(), "dense")),
    }
    show("planning 8 prompts x 5 responses", timed(ways, rounds))


def show(about: str, times: dict[str, list[float]]) -> None:
    first = next(iter(times.values()))
    print(about)
    for name, values in times.items():
        print(f"    {name:24} {1000 * statistics.median(values):8.2f}ms   {ratio(first, values):5.2f}x as fast")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of each way")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads, torch {torch.__version__}, float32, {args.rounds} rounds\n")
    planning(args.rounds)
    grouped(args.rounds)
    responses(args.rounds)
    backends(args.rounds)


if __name__ == "__main__":
    main()
