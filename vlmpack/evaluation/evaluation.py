"""An evaluation: a verdict on every row of a benchmark, and what follows from them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vlmpack.evaluation import report
from vlmpack.evaluation.benchmark import Benchmark, EvaluationError, asked, check_columns
from vlmpack.evaluation.verdicts import Share, Verdict, by_group, by_id, by_section, mean, share, verdict_of
from vlmpack.scored import Scored


@dataclass(frozen=True)
class Evaluation:
    """How a reward model did on a benchmark.

    Rows that could not be scored are in no average. An average of nothing is None.

    Attributes:
        benchmark: that was evaluated.
        verdicts: one of each row, in order.
    """

    benchmark: Benchmark
    verdicts: tuple[Verdict, ...]

    @cached_property
    def groups(self) -> dict[str, Share]:
        """The share of each group's pairs that are right."""
        return by_group(self.verdicts, self.benchmark.groups)

    @cached_property
    def sections(self) -> dict[str, float | None]:
        """The accuracy of each section that the macro average is taken over; None if nothing of it was scored."""
        asked_of = {name: Share(0, 0) for name in self.benchmark.groups}
        return by_section({**asked_of, **self.groups}, self.benchmark.section_of, self.benchmark.weights)

    @property
    def micro(self) -> float | None:
        """The share of all pairs that are right."""
        return share(self.verdicts).value

    @property
    def macro(self) -> float | None:
        """The mean of the sections' accuracies."""
        return mean(self.sections.values())

    @cached_property
    def not_scored(self) -> tuple[Verdict, ...]:
        """The rows that are in no average, with the reason of each."""
        return tuple(each for each in self.verdicts if each.error)

    @property
    def counts(self) -> dict[str, int]:
        """Rows, those scored, those not, those that prefer no response; pairs, and ties among them."""
        return {
            "rows": len(self.verdicts),
            "scored": len(self.verdicts) - len(self.not_scored),
            "not_scored": len(self.not_scored),
            "without_preference": sum(not each.error and not each.pairs for each in self.verdicts),
            "pairs": sum(each.pairs for each in self.verdicts),
            "ties": sum(each.tied for each in self.verdicts),
            "not_a_number": sum(any(map(math.isnan, each.rewards)) for each in self.verdicts),
        }

    @property
    def image_tokens(self) -> dict[str, float | int]:
        """Mean and largest number of image tokens in the prompts that were scored."""
        counts = [each.image_tokens for each in self.verdicts if not each.error]
        return {"mean": sum(counts) / max(1, len(counts)), "largest": max(counts, default=0)}

    def table(self) -> str:
        """Groups, sections and averages as lines of columns, and below them what was counted and what was left out.

        Returns:
            Lines to print.
        """
        ids = by_id(self.verdicts) if self.benchmark.keyed else None
        lost = report.lost_by_group(self.verdicts)
        total = share(self.verdicts)
        lines = [
            *report.group_lines(self.groups, lost, None if ids is None else ids[1]),
            *report.section_lines({name: of for name, of in self.sections.items() if name not in self.groups}),
            report.total_line(total, len(self.not_scored), None if ids is None else ids[0]),
            ("macro", "", "", report.percent(self.macro)),
        ]
        return "\n".join([report.aligned(report.head(lost, ids is not None), lines), *self._remarks()])

    def _remarks(self) -> Iterator[str]:
        yield report.macro_remark(self.sections)
        yield report.count_remark(self.counts)
        if self.counts["scored"]:
            yield report.image_remark(self.image_tokens)
        yield from report.not_scored_remark(self.not_scored, len(self.verdicts))

    def to_dict(self) -> dict[str, Any]:
        """All of it, for a JSON file: averages unrounded, and every row.

        Returns:
            Plain values; a reward that is not finite is a text.
        """
        averages = {"micro": self.micro, "macro": self.macro}
        groups = {name: _share(each) for name, each in self.groups.items()}
        if self.benchmark.keyed:
            total, ids = by_id(self.verdicts)
            averages["acc_plus"] = total.value
            for name, each in groups.items():
                each["acc_plus"] = _share(ids.get(name, Share(0, 0)))
        return {
            "benchmark": self.benchmark.name,
            "counts": self.counts,
            "image_tokens": self.image_tokens,
            "averages": averages,
            "groups": groups,
            "sections": self.sections,
            "not_scored": [{"row": v.place, "id": v.name, "group": v.group, "why": v.error} for v in self.not_scored],
            "rows": [_row(each) for each in self.verdicts if not each.error],
        }


def evaluate(benchmark: Benchmark, raw_rows: Iterable[Any], scored: Iterable[Scored]) -> Evaluation:
    """Judge a reward model by its scores of a benchmark's rows.

    Args:
        benchmark: one of `BENCHMARKS`.
        raw_rows: its rows as it has them, a data set or a list. They are gone through while `scored` is, one after the
            other, so that `scored` may be computed from them meanwhile.
        scored: what became of each of `Readable(benchmark, raw_rows)`, in order.

    Returns:
        Verdicts on all rows, also on those that could not be read, and averages of them.

    Raises:
        EvaluationError: there are no rows, they lack a column, or `scored` is of other rows.

    Example:
        >>> from vlmpack.evaluation import BENCHMARKS
        >>> from vlmpack.scored import Scored
        >>> row = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "subset": "math-prm"}
        >>> found = evaluate(BENCHMARKS["rewardbench"], [row], [Scored(0, rewards=(1.5, -0.5), pairs=((0, 1),))])
        >>> found.micro, found.sections["Reasoning"]
        (1.0, 1.0)
    """
    check_columns(benchmark, raw_rows)
    waiting, taken, verdicts = iter(scored), 0, []
    for place, raw in enumerate(raw_rows):
        row = asked(benchmark, raw)
        if isinstance(row, str):
            found = Scored(place, error=row)
        else:
            found, taken = _next(waiting, taken), taken + 1
        verdicts.append(verdict_of(place, *benchmark.standing_of(raw), found))
    if next(waiting, None) is not None:
        raise EvaluationError(f"there are more scores than the {taken} rows that can be read; give those of these rows")
    return Evaluation(benchmark, tuple(verdicts))


def _next(waiting: Iterator[Scored], place: int) -> Scored:
    found = next(waiting, None)
    if found is None or found.place != place:
        got = "none" if found is None else f"that of row {found.place}"
        raise EvaluationError(
            f"the score of row {place} of those that can be read should come next, and it is {got}; score "
            f"`Readable(benchmark, raw_rows)` in order"
        )
    return found


def _share(each: Share) -> dict[str, Any]:
    return {"right": each.right, "of": each.of, "accuracy": each.value}


def _row(verdict: Verdict) -> dict[str, Any]:
    rewards = [reward if math.isfinite(reward) else str(reward) for reward in verdict.rewards]
    return {
        "row": verdict.place,
        "id": verdict.name,
        "group": verdict.group,
        "rewards": rewards,
        "right": verdict.right,
        "of": verdict.pairs,
    }
