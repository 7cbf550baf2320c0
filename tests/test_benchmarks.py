"""The benchmarks: what is told of ratios, on numbers worked out by hand; and each table's path, on tiny settings."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "benchmarks"))

import ablation
import grid
import made_up
import packed_step
import packed_vs_unpacked
import paired
import peers
import profiles
import report
import trl_step

import vlmpack
from vlmpack import Forest

BASELINE = paired.Measured(loss=0.5, flops=600.0, attention=100.0, peak=4000, seconds=(9.0, 4.0, 10.0))
OWN = paired.Measured(loss=0.5, flops=200.0, attention=50.0, peak=1000, seconds=(3.0, 2.0, 4.0))


@pytest.fixture(autouse=True)
def kept_seed():
    """Benchmarks seed torch; other tests shall not notice."""
    with torch.random.fork_rng():
        yield


def test_ratios_are_taken_round_by_round_and_their_median_is_told():
    assert paired.median_ratio((9.0, 4.0, 10.0), (3.0, 2.0, 4.0)) == 2.5  # of 3, 2 and 2.5
    assert paired.median_ratio((10.0, 10.0, 100.0), (1.0, 10.0, 10.0)) == 10.0  # medians alone would say 1


def test_a_way_is_held_against_the_ideal_of_its_flops():
    ratios = paired.against(BASELINE, OWN)
    assert (ratios.ideal, ratios.measured, ratios.memory) == (3.0, 2.5, 4.0)
    assert ratios.of_ideal == pytest.approx(0.8333, abs=1e-4)


def test_memory_that_was_not_asked_for_is_not_told():
    unmeasured = paired.Measured(0.5, 200.0, 50.0, None, (3.0, 2.0, 4.0))
    assert paired.against(BASELINE, unmeasured).memory is None
    assert report.amount(None) == "not measured"


def test_a_record_leaves_out_baselines_that_are_not_there():
    told = paired.record({"TRL": BASELINE, "ours": OWN}, ["TRL", "another"])
    assert told["ours"]["against"] == {"TRL": {"ideal": 3.0, "measured": 2.5, "of ideal": 2.5 / 3, "memory": 4.0}}
    assert told["TRL"]["seconds"] == [9.0, 4.0, 10.0]


def test_ways_with_different_losses_are_not_compared():
    with pytest.raises(paired.WaysDifferError, match="padded computes 0.7, packed 0.5: they differ by more than 0.001"):
        paired.measure({"packed": lambda: 0.5, "padded": lambda: 0.7}, rounds=1)
    with pytest.raises(paired.WaysDifferError, match="padded computes nan"):
        paired.check_same({"packed": 0.5, "padded": float("nan")}, 1e-3)


def test_the_ways_alternate():
    order = []
    ways = {name: lambda name=name: order.append(name) or 1.0 for name in "AB"}
    seconds = paired.alternate(ways, rounds=3, before=lambda: order.append("-"))
    assert "".join(order) == "-A-B-A-B-A-B"
    assert {name: len(each) for name, each in seconds.items()} == {"A": 3, "B": 3}


@pytest.mark.parametrize("mask", [None, True], ids=["causal", "masked"])
def test_attention_is_counted_on_the_cpu_forward_and_backward(mask):
    query, key, value = (torch.randn(1, 2, 8, 4, requires_grad=True) for _ in range(3))
    table = None if mask is None else torch.ones(8, 8, dtype=torch.bool).tril()

    def step() -> float:
        attend = torch.nn.functional.scaled_dot_product_attention
        loss = attend(query, key, value, attn_mask=table, is_causal=mask is None).sum()
        loss.backward()
        return loss.item()

    flops, attention = paired.count(step)
    assert flops == attention == 2 * 8 * 8 * 4 * 14  # heads, queries, keys, size; two products, then five


def test_linear_layers_are_counted_three_times():
    layer, tokens = torch.nn.Linear(4, 6, bias=False), torch.randn(10, 4, requires_grad=True)
    flops, attention = paired.count(lambda: layer(tokens).sum().backward() or 0.0)
    assert (flops, attention) == (3 * 2 * 10 * 4 * 6, 0)


def test_products_that_are_added_in_place_are_counted():
    total, left, right = torch.zeros(3, 5), torch.ones(3, 4), torch.ones(4, 5)
    flops, _ = paired.count(lambda: total.addmm_(left, right).sum().item())
    assert flops == 2 * 3 * 4 * 5


def test_seen_pairs_are_those_of_the_mask():
    assert packed_step.seen_pairs(grid.forest(2, 1)) == 9
    assert packed_step.seen_pairs(grid.forest(2, 1, repeated=True)) == 12
    assert packed_step.seen_pairs(Forest((-1, 0, 0), (2, 1, 1))) == 9
    assert packed_step.seen_pairs(Forest((-1, 0, -1, 2), (2, 1, 2, 1))) == 12


def test_needed_attention_counts_seen_pairs_and_every_picture_whole():
    model, _ = peers.peer_cases.small_models.llava(peers.peer_cases.tokenizer_of([]), hidden=64, layers=2)
    rows = made_up.on_pictures(2, 0, image_token=1003, question=9, response=5, pairs=((0, 1),))
    pack = vlmpack.pack(rows, 4096, sharing="prompt")[0]
    decoder = 4 * 2 * 64 * packed_step.seen_pairs(pack.forest)  # two products; layers; width
    tower = 4 * 1 * 64 * 577**2 * 2  # one layer, two pictures of 576 patches and a class token
    assert packed_step.needed_attention(model, [pack]) == 4.5 * (decoder + tower)


def test_profiles_have_the_lengths_that_they_are_named_for():
    samples = made_up.profile("TLDR", 400, seed=0)
    totals = sorted(len(each.prompt_ids) + len(each.response_ids[0]) for each in samples)
    prompts = sorted(len(each.prompt_ids) for each in samples)
    assert 380 < totals[200] < 450
    assert 350 < prompts[200] < 415  # 416 x 11.14 / 12.14 = 382


@pytest.mark.parametrize("part", grid.PARTS)
def test_a_cell_of_the_grid_is_measured(part):
    size = grid.Size((6, 4), heads=2, head_dim=8, layers=1, vocabulary=11, device="cpu", dtype=torch.float32)
    found = grid.cell(part, size, 6, 4, ["paths", "dense"], rounds=1)
    assert set(found["ways"]) == {"repeated", "paths", "dense"}
    ratios = found["ways"]["paths"]["against"]["repeated"]
    allowed = {"attention": 110 / 89, "MLP": 20 / 14}
    assert ratios["ideal"] == pytest.approx(allowed.get(part, ratios["ideal"]))
    assert 110 / 89 <= ratios["ideal"] <= 20 / 14
    text = grid.markdown([found], "about")
    assert f"## {part}" in text and "| 6 + 2 x 4 | dense |" in text
    grid.draw([found], "title")


@pytest.mark.slow
def test_a_profile_is_measured_with_packing_and_without(monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["profiles.py", "--tokens", "100", "--layers", "1", "--rounds", "1", "--device", "cpu"]
    )
    args = profiles.flags()
    name, model, reference = next(profiles.models(args))
    samples = made_up.profile("HH-RLHF", 3, seed=0, scale=0.1)
    found = {
        kind: profiles.measure(model, reference, samples, limit, args)
        for kind, limit in (("packed", 400), ("a prompt a pack", 0))
    }
    assert [found[kind]["packs"] for kind in found] == [1, 3]
    assert found["packed"]["tokens"] == {
        "nothing shared": sum(each.lengths.unpacked for each in samples),
        "shared": sum(each.lengths.packed for each in samples),
    }
    text = profiles.markdown({name: {"about": "here", "profiles": {"HH-RLHF": found}}})
    assert text.count("not measured |") > 100  # both large models, and the other profiles
    assert "| HH-RLHF | 1.41 | " in text
    profiles.draw(name, {"device": "here", "profiles": {"HH-RLHF": found}})


def peers_flags(monkeypatch, *flags: str) -> Namespace:
    tiny = ["--rows", "2", "--rounds", "1", "--hidden", "16", "--layers", "1", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["peers.py", *tiny, *flags])
    return peers.flags()


@pytest.mark.skipif(bool(trl_step.MISSING), reason=f"TRL is the peer: {trl_step.MISSING}")
@pytest.mark.slow
def test_trl_and_vlmpack_step_on_the_same_text(monkeypatch, tmp_path):
    args = peers_flags(monkeypatch, "--data", "text", "--trl-pairs", "0", "--output-dir", str(tmp_path))
    (*_, last) = peers.peer_cases.cases(args)
    monkeypatch.setattr(peers.peer_cases, "cases", lambda args: [last])
    peers.main()
    told = json.loads((tmp_path / "dpo.json").read_text())["data"]
    case = told["made-up text, K=5, best against rest"]
    assert (case["prompts"], case["responses"], case["pairs"]) == (2, 10, 8)
    assert {"TRL", "padded pairs", "nothing shared", "vlmpack"} <= set(case["ways"])
    assert case["ways"]["TRL"]["FLOPs"] > case["ways"]["padded pairs"]["FLOPs"] > case["ways"]["vlmpack"]["FLOPs"]
    losses = [way["loss"] for way in case["ways"].values()]
    assert max(losses) - min(losses) < 1e-3 * losses[0]
    assert case["ways"]["vlmpack"]["against"]["TRL"]["ideal"] > 2
    assert "On a GPU: not measured." in (tmp_path / "dpo.md").read_text()
    assert (tmp_path / "dpo.png").exists()


def test_without_trl_its_rows_are_left_out_and_the_table_says_why(monkeypatch):
    monkeypatch.setattr(trl_step, "MISSING", "trl is not installed")
    args = peers_flags(monkeypatch, "--data", "text")
    case = next(peers.peer_cases.cases(args))
    found = peers.measure(case, args)
    assert "TRL" not in found["ways"]
    assert "TRL is left out: trl is not installed." in peers.markdown({case.name: found}, "about")


def test_the_three_ways_of_packed_vs_unpacked_are_measured():
    model, samples = _tiny()
    found = packed_vs_unpacked.compare(model, samples, rounds=1)
    assert set(found["time ratio"]) == {"packed", "padded batch", "one by one"}
    assert found["flop ratio"]["packed"] == found["of ideal"]["packed"] == 1.0
    assert "| packed | " in packed_vs_unpacked.table(found)


@pytest.mark.slow
def test_the_cells_of_the_ablation_are_measured():
    model, samples = _tiny()
    found = ablation.measure("made up", model, samples, Namespace(kind="dpo", max_tokens=64, seed=0, rounds=1))
    assert found["cells"]["trees"]["x padded pairs"]["counted"] > 1
    assert "| trees | " in ablation.markdown({"made up": found}, "about")


def _tiny():
    """A language model of 1,000 words, enabled, and samples of them."""
    args = Namespace(hidden=16, layers=1)
    return vlmpack.enable(ablation.small_llama(args)), made_up.texts(3, 0, prompt=12, response=5)
