"""Reward models on public benchmarks: how often the better response gets the larger reward, and where.

Example:
    model = RewardModel.from_pretrained("runs/reward")
    benchmark, rows = BENCHMARKS["vl_rewardbench"], load_rows("MMInstruction/VL-RewardBench", "test")
    scores = vlmpack.scoring.scored(model, Readable(benchmark, rows), model.processor.candidates)
    print(evaluate(benchmark, rows, scores).table())
"""

from vlmpack.evaluation.benchmark import Benchmark, EvaluationError, Readable, check_columns
from vlmpack.evaluation.evaluation import Evaluation, evaluate
from vlmpack.evaluation.mm_rlhf import MM_RLHF_REWARDBENCH
from vlmpack.evaluation.multimodal_rewardbench import MULTIMODAL_REWARDBENCH
from vlmpack.evaluation.pixel_budget import budget_line, pixel_budget
from vlmpack.evaluation.rewardbench import REWARDBENCH
from vlmpack.evaluation.row_file import ROWS
from vlmpack.evaluation.verdicts import Share, Verdict
from vlmpack.evaluation.vl_rewardbench import VL_REWARDBENCH

BENCHMARKS = {
    each.name: each for each in (VL_REWARDBENCH, MULTIMODAL_REWARDBENCH, MM_RLHF_REWARDBENCH, REWARDBENCH, ROWS)
}

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "Evaluation",
    "EvaluationError",
    "Readable",
    "Share",
    "Verdict",
    "budget_line",
    "check_columns",
    "evaluate",
    "pixel_budget",
]
