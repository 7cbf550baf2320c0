"""The picture of a model's quality: what its panels show, and that what they say can be read."""

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure

from vlmpack.quality import Judged, QualityError, draw, quality


def made(rows: int, *, responses=2, skill=1.5, images=0.8, margins=True, blind=True, levels=None) -> Judged:
    """Responses of some worth, rewards that follow it by skill, and pairs of all that differ."""
    random = np.random.default_rng(rows)
    count = rows * responses
    worth = random.normal(size=count)
    worth = worth if levels is None else np.round(worth * levels)
    row_of = np.repeat(np.arange(rows), responses)
    every = [(a, b) for row in range(rows) for a in range(responses) for b in range(responses) if a != b]
    offsets = np.repeat(np.arange(rows) * responses, responses * (responses - 1))
    pairs = np.array(every, dtype=int).reshape(-1, 2) + offsets[:, None]
    gaps = worth[pairs[:, 0]] - worth[pairs[:, 1]]
    shows = np.repeat(random.random(rows) < images, responses)
    return Judged(
        rewards=skill * worth + random.normal(size=count),
        lengths=random.integers(1, 300, count),
        row_of=row_of,
        pairs=pairs[gaps > 0],
        shows_image=shows,
        margins=gaps[gaps > 0] if margins else None,
        blind_rewards=np.where(shows, 0.3 * worth + random.normal(size=count), np.nan) if blind else None,
    )


CASES = {
    "good": made(400),
    "random": made(400, skill=0.0),
    "text only": made(200, responses=4, images=0.0, levels=2),
    "five pairs": made(5, images=1.0),
    "20,000 pairs": made(20_000),
    "one response a prompt": made(30, responses=1),
    "no margins, not blind": made(40, images=0.5, margins=False, blind=False),
    "large margins": made(60, levels=4000),
}


def panels(figure: Figure) -> list:
    return figure.axes[:4]


def written(axes) -> str:
    return " ".join([axes.get_title(), *(text.get_text() for text in axes.texts)]).replace("\n", " ")


@pytest.mark.parametrize("item", CASES.values(), ids=CASES)
def test_nothing_that_is_written_overlaps_or_leaves_the_picture(item):
    figure = draw(quality(item), title="held-out rows")
    FigureCanvasAgg(figure).draw()
    whole = figure.bbox
    for axes in panels(figure):
        boxes = [axes.title.get_window_extent(), axes.xaxis.label.get_window_extent()]
        low, high = axes.get_xlim()
        shown = [label for label in axes.get_xticklabels() if axes.axison and low <= label.get_position()[0] <= high]
        boxes += [label.get_window_extent() for label in shown]
        boxes += [text.get_window_extent() for text in axes.texts]
        boxes = [box for box in boxes if box.width]
        for box in boxes:
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
        for one, other in combinations(boxes, 2):
            assert not one.overlaps(other)


def test_reliability_shows_a_bar_and_a_count_for_each_bin_with_pairs_and_the_diagonal():
    found = quality(CASES["good"])
    axes = panels(draw(found))[0]
    bins = [each for each in found.calibration.bins if each.pairs]
    assert [bar.get_height() for bar in axes.patches] == [each.right.value for each in bins]
    assert [text.get_text() for text in axes.texts] == [str(each.pairs) for each in bins]
    assert any(line.get_xydata().tolist() == [[0.5, 0.5], [1, 1]] for line in axes.lines)
    (points,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert points.get_xdata().tolist() == [each.confidence for each in bins]


def test_points_are_drawn_up_to_2000_and_their_density_beyond():
    for name, kind, other in (
        ("good", PathCollection, PolyCollection),
        ("20,000 pairs", PolyCollection, PathCollection),
    ):
        found = quality(CASES[name])
        axes = panels(draw(found))[1]
        drawn = [each for each in axes.collections if isinstance(each, kind)]
        assert len(drawn) == 1
        assert not [each for each in axes.collections if isinstance(each, other)]
    points = panels(draw(quality(CASES["good"])))[1].collections[0].get_offsets()
    assert points.shape == (800, 2)


def test_titles_carry_the_verdicts():
    figure = draw(quality(CASES["good"]))
    assert figure._repr_png_().startswith(b"\x89PNG")  # which a notebook shows
    titles = [axes.get_title().replace("\n", " ") for axes in panels(figure)]
    assert "Pearson" in titles[1]
    assert titles[2].startswith("Accuracy by the data's margin more often right where the data is surer")
    assert titles[3].startswith("The model uses the images +")


def test_bars_stand_for_images_no_images_and_text_only_rows_with_intervals():
    found = quality(CASES["good"])
    axes = panels(draw(found))[3]
    shares = [found.blind.with_images, found.blind.without_images, found.kinds.text_only]
    assert [bar.get_height() for bar in axes.patches] == [each.value for each in shares]
    ends = [each.get_segments()[0][:, 1].tolist() for each in axes.collections]
    assert ends == [pytest.approx([each.low, each.high]) for each in shares]
    assert any(line.get_ydata()[0] == 0.5 for line in axes.lines)


@pytest.mark.parametrize(
    "name, panel, words",
    [
        ("one response a prompt", 0, "Nothing to draw: no row says which of two responses is better."),
        ("one response a prompt", 1, "Nothing to draw: no prompt has several responses."),
        ("one response a prompt", 3, "Nothing to draw: no row with an image has a pair."),
        ("text only", 3, "Nothing to draw: no row has an image."),
        ("no margins, not blind", 2, "Nothing to draw: no row says how much better the preferred response is."),
        ("no margins, not blind", 3, "whether the images matter was not measured: the rows were not scored without"),
    ],
)
def test_a_panel_without_data_says_so(name, panel, words):
    assert words in written(panels(draw(quality(CASES[name])))[panel])


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "vlmpack.inspect.picture.sheet", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        QualityError, match=r"pictures need matplotlib; install it with: pip install 'vlmpack\[inspect\]'"
    ):
        draw(quality(CASES["good"]))


def test_the_figure_is_the_callers_alone_and_nothing_is_imported_before_it_is_needed():
    script = """
import sys
import numpy as np
from vlmpack.quality import Judged, draw, quality
print(sorted({"matplotlib", "transformers", "scipy"} & set(sys.modules)))
item = Judged(np.array([1.0, 0.0]), np.array([3, 4]), np.array([0, 0]), np.array([[0, 1]]), np.array([False, False]))
draw(quality(item)).savefig("/dev/null", format="png")
print("matplotlib.pyplot" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["[]", "False"]
