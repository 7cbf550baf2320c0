"""Each benchmark's rows in its own format: how they are read, grouped and averaged; numbers worked out by hand."""

import json
import pickle
from collections import Counter

import pytest

from vlmpack.evaluation import BENCHMARKS, EvaluationError, Readable, evaluate
from vlmpack.evaluation.benchmark import asked
from vlmpack.evaluation.multimodal_rewardbench import answer_of
from vlmpack.scored import Scored

VL, MULTIMODAL, MM_RLHF, REWARDBENCH, ROWS = BENCHMARKS.values()
NAN = float("nan")


def vl(name, ranking=(0, 1), **columns):
    row = {"id": name, "query": "What is it?", "response": ["A cat.", "A dog."], "image": "cat.png"}
    return {**row, "human_ranking": list(ranking), "models": ["m", "n"], "judge": None, **columns}


def multimodal(name, category, better="Output1", **columns):
    row = {"ID": name, "Category": category, "Text": "What is it?", "Image": "images/cat.png", "Better": better}
    return {**row, "Output1": "A cat.", "Output2": "A dog.", **columns}


def mm_rlhf(name, image=None, video=None, **columns):
    row = {"id": name, "prompt": "What is it?", "chosen": "A cat.", "rejected": "A dog.", "image": image}
    return {**row, "video": video, "chosen_reason": "r", "rejected_reason": "r", **columns}


def text(subset, **columns):
    row = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "subset": subset, "id": 7}
    return {**row, "chosen_model": "m", "rejected_model": "n", **columns}


def scored(*outcomes, tokens: int = 0):
    """Scored rows of one pair each: r(ight), w(rong), t(ie), or an error."""
    rewards = {"r": (1.0, 0.0), "w": (-1.0, 0.0), "t": (0.5, 0.5), "n": (NAN, 0.0)}
    return [
        Scored(place, rewards[each], pairs=((0, 1),), image_tokens=tokens)
        if each in rewards
        else Scored(place, error=each)
        for place, each in enumerate(outcomes)
    ]


def shares(found):
    return {name: (each.right, each.of) for name, each in found.groups.items()}


# VL-RewardBench


def test_the_rank_says_which_response_is_better():
    own = {"images": ["cat.png"], "prompt": "What is it?", "responses": ["A cat.", "A dog."]}
    assert asked(VL, vl("RLHF-V-1")) == {**own, "scores": [1.0, 0.0]}
    assert asked(VL, vl("RLHF-V-1", (1, 0))) == {**own, "scores": [0.0, 1.0]}


def test_image_tags_are_no_part_of_a_query():
    assert asked(VL, vl("a", query="<image>\nWhat is it?"))["prompt"] == "What is it?"
    assert asked(VL, vl("a", query="What <image>is it?\n<image>"))["prompt"] == "What is it?\n"


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("RLAIF-V-12", "hallucination"),
        ("RLHF-V_3", "hallucination"),
        ("hallucination_pair-4", "hallucination"),
        ("mathverse_5", "reasoning"),
        ("mmmu-pro_6", "reasoning"),
        ("wildvision-battle_7", "general"),
        ("Silkie-8", "general"),
        ("RLHFV", "general"),
        ("rlhf-9", "general"),
        ("", "general"),
    ],
)
def test_the_beginning_of_an_id_says_its_group(name, group):
    assert VL.group_of({"id": name}) == group


def test_vl_rewardbench_is_averaged_over_rows_and_over_three_groups():
    rows = [vl(name) for name in ("wildvision_1", "other-2", "RLAIF-3", "RLHF-4", "hallucination_5", "mmmu_6")]
    found = evaluate(VL, [*rows, vl("mathverse_7")], scored("r", "w", "r", "t", "n", "r", "r"))
    assert shares(found) == {"general": (1, 2), "hallucination": (1, 3), "reasoning": (2, 2)}
    assert found.micro == 4 / 7
    assert found.macro == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert (found.counts["ties"], found.counts["not_a_number"]) == (1, 1)
    assert "rows with a reward that is not a number, and so wrong: 1" in found.table()


def test_a_group_that_is_not_there_is_left_out_of_the_macro_average_and_named():
    found = evaluate(VL, [vl("wildvision_1"), vl("RLHF-2")], scored("r", "w"))
    assert found.macro == 0.5
    assert "macro: the mean of general, hallucination; nothing was scored of reasoning, which it leaves out" in (
        found.table().splitlines()
    )


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (vl("a", (0, 0)), "'human_ranking' is [0, 0], neither [0, 1] nor [1, 0]"),
        (vl("a", response=["one"]), "'response' holds 1 responses, not two"),
        (vl("a", image=None), "'image' is empty or missing"),
        (vl("a", query=5), "'query' is '5' (int), not text"),
        (vl("a", human_ranking=5), "TypeError"),
        ("no mapping", "AttributeError"),
    ],
    ids=["a tie", "one response", "no image", "no text", "no list", "no row"],
)
def test_a_row_of_vl_rewardbench_that_cannot_be_read_says_why(row, why):
    assert why in asked(VL, row)
    assert evaluate(VL, [row, vl("mmmu_1")], scored("r")).counts["not_scored"] == 1


# Multimodal RewardBench

MULTIMODAL_ROWS = [
    multimodal("nocaps_1", "open_generation/correctness_task"),
    multimodal("visitbench_2", "open_generation/preference_task", "Output2"),
    multimodal("mmmu-s_3", "knowledge"),
    multimodal("mathvista_4", "reasoning"),
    multimodal("EMMA-Coding_5", "reasoning", "Output2"),
    multimodal("image2struct_6", "reasoning"),
    multimodal("PAIRS_7", "safety"),
    multimodal("hateful_8", "safety", "Output2"),
    multimodal("SEED-Bench_9", "vqa"),
    multimodal("MMBench_10", "vqa", Better="neither"),
]
OUTCOMES = "r", "w", "r", "r", "w", "t", "r", "t", "its image is missing"


def multimodal_scored():
    """With the second output preferred where the row says so."""
    found = scored(*OUTCOMES)
    for place, row in enumerate(MULTIMODAL_ROWS[:9]):
        if row["Better"] == "Output2" and found[place].rewards:
            found[place] = Scored(place, found[place].rewards[::-1], pairs=((1, 0),))
    return found


def test_better_names_the_better_output():
    own = {"images": ["images/cat.png"], "prompt": "What is it?", "responses": ["A cat.", "A dog."]}
    assert asked(MULTIMODAL, MULTIMODAL_ROWS[0]) == {**own, "scores": [1.0, 0.0]}
    assert asked(MULTIMODAL, MULTIMODAL_ROWS[1]) == {**own, "scores": [0.0, 1.0]}
    assert asked(MULTIMODAL, MULTIMODAL_ROWS[9]) == "'Better' is 'neither', neither 'Output1' nor 'Output2'"


def test_multimodal_rewardbench_shows_parts_and_averages_the_six_categories():
    found = evaluate(MULTIMODAL, MULTIMODAL_ROWS, multimodal_scored())
    assert shares(found) == {
        "open_generation/correctness_task": (1, 1),
        "open_generation/preference_task": (0, 1),
        "knowledge": (1, 1),
        "reasoning/math": (1, 1),
        "reasoning/coding": (0, 2),
        "safety/bias": (1, 1),
        "safety/toxicity": (0, 1),
        "vqa": (0, 0),
    }
    assert found.micro == 4 / 8
    assert found.sections["reasoning"] == pytest.approx(1 / 3)
    assert found.sections["safety"] == 0.5
    assert found.sections["vqa"] is None
    assert found.macro == pytest.approx((1 + 0 + 1 + 1 / 3 + 1 / 2) / 5)


def official(lines):
    """An independent reading of the answers' format: the official script's rules, with a coin that nobody wins."""
    right, of = Counter(), Counter()
    for line in map(json.loads, lines):
        said = "A" if "[[A]]" in line["output"] else "B" if "[[B]]" in line["output"] else "a coin"
        kind, name = line["Meta"]["Category"], line["ID"].lower()
        if kind == "safety":
            kind = "safety/bias" if name.startswith("pairs") else "safety/toxicity"
        if kind == "reasoning":
            kind = "reasoning/math" if name.startswith("math") else "reasoning/coding"
        for each in ("all", kind):
            right[each] += said == line["Label"]
            of[each] += 1
    return {name: (right[name], count) for name, count in of.items()}


def test_the_answers_are_read_by_the_official_rules_with_the_same_result():
    found = evaluate(MULTIMODAL, MULTIMODAL_ROWS, multimodal_scored())
    judged = [pair for pair in zip(MULTIMODAL_ROWS, found.verdicts, strict=True) if not pair[1].error]
    answers = [answer_of(row, verdict) for row, verdict in judged]
    assert [each["Label"] for each in answers] == ["A", "B", "A", "A", "B", "A", "A", "B"]
    scored_groups = {name: share for name, share in shares(found).items() if share[1]}
    assert official(map(json.dumps, answers)) == {"all": (4, 8), **scored_groups}


def test_a_tie_is_answered_wrongly_and_says_so():
    found = evaluate(MULTIMODAL, MULTIMODAL_ROWS, multimodal_scored())
    first, second = answer_of(MULTIMODAL_ROWS[5], found.verdicts[5]), answer_of(MULTIMODAL_ROWS[7], found.verdicts[7])
    assert first["output"] == "The rewards are 0.5 (A) and 0.5 (B). They tie, which counts as wrong. [[B]]"
    assert second["output"] == "The rewards are 0.5 (A) and 0.5 (B). They tie, which counts as wrong. [[A]]"
    assert "tie" not in answer_of(MULTIMODAL_ROWS[0], found.verdicts[0])["output"]


def test_a_category_that_nobody_knows_is_a_group_of_its_own():
    found = evaluate(MULTIMODAL, [multimodal("a", "smell"), multimodal("b", "vqa")], scored("r", "w"))
    assert shares(found) == {"vqa": (0, 1), "smell": (1, 1)}
    assert found.macro == 0.5


# MM-RLHF-RewardBench

MM_RLHF_ROWS = [
    mm_rlhf("1", "mcq/a.png"),
    mm_rlhf("1", "mcq/a.png"),
    mm_rlhf("2", "data/long/b.png"),
    mm_rlhf("2", "data/long/b.png"),
    mm_rlhf("3", "short/c.png", prompt="<image>\nWhat is it? "),
    mm_rlhf("4", "safety/video_d.png"),
    mm_rlhf("5", video="video/e"),
    mm_rlhf("6", "f.png"),
    mm_rlhf("7", "mcq/g.png"),
    mm_rlhf("7", "mcq/h.png"),
]


def test_mm_rlhf_counts_rows_and_ids_of_each_category():
    found = evaluate(MM_RLHF, MM_RLHF_ROWS, scored("r", "r", "r", "w", "t", "r", "r", "r", "no such file"))
    assert shares(found) == {
        "mcq": (3, 3),
        "long": (1, 2),
        "short": (0, 1),
        "safety": (1, 1),
        "video": (0, 0),
        "other": (1, 1),
    }
    kept = found.to_dict()
    # ids 1, 4 and 6 are right, 2 and 3 wrong; 5 is a video, and of 7 a row could not be scored
    assert kept["averages"]["acc_plus"] == 3 / 5
    assert kept["averages"]["micro"] == 6 / 8
    assert kept["groups"]["mcq"]["acc_plus"] == {"right": 1, "of": 1, "accuracy": 1.0}
    assert kept["groups"]["long"]["acc_plus"] == {"right": 0, "of": 1, "accuracy": 0.0}
    assert kept["groups"]["video"]["acc_plus"] == {"right": 0, "of": 0, "accuracy": None}


def test_a_row_about_a_video_says_so_and_is_not_scored():
    assert asked(MM_RLHF, MM_RLHF_ROWS[6]) == "it is about a video (video/e), and videos are not read"
    assert asked(MM_RLHF, mm_rlhf("8")) == "it has neither an 'image' nor a 'video'"
    assert len(list(Readable(MM_RLHF, MM_RLHF_ROWS))) == 9


def test_the_chosen_answer_of_mm_rlhf_is_the_better_one_and_its_tag_is_no_text():
    assert asked(MM_RLHF, MM_RLHF_ROWS[4]) == {
        "images": ["short/c.png"],
        "prompt": "What is it?",
        "responses": ["A cat.", "A dog."],
        "scores": [1.0, 0.0],
    }


def test_a_category_is_the_first_that_the_path_of_an_image_holds():
    assert MM_RLHF.group_of({"image": {"bytes": b"", "path": "short/long.png"}}) == "long"
    assert MM_RLHF.group_of({"image": "", "video": "a/video/b"}) == "video"
    assert MM_RLHF.group_of({"image": {"bytes": b"mcq", "path": None}}) == "other"


def test_the_table_of_mm_rlhf_has_a_column_for_ids():
    table = evaluate(MM_RLHF, MM_RLHF_ROWS, scored("r", "r", "r", "w", "t", "r", "r", "r", "no such file")).table()
    assert table.splitlines()[:9] == [
        "group            right  of  accuracy  ids right  of     ACC+  not scored",
        "mcq                  3   3   100.00%          1   1  100.00%           1",
        "long                 1   2    50.00%          0   1    0.00%",
        "short                0   1     0.00%          0   1    0.00%",
        "safety               1   1   100.00%          1   1  100.00%",
        "video                0   0         -          0   0        -           1",
        "other                1   1   100.00%          1   1  100.00%",
        "overall (micro)      6   8    75.00%          3   5   60.00%           2",
        "macro                         70.00%",
    ]


# RewardBench


def test_sections_are_weighted_by_the_official_counts():
    subsets = ["alpacaeval-easy", "mt-bench-med", "mt-bench-med", "llmbar-natural", "donotanswer", "math-prm", "hep-go"]
    found = evaluate(REWARDBENCH, [*map(text, subsets), text("hep-go")], scored(*"rrwrwrrw"))
    # Chat: easy 1.0 x 100, med 0.5 x 40; Reasoning: math 1.0 x 984, go 0.5 x 164
    assert found.sections["Chat"] == pytest.approx((100 + 20) / 140)
    assert found.sections["Chat Hard"] == 1.0
    assert found.sections["Safety"] == 0.0
    assert found.sections["Reasoning"] == pytest.approx((984 + 82) / 1148)
    assert found.macro == pytest.approx((120 / 140 + 1 + 0 + 1066 / 1148) / 4)
    assert found.micro == 5 / 8


def test_the_weights_are_those_of_2985_pairs_and_math_weighs_as_much_as_code():
    weights = REWARDBENCH.weights
    assert len(weights) == 23
    assert sum(weights.values()) - weights["math-prm"] + 447 == 2985
    assert weights["math-prm"] == sum(count for name, count in weights.items() if name.startswith("hep-")) == 984


def test_a_section_that_is_not_there_is_left_out_and_not_zero():
    found = evaluate(REWARDBENCH, [text("math-prm"), text("hep-js")], scored("r", "r"))
    assert found.macro == 1.0
    assert "nothing was scored of Chat, Chat Hard, Safety, which it leaves out" in found.table()


def test_other_subsets_are_groups_in_no_section():
    found = evaluate(REWARDBENCH, [text("mine"), text("mine"), text("math-prm")], scored("r", "w", "r"))
    assert shares(found) == {"math-prm": (1, 1), "mine": (1, 2)}
    assert (found.micro, found.macro) == (2 / 3, 1.0)
    alone = evaluate(REWARDBENCH, [text("mine")], scored("r"))
    assert (alone.micro, alone.macro) == (1.0, None)
    assert "macro: there is nothing to average" in alone.table()


def test_a_row_of_rewardbench_is_a_pair_of_texts_or_messages():
    chosen = [{"role": "assistant", "content": "4"}]
    row = text("math-prm", chosen=chosen)
    assert asked(REWARDBENCH, row) == {"prompt": "2 + 2?", "chosen": chosen, "rejected": "5"}
    assert asked(REWARDBENCH, text("math-prm", rejected=None)) == "'rejected' is empty or missing"


# rows


def test_any_rows_are_grouped_by_what_they_say_of_themselves():
    rows = [
        {"prompt": "p", "chosen": "c", "rejected": "r", "category": "a", "source": "s"},
        {"prompt": "p", "chosen": "c", "rejected": "r", "category": None, "source": "s"},
        {"prompt": "p", "chosen": "c", "rejected": "r", "subset": 3, "id": 5},
        {"prompt": "p", "chosen": "c", "rejected": "r"},
    ]
    found = evaluate(ROWS, rows, scored("r", "w", "r", "r"))
    assert shares(found) == {"a": (1, 1), "s": (0, 1), "3": (1, 1), "all": (1, 1)}
    assert found.verdicts[2].name == "5"
    assert asked(ROWS, rows[0]) == asked(ROWS, rows[2]) == {"prompt": "p", "chosen": "c", "rejected": "r"}


def test_every_pair_of_a_row_with_many_responses_counts():
    row = {"prompt": "p", "responses": ["a", "b", "c"], "scores": [3, 2, 1]}
    tie = {"prompt": "p", "responses": ["a", "b"], "scores": [1, 1]}
    many = Scored(0, (2.0, 1.0, 1.0), pairs=((0, 1), (0, 2), (1, 2)))
    found = evaluate(ROWS, [row, tie], [many, Scored(1, (0.0, 1.0))])
    assert shares(found) == {"all": (2, 3)}
    assert (found.counts["without_preference"], found.counts["scored"]) == (1, 2)
    assert "without a preference, and so in no average: 1; pairs: 3, tied, and so wrong: 1" in found.table()


def test_many_groups_are_counted_in_the_remark_and_not_named():
    rows = [{"prompt": "p", "chosen": "c", "rejected": "r", "source": str(place)} for place in range(9)]
    assert "macro: the mean of 9 groups" in evaluate(ROWS, rows, scored(*"r" * 9)).table()


# all of them


@pytest.mark.parametrize("benchmark", [VL, MULTIMODAL, MM_RLHF, REWARDBENCH], ids=lambda each: each.name)
def test_columns_that_are_missing_are_named_with_the_benchmark(benchmark):
    with pytest.raises(EvaluationError, match=f"no column .*'{benchmark.needs[-1]}', which {benchmark.name} reads"):
        evaluate(benchmark, [{"question": "?", "chosen": "a"}], [])


def test_one_row_without_a_column_that_others_have_is_reported_alone():
    rows = [vl("mmmu_1"), {"id": "mmmu_2"}]
    found = evaluate(VL, rows, scored("r"))
    assert [(each.place, each.error) for each in found.not_scored] == [(1, "'query' is empty or missing")]


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_an_empty_data_set_is_an_error(benchmark):
    with pytest.raises(EvaluationError, match=f"there are no rows to evaluate on {benchmark.name}"):
        evaluate(benchmark, [], [])


def test_rows_that_can_be_read_only_once_are_an_error():
    with pytest.raises(EvaluationError, match="rows are a generator, which can be read only once"):
        evaluate(VL, (row for row in [vl("a")]), [])


def test_scores_of_other_rows_are_an_error():
    rows = [vl("a"), vl("b", (0, 0)), vl("c")]
    with pytest.raises(EvaluationError, match="the score of row 1 of those that can be read .* it is none"):
        evaluate(VL, rows, scored("r"))
    with pytest.raises(EvaluationError, match="more scores than the 2 rows that can be read"):
        evaluate(VL, rows, scored("r", "r", "r"))
    with pytest.raises(EvaluationError, match="it is that of row 1"):
        evaluate(VL, rows, scored("r", "r")[::-1])


def test_rows_to_be_scored_may_be_sent_to_another_process():
    rows = Readable(VL, [vl("a"), vl("b", (0, 0)), vl("c", (1, 0))])
    assert [row["scores"] for row in pickle.loads(pickle.dumps(rows))] == [[1.0, 0.0], [0.0, 1.0]]
    assert len(list(rows)) == len(list(rows)) == 2


def test_scores_may_be_computed_while_rows_are_read():
    rows, seen = [vl("mmmu_1"), vl("b", (0, 0)), vl("c")], []

    def score(asked_for):
        for place, row in enumerate(asked_for):
            seen.append(row["responses"])
            yield scored("r", "w")[place]

    found = evaluate(VL, rows, score(Readable(VL, rows)))
    assert seen == [["A cat.", "A dog."]] * 2
    assert [each.error for each in found.verdicts] == ["", "'human_ranking' is [0, 0], neither [0, 1] nor [1, 0]", ""]


def test_rows_that_were_not_scored_are_counted_and_the_first_are_named():
    rows = [vl(f"mmmu_{place}") for place in range(8)]
    found = evaluate(VL, rows, scored("r", *["no such file\nand more"] * 7))
    assert found.micro == 1.0
    lines = found.table().splitlines()
    assert "rows: 8, scored: 1, not scored: 7; pairs: 1, tied, and so wrong: 0" in lines
    at = lines.index(
        "7 of 8 rows could not be scored. The averages leave them out, so they are not comparable with published "
        "figures:"
    )
    assert lines[at + 1] == "  row 1 (mmmu_1): no such file"
    assert lines[at + 5 :] == ["  row 5 (mmmu_5): no such file", "  and 2 more"]
    assert found.to_dict()["not_scored"][0] == {
        "row": 1,
        "id": "mmmu_1",
        "group": "reasoning",
        "why": "no such file\nand more",
    }


def test_image_tokens_are_those_of_the_rows_that_were_scored():
    found = evaluate(VL, [vl("a"), vl("b")], [*scored("r", tokens=576), Scored(1, error="broken")])
    assert found.image_tokens == {"mean": 576.0, "largest": 576}
    assert "image tokens a row: 576.0 on average, 576 at most" in found.table()
    assert "image tokens a row: none, text only" in evaluate(REWARDBENCH, [text("math-prm")], scored("r")).table()


def test_what_is_kept_is_json_and_not_rounded():
    found = evaluate(VL, [vl("mmmu_1"), vl("mmmu_2"), vl("mmmu_3")], scored("r", "n", "w"))
    kept = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert kept["averages"] == {"micro": 1 / 3, "macro": 1 / 3}
    assert kept["rows"][1] == {
        "row": 1,
        "id": "mmmu_2",
        "group": "reasoning",
        "rewards": ["nan", 0.0],
        "right": 0,
        "of": 1,
    }
    assert kept["sections"] == {"general": None, "hallucination": None, "reasoning": 1 / 3}


def test_the_table_is_aligned_and_ends_with_both_averages():
    rows = [vl("wildvision_1"), vl("RLAIF-3"), vl("RLHF-4"), vl("mmmu_6")]
    table = evaluate(VL, rows, scored("r", "w", "r", "r")).table()
    assert table.splitlines()[:6] == [
        "group            right  of  accuracy",
        "general              1   1   100.00%",
        "hallucination        1   2    50.00%",
        "reasoning            1   1   100.00%",
        "overall (micro)      3   4    75.00%",
        "macro                         83.33%",
    ]
