"""Figures: what is drawn is what was given, nothing is cut off or overlaps, and colour is never the only cue."""

import itertools
import json
import math
from functools import partial

import numpy as np
import plotly.graph_objects
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer
from matplotlib.image import AxesImage, imread
from matplotlib.legend import Legend
from matplotlib.text import Text

import search_spaces
from analysis.figures import (
    accuracy,
    cause,
    charts,
    comparisons,
    diagnostics,
    heat_maps,
    incumbents,
    layout,
    parallel,
    search,
    verdicts,
)
from analysis.figures.accuracy import Band, Spent
from analysis.figures.cause import Way
from analysis.figures.comparisons import Confirmed, Difference, Score
from analysis.figures.heat_maps import HeatMap
from analysis.figures.incumbents import Steps
from analysis.figures.scales import ZERO_AT, Scale, short
from analysis.figures.search import Tried
from analysis.figures.style import (
    DPI,
    INCHES,
    METHOD_COLOURS,
    OTHER_COLOURS,
    POINTS,
    SMALLEST_POINTS,
    colours,
    markers,
)

NAN = math.nan
SIZES = ("wide", "narrow")
LONG = "a very long label with lr=0.0924, rho=0.0112 and permuted_pixels_with_an_unbreakable_name_that_never_ends $x_1$"
LR, RHO, R = "learning rate lr (1)", "rho (length in weight space)", "r (length in weight space)"
VALUE = "objective: mean accuracy on held-out images (share)"
TITLE = "Permuted pixels: what 3 methods do with 100 tasks, 5 seeds a setting"


def bands_of(methods, tasks=6, label="setting {}"):
    rng = np.random.default_rng(0)
    means = 0.8 + 0.1 * rng.random((len(methods), tasks))
    return [
        Band(label.format(n), method, mean, mean - 0.01, mean + 0.01)
        for n, (method, mean) in enumerate(zip(methods, means, strict=True))
    ]


def gaps_of(some):
    return [Band(b.label, b.method, b.mean - 0.85, b.low - 0.85, b.high - 0.85) for b in some]


def spent_of(some):
    return [Spent(b.label, b.method, 1000.0 * np.arange(1, len(b.mean) + 1), b.mean, b.low, b.high) for b in some]


def trials(count=8):
    rng = np.random.default_rng(1)
    names = {"sgd": (LR,), "sam": (LR, RHO), "gnp": (LR, "lambda (1)", R)}
    return [
        Tried(
            method,
            {name: 0.0 if name == R and n == 0 else float(10 ** rng.uniform(-4, 0)) for name in own},
            float(rng.uniform(0.5, 0.95)),
            finished=n % 3 > 0,
        )
        for method, own in names.items()
        for n in range(count)
    ]


def heat_map(rows, columns, diverging=False, title="SAM"):
    values = np.random.default_rng(2).uniform(-0.2 if diverging else 0.1, 0.9, (rows, columns))
    if values.size > 1:
        values[0, 0] = NAN
    lr, rho = 10.0 ** np.linspace(-4, 0, columns), 10.0 ** np.linspace(-3, 0, rows)
    unit = "decline (share)" if diverging else "test accuracy (share)"
    return HeatMap(title, rho, lr, "rho (length in weight space)", "learning rate lr (1)", values, unit, diverging)


CONFIRMED = [
    Confirmed("SGD lr 0.01", "sgd", 0.91, 0.9, 0.89, 0.91),
    Confirmed("SAM lr 0.1, rho 0.05", "sam", 0.93, 0.921, 0.915, 0.927),
    Confirmed("GNP lr 0.1, lambda 0.1, r 0.05", "gnp", 0.94, 0.925, NAN, NAN),
]
SCORES = [Score(row.label, row.method, row.confirmed, row.low, row.high, {0: 0.9, 1: 0.95}) for row in CONFIRMED]
DIFFERENCES = [
    Difference("SAM minus SGD", 0.016, 0.009, 0.023, 0.0004),
    Difference("GNP minus SGD", 0.02, NAN, NAN, NAN),
    Difference("GNP minus SAM", 0.004, -0.004, 0.012, 0.31),
]
SHARES = {"sgd": {"lr": 1.0}, "sam": {"rho": 0.27, "lr": 0.73}, "gnp": {"lr": 0.62, "lambda": 0.31, "r": NAN}}

PANELS = {
    f"{name} (nats / weight^2)": [
        diagnostics.Trajectory("SGD lr 0.01", "sgd", range(0, 50, 5), np.linspace(0.1, top, 10)),
        diagnostics.Trajectory("SAM lr 0.01", "sam", range(50), np.linspace(2.0, 1.0, 50)),
        diagnostics.Trajectory("SAM lr 0.001", "sam", [], []),
    ]
    for name, top in (("hessian/trace", 90.0), ("rank/effective", 1.0), ("units/dead", 0.1), ("weights/norm", 3.0))
}
ASSOCIATIONS = [
    diagnostics.Association("SGD lr 0.01", "sgd", {"hessian/trace": (-0.5, -0.8, 0.1), "units/dead": (NAN, NAN, NAN)}),
    diagnostics.Association("SGD lr 0.001", "sgd", {"hessian/trace": (0.99, 0.9, 1.0), "units/dead": (0.2, NAN, NAN)}),
    diagnostics.Association("SAM lr 0.01", "sam", {"hessian/trace": (0.0, -1.0, 1.0), "rank/srank": (0.1, 0.0, 0.2)}),
]

VERDICTS = {
    "C1": "undecided",
    "C2": "reproduced",
    "C3": "contradicted",
    **dict.fromkeys(("C4", "C5", "C6", "C7"), "undecided"),
}
GRID = [
    verdicts.Row("main experiment", VERDICTS),
    verdicts.Row("batch size 64", VERDICTS | {"C3": "reproduced"}, ["C3"]),
    verdicts.Row("hidden layers of 100-100-100", dict.fromkeys(VERDICTS, "undecided")),
]

WAYS = [
    *(
        Way(
            "sam",
            "sam, by rho",
            f"{rho:g}",
            (-8 * rho, -8 * rho - 0.1, -8 * rho + 0.1),
            (0.16 * rho, 0.1 * rho, 0.2 * rho),
        )
        for rho in (0.01, 0.02, 0.05, 0.1, 0.2)
    ),
    Way("batch size", "batch size", "64", (0.8, 0.7, 0.9), (-0.015, -0.017, -0.013)),
    Way("unit_permutation", "unit_permutation", "", (0.0, NAN, NAN), (0.0, 0.0, 0.0), is_hollow=True),
]

STEPS = [
    Steps(
        "sgd", [1, 3, 9], 12, ["a", "b", "c"], [0.5, 0.9, 0.92], [0.4, 0.91, 0.9], [0.3, 0.9, 0.89], [0.5, 0.92, 0.91]
    ),
    Steps("sam", [2, 11], 12, ["d", "<i>"], [0.8, 0.93], [0.89, NAN], [NAN, NAN], [NAN, NAN]),
]

USUAL = {
    "accuracy_by_task": (accuracy.accuracy_by_task, bands_of(["sgd", "sam", "gnp", "gnp"])),
    "difference_by_task": (accuracy.difference_by_task, gaps_of(bands_of(["sam", "gnp"])), "SGD"),
    "accuracy_by_gradient_evaluations": (accuracy.accuracy_by_gradient_evaluations, spent_of(bands_of(["sgd", "sam"]))),
    "settings_scatter": (search.settings_scatter, trials(), VALUE),
    "parallel_coordinates": (parallel.parallel_coordinates, trials(), VALUE),
    "importance": (search.importance, SHARES),
    "heat_maps": (heat_maps.heat_maps, [heat_map(3, 4), heat_map(3, 4, diverging=True)]),
    "scores": (comparisons.scores, SCORES, "share"),
    "tuned_and_confirmed": (comparisons.tuned_and_confirmed, CONFIRMED),
    "differences": (comparisons.differences, DIFFERENCES, "share", 0.01),
    "trajectories": (diagnostics.trajectories, PANELS),
    "associations": (diagnostics.associations, ASSOCIATIONS),
    "verdicts": (verdicts.verdicts, GRID),
    "steps": (incumbents.steps, STEPS, VALUE),
    "ways": (cause.ways, WAYS, (-0.02, -0.024, -0.016), "plain SGD", "late accuracy (share)", 0.005),
}

by_task = accuracy._draw_accuracy_by_task
gap = accuracy._draw_difference_by_task
by_work = accuracy._draw_accuracy_by_gradient_evaluations
scatter = search._draw_settings_scatter
lines = parallel._draw_parallel_coordinates
bars = search._draw_importance
maps = heat_maps._draw_heat_maps
dumbbells = comparisons._draw_tuned_and_confirmed
forest = comparisons._draw_differences
inside = diagnostics._draw_trajectories
goes_with = diagnostics._draw_associations
grid = verdicts._draw
points = cause._draw
stairs = incumbents._draw_steps

BROAD = {LR: (1e-7, 100.0), RHO: (0, 1e3)}

NASTY = {
    "hundred tasks, six settings": (by_task, bands_of(["sgd", "sam", "gnp"] * 2, tasks=100)),
    "one task": (by_task, bands_of(["sgd"], tasks=1)),
    "twelve curves with long labels": (by_task, bands_of(["sam", "another"] * 6, label=LONG + " {}")),
    "all equal": (by_task, [Band("equal", "gnp", [0.9] * 3, [0.9] * 3, [0.9] * 3)]),
    "near 0 and 1": (
        by_task,
        [
            Band("high", "sam", [0.9995, 1.0], [0.999, 0.9999], [1.0, 1.0]),
            Band("low", "sgd", [0, 0.001], [0, 0], [0, 0.002]),
        ],
    ),
    "differences of a hundred tasks": (gap, gaps_of(bands_of(["sam", "gnp"], tasks=100)), "SGD"),
    "no difference at all": (gap, [Band("equal", "sam", [0.0] * 3, [0.0] * 3, [0.0] * 3)], "SGD"),
    "nothing known": (by_task, [Band("nothing", "sam", [NAN] * 3, [NAN] * 3, [NAN] * 3)]),
    "millions of gradient evaluations": (
        by_work,
        [Spent("SAM", "sam", [1234567.0, 93_700_000.0], [0.9, 0.8], [NAN] * 2, [NAN] * 2)],
    ),
    "one gradient evaluation": (by_work, [Spent("SGD", "sgd", [1.0], [0.1], [NAN], [NAN])]),
    "trials of three methods": (scatter, trials(12), VALUE),
    "one trial": (scatter, [Tried("sgd", {"lr": 0.1}, 0.9, True)], VALUE),
    "unfinished and without a value": (
        scatter,
        [Tried("foo", {"lr": 0.1, "size": 3}, 0.9, False), Tried("sam", {"lr": NAN}, NAN, True)],
        VALUE,
    ),
    "zeros beside decades": (
        scatter,
        [Tried("gnp", {"r": r, LONG: r}, v, True) for r, v in ((0, 0.5), (1e-3, 0), (0.5, 1))],
        LONG,
    ),
    "a decade right beside zero": (
        scatter,
        [Tried("gnp", {"r": r, "b": r, "c": r, "d": r}, 0.5, True) for r in (0, 0.001, 2.5)],
        VALUE,
    ),
    "lines of three methods": (lines, trials(8), VALUE),
    "one line": (lines, [Tried("sgd", {"lr": 0.1}, 0.9, True)], VALUE),
    "lines without a value": (lines, [Tried("sam", {"lr": 0.1}, NAN, False)], VALUE),
    "eight axes": (
        lines,
        [Tried(LONG, {f"a_long_setting_{n}": n + v for n in range(7)}, v, True) for v in (0, 1)],
        VALUE,
    ),
    "bars with long names": (bars, {LONG: {LONG: 0.5, "lr": NAN}, "sgd": {"lr": 1.0}, "empty": {}}),
    "maps of one and of no value": (
        maps,
        [heat_map(1, 1), HeatMap(LONG, [0], [1e-5, 5], LONG, "b", [[NAN, NAN]], LONG, True)],
    ),
    "map of 5 x 9": (maps, [heat_map(5, 9)]),
    "map of 12 x 14": (maps, [heat_map(12, 14)]),
    "four maps": (maps, [heat_map(3, 4, diverging, f"map {n}") for n, diverging in enumerate([False, True] * 2)]),
    "all cells equal": (maps, [HeatMap("", [1], [1, 2], "a", "b", [[0.5, 0.5]], "u", False)]),
    "rows with long labels": (
        dumbbells,
        [
            Confirmed(LONG, LONG, 1.0, 0.999, NAN, NAN),
            Confirmed("same", "sam", 0, 0, 0, 0),
            Confirmed("", "x", NAN, NAN, 0, 1),
        ],
    ),
    "twelve rows": (dumbbells, CONFIRMED * 4),
    "differences with long labels": (
        forest,
        [Difference(LONG, 0.01, NAN, NAN, NAN), Difference("b", NAN, NAN, NAN, 1)],
        LONG,
        1.0,
    ),
    "one difference of 0": (forest, [Difference("a", 0.0, 0.0, 0.0, 1.0)], "share", None),
    "one panel, one task": (inside, {"units/dead (share)": [diagnostics.Trajectory("SGD", "sgd", [0], [0.0])]}),
    "four panels": (inside, PANELS),
    "panels with long names": (inside, {LONG: [diagnostics.Trajectory(LONG, LONG, [0, 1], [NAN, 1e5])]}),
    "associations of three settings": (goes_with, ASSOCIATIONS),
    "associations with long names": (
        goes_with,
        [diagnostics.Association(LONG, "x", {LONG: (NAN, NAN, NAN), "b": (1, 1, 1)})],
    ),
    "trials in a corner of what was searched": (partial(scatter, searched=BROAD), trials(12), VALUE),
    "lines in a corner of what was searched": (partial(lines, searched=BROAD), trials(8), VALUE),
    "values below 0, the lower the better": (
        scatter,
        [Tried("sgd", {"lr": v}, -v, True, True) for v in (0.1, 0.5)],
        VALUE,
    ),
    "lines of values above 1": (lines, [Tried("sgd", {"lr": v}, 40 * v, True, True) for v in (0.1, 0.5)], VALUE),
    "verdicts under three assumptions": (grid, GRID),
    "verdicts under a long assumption": (
        grid,
        [verdicts.Row(LONG, VERDICTS), verdicts.Row("", VERDICTS, list(VERDICTS))],
    ),
    "few seeds": (partial(forest, note=LONG), DIFFERENCES, "share", 0.01),
    "stairs of two methods": (stairs, STEPS, VALUE),
    "one stair of one trial": (stairs, [Steps(LONG, [1], 1, [LONG], [-2.0], [NAN], [NAN], [NAN])], LONG),
    "ways and their line": (points, WAYS, (-0.02, -0.024, -0.016), "plain SGD", "late accuracy (share)", 0.005),
    "thirty ways in one place": (
        points,
        [Way(f"kind {n % 6}", LONG, f"{n / 10}", (n / 100, 0, 1), (n / 1000, 0, 1)) for n in range(30)],
        (0.0, NAN, NAN),
        LONG,
        LONG,
        0.005,
    ),
    "one way that changes nothing": (
        points,
        [Way("a", "a", "1", (0, 0, 0), (0, 0, 0))],
        None,
        "none",
        "x (share)",
        1.0,
    ),
    "a way of many doublings": (points, [Way("a", "a", "1", (-60.0, NAN, NAN), (1, 1, 1))], None, "none", "x", 0.1),
    "counts": (forest, [Difference("a", 123456.0, 1e5, 150000.0, 0.5)], "gradient evaluations, count", 1000.0),
}


def visible_texts(figure):
    """Every text that is on the page, with its box in pixels."""
    renderer = figure.canvas.get_renderer()
    found = [figure._suptitle]
    for axes in (axes for one in figure.axes for axes in (one, *one.child_axes)):
        found += [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            rim = 1e-9 * (high - low)
            for tick in axis.get_major_ticks():
                if low - rim <= tick.get_loc() <= high + rim and axis.get_visible():
                    found += [label for label in (tick.label1, tick.label2) if label.get_visible()]
    for legend in figure.legends:
        found += [*legend.get_texts(), legend.get_title()]
    return [(text, text.get_window_extent(renderer)) for text in found if text.get_text().strip()]


def overlap(one, other, rim=1.0):
    return min(one.x1, other.x1) - max(one.x0, other.x0) > rim and min(one.y1, other.y1) - max(one.y0, other.y0) > rim


def collections(axes, kind):
    return [drawn for drawn in axes.collections if type(drawn) is kind]


def offsets(axes):
    return np.concatenate([np.asarray(drawn.get_offsets()) for drawn in collections(axes, PathCollection)])


@pytest.mark.parametrize("name", USUAL)
def test_every_figure_is_as_broad_as_its_page_and_the_same_numbers_give_the_same_bytes(name, tmp_path):
    draw, *arguments = USUAL[name]
    for file, size in (("wide", "wide"), ("narrow", "narrow"), ("again", "narrow")):
        draw(tmp_path / f"{file}.png", TITLE, *arguments, size)
    assert imread(tmp_path / "wide.png").shape[1] == round(INCHES["wide"] * DPI["wide"]) == 1425
    assert imread(tmp_path / "narrow.png").shape[1] == round(INCHES["narrow"] * DPI["narrow"]) == 720
    assert (tmp_path / "narrow.png").read_bytes() == (tmp_path / "again.png").read_bytes()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NASTY)
def test_no_text_is_cut_off_or_overlaps_another_or_is_too_small_to_read(name, size):
    draw, *arguments = NASTY[name]
    figure = draw(TITLE, *arguments, size)
    figure.draw_without_rendering()
    texts = visible_texts(figure)
    assert len(texts) > 3
    for text, box in texts:
        where = f"{text.get_text()!r} at {box}"
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.width, where
        assert 0 <= box.y0 <= box.y1 <= figure.bbox.height, where
        assert text.get_fontsize() >= SMALLEST_POINTS - 1e-9, where
    for (one, box), (other, other_box) in itertools.combinations(texts, 2):
        assert not overlap(box, other_box), f"{one.get_text()!r} and {other.get_text()!r}"
    for axes in figure.axes:
        assert axes.get_position().width > 0.4 / len(figure.axes)


@pytest.mark.parametrize("size", SIZES)
def test_a_figure_is_as_high_as_what_it_holds(size):
    for rows in (2, 7):
        axes = maps(TITLE, [heat_map(rows, 2)], size).axes[0]
        figure = axes.get_figure()
        assert axes.get_position().height * figure.get_figheight() == pytest.approx(
            heat_maps.ROW_INCHES * rows, abs=0.03
        )
        assert figure.get_figheight() < heat_maps.ROW_INCHES * rows + 2.5
    heights = [dumbbells(TITLE, CONFIRMED * count, size).get_figheight() for count in (1, 2, 4)]
    assert (heights[2] - heights[1]) == pytest.approx(2 * (heights[1] - heights[0]), abs=0.03)


def test_letters_of_the_narrow_figure_are_eleven_pixels_high_on_a_phone():
    assert POINTS["narrow"] / 72 * 360 / INCHES["narrow"] >= 11
    assert SMALLEST_POINTS / 72 * 360 / INCHES["narrow"] >= 9


@pytest.mark.parametrize("name", USUAL)
def test_nothing_to_draw_is_refused(name, tmp_path):
    draw, rows, *others = USUAL[name]
    with pytest.raises(ValueError, match=r"^There is no [^.]+\.$"):
        draw(tmp_path / "figure.png", TITLE, type(rows)(), *others, "wide")
    assert not list(tmp_path.iterdir())


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        by_task(TITLE, [Band("a", "sgd", [0.5, 0.6], [0.4], [0.7])], "wide")
    with pytest.raises(ValueError, match="empty"):
        by_task(TITLE, [Band("a", "sgd", [], [], [])], "wide")
    with pytest.raises(ValueError, match="rows x columns"):
        maps(TITLE, [HeatMap("a", [1, 2], [1], "a", "b", [[1.0, 2.0]], "u", False)], "wide")


# What is drawn is what was given


def test_curves_and_bands_are_the_numbers_given():
    given = bands_of(["sgd", "sam"])
    axes = by_task(TITLE, given, "wide").axes[0]
    for band, line, area in zip(
        given, axes.get_lines(), collections(axes, PolyCollection) or axes.collections, strict=True
    ):
        assert np.array_equal(line.get_xdata(), np.arange(1, 7))
        assert np.array_equal(line.get_ydata(), band.mean)
        outline = {tuple(corner) for corner in area.get_paths()[0].vertices.tolist()}
        edges = [(task, y) for row in (band.low, band.high) for task, y in zip(range(1, 7), row, strict=True)]
        assert outline == {(float(task), float(y)) for task, y in edges}
        assert line.get_color() == METHOD_COLOURS[band.method]


CHARTS = {
    "accuracy_by_task": (charts.accuracy_by_task, bands_of(["sgd", "sam", "gnp", "gnp"])),
    "difference_by_task": (charts.difference_by_task, gaps_of(bands_of(["sam", "gnp"])), "SGD"),
    "accuracy_by_gradient_evaluations": (charts.accuracy_by_gradient_evaluations, spent_of(bands_of(["sgd", "sam"]))),
    "settings_scatter": (charts.settings_scatter, trials(), VALUE, BROAD),
    "parallel_coordinates": (charts.parallel_coordinates, trials(), VALUE, BROAD),
    "importance": (charts.importance, SHARES),
    "scores": (charts.scores, SCORES, "share"),
    "tuned_and_confirmed": (charts.tuned_and_confirmed, CONFIRMED),
    "differences": (charts.differences, DIFFERENCES, "share", 0.01),
    "trajectories": (charts.trajectories, PANELS),
    "steps": (incumbents.steps_chart, STEPS, VALUE),
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_what_plotly_takes_and_json_holds_and_name_nothing_as_html(name):
    draw, *arguments = CHARTS[name]
    chart = draw(*arguments)
    assert json.loads(json.dumps(chart, allow_nan=False)) == chart
    plotly.graph_objects.Figure(data=chart["traces"])  # refuses what it does not know
    assert {int(trace["legendgroup"]) for trace in chart["traces"]} <= set(range(len(chart["series"])))
    ends = [(axis["low"], axis["high"]) for panel in chart["panels"] for axis in (panel["x"], panel["y"])]
    assert all(math.isfinite(low) and math.isfinite(high) for low, high in ends)


def test_a_chart_shows_the_very_numbers_of_the_static_figure():
    given = bands_of(["sgd", "sam"])
    means = [trace["y"] for trace in charts.accuracy_by_task(given)["traces"] if trace["meta"]["role"] == "value"]
    assert means == [line.get_ydata().tolist() for line in by_task(TITLE, given, "wide").axes[0].get_lines()]
    tried = trials()
    drawn = [
        t for t in charts.settings_scatter(tried, VALUE)["traces"] if t["meta"]["role"] == "trial" and t["xaxis"] == "x"
    ]
    static = offsets(scatter(TITLE, tried, VALUE, "wide").axes[0])
    assert {(x, y) for trace in drawn for x, y in zip(trace["x"], trace["y"], strict=True)} == {
        tuple(p) for p in static.tolist()
    }
    lanes = [trace["y"] for trace in charts.parallel_coordinates(tried, VALUE)["traces"]]
    assert lanes == [
        list(line.get_ydata()) for line in lines(TITLE, tried, VALUE, "wide").axes[0].get_lines() if line.get_alpha()
    ]


@pytest.mark.parametrize("size", SIZES)
def test_a_stair_holds_its_value_until_the_next_incumbent_and_the_last_to_the_end_of_the_search(size):
    figure = stairs(TITLE, STEPS, VALUE, size)
    for axes, name in zip(figure.axes, ("tuned", "mean"), strict=True):
        for one, line in zip(STEPS, axes.get_lines()[::2], strict=True):
            values = getattr(one, name)
            ends = [*one.spent[1:], one.trials]
            assert line.get_xdata().tolist() == [x for pair in zip(one.spent, ends, strict=True) for x in pair]
            assert np.array_equal(line.get_ydata(), np.repeat(values, 2), equal_nan=True)
    low, high = figure.axes[1].get_ylim()
    assert low > 0.8, "what is lost late can be seen beside a first incumbent far below"
    assert 0.93 > high > 0.92
    assert "cut off" in figure.legends[0].get_title().get_text()
    chart = incumbents.steps_chart(STEPS, VALUE)
    drawn = [trace["y"] for trace in chart["traces"] if trace["meta"]["role"] == "value"]
    assert drawn == [[0.5, 0.9, 0.92], [0.4, 0.91, 0.9], [0.8, 0.93], [0.89, None]]
    assert chart["panels"][1]["y"]["low"] == pytest.approx(low)
    assert "<i>" not in json.dumps([trace.get("text") for trace in chart["traces"]])


def test_names_in_a_chart_are_no_html():
    chart = charts.accuracy_by_task([Band("<a href=x>", "sgd", [0.5], [0.4], [0.6])])
    assert "<a" not in "".join(trace.get("hovertemplate", "") for trace in chart["traces"])
    tried = [Tried("sgd", {"<i>": 1.0}, 0.5, True, name="<img>")]
    assert "<i" not in json.dumps([trace.get("text") for trace in charts.settings_scatter(tried, VALUE)["traces"]])


def test_of_what_is_minimised_the_lowest_is_ringed_and_darkest():
    tried = [Tried("sgd", {"lr": lr}, value, True, True) for lr, value in ((0.1, 0.3), (0.2, -0.1), (0.3, 0.9))]
    axes = scatter(TITLE, tried, VALUE, "wide").axes[0]
    ring = [points for points in collections(axes, PathCollection) if points.get_sizes()[0] > 50]
    assert [tuple(points.get_offsets()[0]) for points in ring] == [(0.2, -0.1)]
    low, high = axes.get_ylim()
    assert low < -0.1 < 0.9 < high
    drawn = [line for line in lines(TITLE, tried, VALUE, "wide").axes[0].get_lines() if line.get_alpha()]
    assert [line.get_alpha() for line in drawn] == sorted(line.get_alpha() for line in drawn)
    assert drawn[-1].get_alpha() > 0.9 > drawn[0].get_alpha()


def test_a_cell_of_a_grid_says_its_verdict_and_is_framed_where_the_claim_depends():
    axes = grid(TITLE, GRID, "wide").axes[0]
    words = [text.get_text() for text in axes.texts]
    assert words[:7] == ["open", "yes", "no", "open", "open", "open", "open"]
    assert words[7:14] == ["open", "yes", "yes", "open", "open", "open", "open"]
    assert [patch.get_x() for patch in axes.patches if not patch.get_fill()] == [2.05]


def test_the_work_stands_on_the_axis_as_it_was_counted_and_is_labelled_in_its_unit():
    axes = by_work(TITLE, [Spent("SAM", "sam", [2e6, 4e6], [0.9, 0.8], [NAN] * 2, [NAN] * 2)], "wide").axes[0]
    assert axes.get_lines()[0].get_xdata().tolist() == [2e6, 4e6]
    assert axes.get_xlabel() == "gradient evaluations (millions per seed)"
    assert {tick.get_text(): tick.get_position()[0] for tick in axes.get_xticklabels()}["4"] == 4e6


def test_an_interval_that_is_not_known_draws_no_band_and_the_legend_says_so():
    figure = by_task(TITLE, [Band("a", "sgd", [0.5, 0.6], [NAN, NAN], [NAN, NAN])], "wide")
    assert not figure.axes[0].collections
    assert "unknown" in figure.legends[0].get_title().get_text()


def test_a_task_with_a_known_interval_between_unknown_ones_keeps_it():
    axes = by_task(TITLE, [Band("a", "sgd", [0.5, 0.6, 0.7], [NAN, 0.4, NAN], [NAN, 0.8, NAN])], "wide").axes[0]
    assert len(axes.collections) == 1
    assert axes.collections[0].get_segments()[0].tolist() == [[2, 0.4], [2, 0.8]]


def test_settings_of_one_method_differ_in_line_style_or_in_the_filling_of_their_markers():
    drawn = by_task(TITLE, bands_of(["sam"] * 12), "wide").axes[0].get_lines()
    looks = {(str(line._unscaled_dash_pattern), line.get_linestyle(), line.get_markerfacecolor()) for line in drawn}
    assert len(looks) == 12


def test_the_scatter_shows_every_trial_where_it_was_and_rings_the_best_finished_one():
    tried = [
        Tried("sam", {"lr": 0.001}, 0.7, True),
        Tried("sam", {"lr": 0.1}, 0.9, True),
        Tried("sam", {"lr": 1.0}, 0.95, False),
    ]
    axes = scatter(TITLE, tried, VALUE, "wide").axes[0]
    assert axes.get_xscale() == "log"
    places = offsets(axes)
    assert {tuple(place) for place in places.tolist()} == {(0.001, 0.7), (0.1, 0.9), (1.0, 0.95)}
    (ring,) = [drawn for drawn in collections(axes, PathCollection) if drawn.get_sizes()[0] == 100]
    assert ring.get_offsets().tolist() == [[0.1, 0.9]]
    hollow = [
        drawn for drawn in collections(axes, PathCollection) if drawn is not ring and not len(drawn.get_facecolors())
    ]
    assert [drawn.get_offsets().tolist() for drawn in hollow] == [[[1.0, 0.95]]]


def test_every_setting_has_a_panel_and_every_panel_the_trials_that_have_it():
    figure = scatter(TITLE, trials(5), VALUE, "narrow")
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "learning rate lr (1)",
        "rho (length in weight space)",
        "lambda (1)",
        "r (length in weight space)",
    ]
    shown = [{y for _, y in offsets(axes).tolist()} for axes in figure.axes]
    values = {method: {trial.value for trial in trials(5) if trial.method == method} for method in METHOD_COLOURS}
    assert shown == [set().union(*values.values()), values["sam"], values["gnp"], values["gnp"]]


def test_the_axes_span_what_was_searched_and_not_only_the_trials_seen():
    tried = [Tried("sam", {"lr": 0.01, "rho": 0.5}, 0.7, True), Tried("sam", {"lr": 0.02, "rho": 0.9}, 0.9, True)]
    searched = {"lr": (1e-4, 1.0), "rho": (0.1, 0.2)}
    lr, rho = scatter(TITLE, tried, VALUE, "wide", searched).axes
    assert lr.get_xscale() == "log"
    low, high = lr.get_xlim()
    assert 0.5e-4 < low < 1e-4
    assert 1.0 < high < 2.0
    assert {"1e-4", "1"} & {tick.get_text() for tick in lr.get_xticklabels()}
    assert rho.get_xlim()[0] < 0.1
    assert rho.get_xlim()[1] > 0.9, "a trial outside the range is not lost"
    drawn = [line for line in lines(TITLE, tried, VALUE, "wide", searched).axes[0].get_lines() if line.get_markevery()]
    assert drawn[0].get_ydata()[0] == pytest.approx(0.5), "half way between the ends of the range"


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([0.9, 0.95, 1.2], (0.895, 1.0)),
        ([-0.3, 0.5], (0.0, 0.525)),
        ([-0.3, 1.3], (0.0, 1.0)),
        ([1.0, 1.0], (0.995, 1.0)),
        ([0.0], (0.0, 0.005)),
        ([1.1, 1.2], (0.995, 1.0)),
        ([NAN], (0.0, 1.0)),
    ],
)
def test_axes_of_shares_end_at_0_and_1(values, limits):
    assert layout.share_limits(values) == pytest.approx(limits)


def test_no_axis_of_accuracies_runs_beyond_1_where_an_interval_does(tmp_path, monkeypatch):
    """With three seeds, a t interval of a good accuracy ends above 1."""
    band = Band("good", "sam", [0.97, 0.99], [0.8, 0.75], [1.14, 1.23])
    spent = Spent("good", "sam", [10.0, 20.0], band.mean, band.low, band.high)
    row = Confirmed("good", "sam", 0.99, 0.98, 0.76, 1.2)
    saved = []
    monkeypatch.setattr(accuracy, "save", lambda figure, _: saved.append(figure))
    accuracy.learning_curve(tmp_path / "a.png", TITLE, {"test": [[1.0, 0.9], [1.0, 1.0]]})
    figures = [by_task(TITLE, [band], "wide"), by_work(TITLE, [spent], "wide"), *saved]
    ends = [figure.axes[0].get_ylim()[1] for figure in figures]
    assert [*ends, dumbbells(TITLE, [row], "wide").axes[0].get_xlim()[1]] == [1.0] * 4


@pytest.mark.parametrize(
    ("name", "values", "limits"),
    [
        ("accuracy/earlier_tasks (share)", [0.8, 1.0], (0.79, 1.0)),
        ("units/dead (share)", [0.0, 0.0], (0.0, 0.055)),
        ("accuracy/first_task (share)", [1e-3, 1.0], (None, 1.0)),
        ("difference (share)", [-0.5, 0.5], (-0.55, 0.55)),
        ("rank/effective (1)", [0.8, 1.0], (0.79, 1.01)),
    ],
)
def test_panels_of_shares_end_at_0_and_1_too(name, values, limits):
    axes = inside(TITLE, {name: [diagnostics.Trajectory("SGD", "sgd", [0, 1], values)]}, "wide").axes[0]
    for seen, wanted in zip(axes.get_ylim(), limits, strict=True):
        assert wanted is None or seen == pytest.approx(wanted)


@pytest.mark.parametrize("size", SIZES)
def test_a_forest_can_say_why_no_p_value_is_small(size):
    note = "No p-value can fall below 0.750 here, however large the differences."
    texts = [text.get_text() for text, _ in visible_texts(forest(TITLE, DIFFERENCES, "share", 0.01, size, note))]
    assert note in " ".join(" ".join(texts).split())


def test_a_zero_among_decades_has_a_tick_of_its_own_apart_from_the_lowest_value():
    tried = [Tried("gnp", {"r": r}, 0.5, True) for r in (0.0, 0.001, 1.0)]
    axes = scatter(TITLE, tried, VALUE, "wide").axes[0]
    labels = {tick.get_text(): tick.get_position()[0] for tick in axes.get_xticklabels()}
    assert 0 < labels["0"] < 0.001
    zero, lowest = (axes.transData.transform((x, 0.5))[0] / DPI["wide"] for x in (labels["0"], 0.001))
    assert lowest - zero > 0.1  # inches: the markers do not touch
    assert sorted(set(offsets(axes)[:, 0].tolist())) == pytest.approx([labels["0"], 0.001, 1.0])


def test_scales_place_the_lowest_at_0_the_highest_at_1_and_are_logarithmic_above_a_factor_of_20():
    wide, tight = Scale.of([1e-4, 1e-2, 1.0, NAN]), Scale.of([1.0, 2.0, 19.0])
    assert wide.log
    assert [wide.place(value) for value in (1e-4, 1e-2, 1.0)] == pytest.approx([0, 0.5, 1])
    assert not tight.log
    assert tight.place(10.0) == 0.5
    assert not Scale.of([-1.0, 1.0, 100.0]).log
    assert Scale.of([0.0, 1e-3, 1.0]).place(0.0) == ZERO_AT < 0
    assert Scale.of([]).ticks(4) == {}
    assert Scale.of([0.3, 0.3]).ticks(4) == {0.3: "0.3"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1e-5, "1e-5"), (0.0924, "0.0924"), (-0.5, "−0.5"), (12345, "12345"), (2.5e6, "2.5e6"), (1, "1")],
)
def test_numbers_at_ticks_are_short(value, text):
    assert short(value) == text


@pytest.mark.parametrize("size", SIZES)
def test_a_line_of_the_parallel_coordinates_runs_through_its_settings_to_its_value(size):
    tried = [
        Tried("gnp", {"lr": 0.001, "r": 0.2}, 0.5, True),
        Tried("gnp", {"lr": 1.0, "r": 0.1}, 0.9, True),
        Tried("sgd", {"lr": 1.0}, 0.7, True),
    ]
    drawn = [line for line in lines(TITLE, tried, VALUE, size).axes[0].get_lines() if line.get_markevery() == [-1]]
    along = [line.get_ydata() if size == "wide" else line.get_xdata() for line in drawn]
    assert [list(places) for places in along] == [
        [0, 1, 0],
        [1, pytest.approx(parallel.NONE_AT), pytest.approx(0.5)],
        [1, 0, 1],
    ]
    assert [line.get_color() for line in drawn] == [METHOD_COLOURS[method] for method in ("gnp", "sgd", "gnp")]
    assert [line.get_alpha() for line in drawn] == sorted(line.get_alpha() for line in drawn)


def test_bars_are_as_long_as_the_shares_and_fall_within_a_method():
    axes = bars(TITLE, SHARES, "wide").axes[0]
    drawn = [bar for bars in axes.containers if isinstance(bars, BarContainer) for bar in bars]
    assert [bar.get_width() for bar in drawn] == [1.0, 0.73, 0.27, 0.62, 0.31, 0.0]
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.73", "0.27", "0.62", "0.31", "unknown"]
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == ["sgd", "lr", "sam"]


def test_heat_maps_show_the_values_and_a_dash_where_nothing_was_measured():
    given = heat_map(3, 4)
    axes = maps(TITLE, [given], "wide").axes[0]
    (image,) = [child for child in axes.get_children() if isinstance(child, AxesImage)]
    assert np.array_equal(image.get_array().filled(NAN), given.values, equal_nan=True)
    numbers = [text.get_text() for text in axes.texts]
    assert numbers == ["–" if math.isnan(value) else f"{value:.3f}" for value in given.values.flat]
    assert [patch.get_xy() for patch in axes.patches if patch.get_hatch()] == [(-0.5, -0.5)]


def test_a_broad_heat_map_is_turned_on_the_narrow_page_with_its_labels():
    given = heat_map(5, 9)
    axes = maps(TITLE, [given], "narrow").axes[0]
    assert np.array_equal(axes.images[0].get_array().filled(NAN), given.values.T, equal_nan=True)
    assert axes.get_xlabel() == "rho (length in weight space)"
    assert "learning rate lr (1)" in axes.get_title(loc="left")
    assert [label.get_text() for label in axes.get_xticklabels()] == [short(value) for value in given.rows]


def test_maps_of_one_unit_share_their_colours_and_differences_are_centred_on_0():
    low, high = (HeatMap("", [1], [1, 2], "a", "b", [values], "share", False) for values in ([0.1, 0.2], [0.8, 0.9]))
    figure = maps(TITLE, [low, high], "wide")
    assert [image.get_clim() for axes in figure.axes for image in axes.images] == [(0.1, 0.9)] * 2
    fall = maps(TITLE, [HeatMap("", [1], [1, 2], "a", "b", [[-0.3, 0.1]], "share", True)], "wide")
    assert fall.axes[0].images[0].get_clim() == (-0.3, 0.3)


@pytest.mark.parametrize("diverging", [False, True])
def test_numbers_in_cells_contrast_with_their_colour(diverging):
    one = HeatMap("", [1], [1], "a", "b", [[0.5]], "u", diverging)
    for red, green, blue, _ in heat_maps._colour_map(one)(np.linspace(0, 1, 101)):
        ground = luminance(np.array([red, green, blue]))
        ink = luminance(np.array(to_rgb(heat_maps.readable_on((red, green, blue)))))
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5


@pytest.mark.parametrize("size", SIZES)
def test_dumbbells_stand_at_the_two_scores_and_only_known_intervals_are_drawn(size):
    axes = dumbbells(TITLE, CONFIRMED, size).axes[0]
    assert offsets(axes)[:, 0].tolist() == [x for row in CONFIRMED for x in (row.confirmed, row.tuned)]
    hollow = [drawn.get_facecolor()[0].tolist() == [1, 1, 1, 1] for drawn in collections(axes, PathCollection)]
    assert hollow == [False, True] * 3
    intervals = [list(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "|"]
    assert intervals == [[row.low, row.high] for row in CONFIRMED[:2]]
    words = " ".join(text.get_text() for text, _ in visible_texts(axes.get_figure()))
    assert all(gap in words for gap in ("gap +0.0100", "gap +0.0090", "gap +0.0150"))


@pytest.mark.parametrize("size", SIZES)
def test_a_forest_has_its_means_its_intervals_its_zero_and_its_margin(size):
    figure = forest(TITLE, DIFFERENCES, "share", 0.01, size)
    axes = figure.axes[0]
    assert offsets(axes)[:, 0].tolist() == [row.mean for row in DIFFERENCES]
    intervals = [list(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "|"]
    assert intervals == [[row.low, row.high] for row in (DIFFERENCES[0], DIFFERENCES[2])]
    assert [list(line.get_xdata()) for line in axes.get_lines() if line.get_marker() != "|"] == [[0, 0]] * 3
    shaded = [
        drawn.get_paths()[0].vertices[:, 0]
        for drawn in axes.collections
        if not isinstance(drawn, PathCollection | LineCollection)
    ]
    assert [(x.min(), x.max()) for x in shaded] == [(-0.01, 0.01)] * 3
    words = " ".join(text.get_text() for text, _ in visible_texts(figure))
    assert "equivalence margin ±0.01 (share)" in words
    assert "interval unknown" in words
    assert "p < 0.001" in words


# Colours


@pytest.mark.parametrize("size", SIZES)
def test_a_panel_of_a_diagnostic_has_the_numbers_given_over_tasks_counted_from_1(size):
    axes = inside(TITLE, PANELS, size).axes
    assert [panel.get_yscale() for panel in axes[:4]] == ["log", "linear", "linear", "log"]
    for panel, trajectories in zip(axes, PANELS.values(), strict=False):
        for line, given in zip(panel.get_lines(), trajectories, strict=True):
            assert line.get_xdata().tolist() == [task + 1 for task in given.tasks]
            assert list(line.get_ydata()) == list(given.values)


@pytest.mark.parametrize("size", SIZES)
def test_each_known_association_is_a_mark_and_each_known_interval_a_line(size):
    (axes,) = goes_with(TITLE, ASSOCIATIONS, size).axes
    marks = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == "None"]
    intervals = [tuple(line.get_xdata()) for line in axes.get_lines() if len(line.get_xdata()) == 2]
    assert sorted(marks) == [-0.5, 0.0, 0.1, 0.2, 0.99]
    assert sorted(intervals) == [(-1.0, 1.0), (-0.8, 0.1), (0, 0), (0.0, 0.2), (0.9, 1.0)]
    assert axes.get_xlim() == pytest.approx((-1.02, 1.02))


def test_methods_keep_their_colours_and_new_ones_get_free_ones_in_any_order():
    assert colours(["gnp", "sgd"]) == {"gnp": METHOD_COLOURS["gnp"], "sgd": METHOD_COLOURS["sgd"]}
    assert colours(["b", "sam", "a"]) == {"a": OTHER_COLOURS[0], "b": OTHER_COLOURS[1], "sam": METHOD_COLOURS["sam"]}
    many = [f"method {n}" for n in range(8)]
    assert len(set(markers([*METHOD_COLOURS, *many]).values())) == 11


def luminance(rgb):
    """Relative luminance (WCAG 2)."""
    return float(linear(rgb) @ [0.2126, 0.7152, 0.0722])


def linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(light):
    """CIE 1976 L*a*b* of linear sRGB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ light / (to_xyz @ np.ones(3))
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB."""


@pytest.mark.parametrize("sight", SIGHT)
def test_methods_and_the_white_page_are_told_apart_in_every_sight(sight):
    seen = [
        lab(np.clip(np.array(SIGHT[sight]) @ linear(np.array(to_rgb(colour))), 0, 1))
        for colour in (*METHOD_COLOURS.values(), "#ffffff")
    ]
    assert min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)) > 35


def test_colours_are_given_with_their_marker_in_the_legend():
    figure = by_task(TITLE, bands_of(["sgd", "sam", "gnp", "new"]), "wide")
    legend = figure.legends[0]
    assert isinstance(legend, Legend)
    looks = [(line.get_color(), line.get_marker()) for line in legend.get_lines()]
    assert len({colour for colour, _ in looks}) == len({marker for _, marker in looks}) == 4


def test_as_many_methods_as_a_space_has_differ_in_colour_or_marker():
    methods = {name for space in search_spaces.names() for name in search_spaces.load(space).methods}
    colour, marker = colours(methods), markers(methods)
    assert len(methods) > 25
    assert len({(colour[name], marker[name]) for name in methods}) == len(methods)


@pytest.mark.parametrize("size", SIZES)
def test_every_way_stands_at_its_changes_and_is_told_by_marker_and_value(size):
    (axes,) = points(TITLE, WAYS, None, "plain SGD", "late accuracy (share)", 0.005, size).axes
    assert offsets(axes).tolist() == [[way.sharpening[0], way.outcome[0]] for way in WAYS]
    assert {"0.2", "0.1", "64"} <= {text.get_text() for text in axes.texts}
    faces = [to_rgb(drawn.get_facecolors()[0]) for drawn in collections(axes, PathCollection)]
    assert [face == (1, 1, 1) for face in faces] == [way.is_hollow for way in WAYS]
    ends = [line.get_xydata().tolist() for line in axes.get_lines()]
    for way in WAYS[:-1]:
        assert [[way.sharpening[1], way.outcome[0]], [way.sharpening[2], way.outcome[0]]] in ends
        assert [[way.sharpening[0], way.outcome[1]], [way.sharpening[0], way.outcome[2]]] in ends


def test_a_kind_looks_the_same_where_another_is_too_far_out_to_be_drawn():
    judged = [Way(k, k, "", (1.0, 0.9, 1.1), (0.01, 0.0, 0.02)) for k in ("b", "c")]
    looks = []
    for place in (1.0, 99.0):
        other = Way("a", "a", "", (place, place, place), (0.0, 0.0, 0.0), is_hollow=True)
        (axes,) = points("title", [*judged, other], None, "plain SGD", "accuracy (share)", 0.005, "wide").axes
        looks.append([drawn.get_edgecolors().tolist() for drawn in collections(axes, PathCollection)[:2]])
    assert looks[0] == looks[1]
    assert looks[0][0] != looks[0][1]


def test_what_lies_far_outside_is_named_and_leaves_the_picture_to_the_rest():
    judged = [Way("a", "a", "1", (1.0, 0.9, 1.1), (0.01, 0.0, 0.02)), Way("a", "a", "2", (-1.0, -1.1, -0.9), (0, 0, 0))]
    near, far = (Way(f"b{x}", f"b{x}", "", (x, x, x), (0.0, 0.0, 0.0), is_hollow=True) for x in (2.9, -4.0))
    figure = cause._draw("title", [*judged, near, far], None, "plain SGD", "accuracy (share)", 0.005, "wide")
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "Outside the picture: b-4.0 at ×1/16, 0." in " ".join(words.split())
    low, high = figure.axes[0].get_xlim()
    assert -2 < low < high < 4
    assert cause._near([near, far]) == ([near, far], [])  # nothing is judged, so nothing is far
