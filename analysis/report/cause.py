"""Is sharpness the cause? Probes and doses of rho, judged.

The criteria are those of `study/docs/cause.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from analysis import statistics
from analysis.cause import MARGIN, SHARPNESS, blocks, doses, hypotheses, surgery
from analysis.cause.blocks import Arm, Blocks
from analysis.cause.doses import Experiment
from analysis.cause.hypotheses import Verdict
from analysis.cause.lines import Line
from analysis.figures import cause as figures
from analysis.figures.cause import Way
from analysis.load import Sweep
from analysis.report.page import Column, Draw, Picture, Section, Table, count, joined
from analysis.statistics import Array, Interval

TITLE = "Is sharpness the cause?"

VALUES = {"layer_rescaling": "level", "norm_rescaling": "factor"}
"""What the levels of an operation are."""

VERDICTS = (
    Column("hypothesis", "hypothesis"),
    Column("question", "what it says"),
    Column("answer", "answer"),
    Column("what", "number"),
    Column("estimate", "estimate", "signed"),
    Column("p", "p", "p"),
    Column("p_adjusted", "p, adjusted", "p"),
    Column("run_id", "runs", "run"),
)
EFFECTS = (
    Column("arm", "operation"),
    Column("baseline", "against"),
    Column("sharpening", "doublings of sharpness", "number"),
    Column("outcome", "change of online accuracy", "signed"),
    Column("p", "p", "p"),
    Column("run_id", "run", "run"),
)
CONTROLS = (
    Column("arm", "negative control"),
    Column("lr", "learning rate", "number"),
    Column("outcome", "change of online accuracy", "signed"),
    Column("function_change", "largest change of a logit", "number"),
    Column("holds", "holds"),
    Column("run_id", "run", "run"),
)
SLOPES = (
    Column("of", "slope"),
    Column("slope", "estimate", "signed"),
    Column("p", "p", "p"),
    Column("lanes", "seeds", "count"),
    Column("run_id", "runs", "run"),
)
WAYS = (
    Column("way", "way"),
    Column("sharpening", "doublings of sharpness", "number"),
    Column("outcome", "change of late accuracy", "signed"),
    Column("distance", "distance from the line", "signed"),
    Column("run_id", "run", "run"),
)


def needed(sweep: Sweep) -> set[str]:
    """The runs whose diagnostics this section needs."""
    return {run_id for experiment in doses.experiments(sweep) for run_id in experiment.run_ids}


def section_cause(sweep: Sweep) -> Section | None:
    """Verdicts on the four hypotheses, and their reasons.

    None if the sweep has neither probes nor doses of rho under two conditions with sharpness measured at the onset.
    """
    words: list[str | tuple[str, ...]] = []
    parts: list[Table | Picture] = []
    trunks = blocks.blocks(sweep)
    measured = set(sweep.diagnostics["run_id"]) if SHARPNESS in sweep.diagnostics else set()
    experiments = [each for each in doses.experiments(sweep) if each.baseline.run_id in measured]
    for number, trunk in enumerate(trunks, 1):
        _add(words, parts, *_of_probes(trunk, f"-{number}" if len(trunks) > 1 else ""))
    if experiments:
        _add(words, parts, *_of_doses(sweep, experiments))
    if not words:
        return None
    beginning = (
        "Sharpness, weights and idle units drift together, so no correlation can say what causes what. Here sharpness is set by "
        "experiment. Hypotheses and criteria, in `study/docs/cause.md`, were written before it was run. One seed is one number, "
        f"intervals are at 95 % over seeds, and differences within ±{MARGIN:g} of accuracy do not matter."
    )
    return Section("cause", TITLE, (beginning, *words), tuple(parts))


def _add(
    words: list[str | tuple[str, ...]],
    parts: list[Table | Picture],
    more_words: Iterable[str | tuple[str, ...]],
    more_parts: Iterable[Table | Picture],
) -> None:
    words += more_words
    parts += more_parts


# --- Surgery ------------------------------------------------------------------------------------------------------------


def _of_probes(trunk: Blocks, suffix: str) -> tuple[list[str | tuple[str, ...]], list[Table | Picture]]:
    where = f"Surgery on {trunk.method}, {trunk.scenario}"
    if not trunk.seeds:
        return [f"*{where}: nothing is shown*, because no seed has all its probes."], []
    gate = surgery.gate(trunk)
    controls = Table(
        f"cause_controls{suffix}",
        f"{where}: negative controls, at each learning rate of the probe. They must change nothing beyond rounding.",
        _controls(trunk, gate),
        CONTROLS,
        folded=gate.is_open,
    )
    if not gate.is_open:
        first, rest = gate.reasons[:3], len(gate.reasons) - 3
        reasons = "; ".join([*first, f"and {rest} more like these"] if rest > 0 else first)
        return [
            f"*{where}: nothing is shown*, because the negative controls did not come out as they must: {reasons}."
        ], [controls]
    response = surgery.response(trunk)
    tests: dict[hypotheses.Name, hypotheses.Test | None] = {}
    if response is not None:
        tests = {"H1": hypotheses.slope_test(response.slope), "H2": hypotheses.slope_test(response.trend)}
    verdicts = hypotheses.answered(tests)
    words: list[str | tuple[str, ...]] = [
        f"{where}: each network was copied before {_tasks(trunk)}, operated on, and "
        f"trained on the same next task, with {count(len(trunk.seeds), 'seed')}. The negative controls changed nothing beyond "
        "rounding." + _left_out(trunk, response),
        tuple(hypotheses.sentence(verdict) for verdict in verdicts),
    ]
    if response is not None:
        words.append(_shape(response))
    effects = surgery.effects(trunk)
    parts: list[Table | Picture] = [
        Picture(
            f"cause-probes{suffix}",
            f"{where}: change of online accuracy against change of sharpness, one point for each arm, minus the untouched copy.",
            _probe_ways(f"{where}: what sharpness does to the next task", effects),
            trunk.run_ids,
        ),
        _verdict_table(f"cause_probes{suffix}", f"{where}: verdicts.", verdicts, " ".join(trunk.run_ids)),
        Table(f"cause_slopes{suffix}", f"{where}: slopes.", _probe_slopes(trunk, response), SLOPES, folded=True),
        Table(
            f"cause_operations{suffix}",
            f"{where}: each operation against another, averaged over tasks and learning rates. No p is adjusted here.",
            _effects(trunk, effects),
            EFFECTS,
            folded=True,
        ),
    ]
    if len(trunk.boundaries) > 1:
        parts.append(
            Table(
                f"cause_tasks{suffix}",
                f"{where}: each operation on each task, minus the untouched copy, averaged over learning rates. This shows "
                "whether an effect changes as plasticity is lost; it tests nothing.",
                _by_task(trunk),
                (
                    Column("arm", "operation"),
                    *(Column(f"task_{task}", f"task {task}", "signed") for task in trunk.boundaries),
                    Column("run_id", "run", "run"),
                ),
                folded=True,
            )
        )
    return words, [*parts, controls]


def _tasks(trunk: Blocks) -> str:
    """`task 10`, `tasks 10 and 30`."""
    return ("task " if len(trunk.boundaries) == 1 else "tasks ") + joined([str(task) for task in trunk.boundaries])


def _left_out(trunk: Blocks, response: surgery.Response | None) -> str:
    words = ""
    if trunk.left_out:
        words += f" Left out, because they lack a number: seeds {joined([str(seed) for seed in trunk.left_out])}."
    if response is not None and response.narrow:
        words += f" {count(response.narrow, 'block')} left out, because rescaling hardly moved sharpness there."
    return words


def _shape(response: surgery.Response) -> str:
    low, high = (f"{2**span:.3g}" for span in response.span)
    words = f"Within a block the sharpest copy is {low} to {high} times as sharp as the flattest."
    if not len(response.curvature):
        return words
    ends = [statistics.t_interval(end) for end in (response.flat_end, response.sharp_end)]
    shape = "is an inverted U" if response.is_inverted_u else "is no inverted U by its criterion"
    return (
        f"{words} The response {shape}: the slope of a parabola is {hypotheses.written(ends[0])} at the flattest level and "
        f"{hypotheses.written(ends[1])} at the sharpest."
    )


def _probe_ways(title: str, effects: Sequence[surgery.Effect]) -> Draw:
    points = [
        Way(
            _kind(effect.arm),
            f"{_kind(effect.arm)}, by {VALUES[effect.arm.operation]}" if _has_value(effect.arm) else _kind(effect.arm),
            f"{effect.arm.level:g}" if _has_value(effect.arm) else "",
            _ends(effect.sharpening),
            _ends(effect.outcome.interval),
            is_hollow=not effect.arm.is_rescaled,
        )
        for effect in effects
        if effect.baseline.name == blocks.UNTOUCHED
    ]
    return lambda path, size: figures.ways(
        path, title, points, None, "the untouched copy", "online accuracy (share)", MARGIN, size
    )


def _has_value(arm: Arm) -> bool:
    """Whether the picture tells its levels apart; those of controls would only crowd it."""
    return arm.operation in VALUES and not arm.undone


def _kind(arm: Arm) -> str:
    return f"{arm.operation}, undone" if arm.undone else arm.operation


def _controls(trunk: Blocks, gate: surgery.Gate) -> pd.DataFrame:
    rows = [
        {
            "arm": control.arm,
            "lr": control.rate,
            **_bounded("outcome", control.difference),
            "function_change": gate.function_changes[control.arm],
            "holds": "yes" if control.holds else "no",
            "run_id": " ".join(trunk.run_ids),
        }
        for control in gate.controls
    ]
    return pd.DataFrame(rows)


def _effects(trunk: Blocks, effects: Sequence[surgery.Effect]) -> pd.DataFrame:
    rows = [
        {
            "arm": effect.arm.name,
            "baseline": effect.baseline.name,
            **_bounded("sharpening", effect.sharpening),
            **_bounded("outcome", effect.outcome.interval),
            "p": effect.outcome.p,
            "run_id": " ".join(trunk.run_ids),
        }
        for effect in effects
    ]
    return pd.DataFrame(rows)


def _by_task(trunk: Blocks) -> pd.DataFrame:
    changes = trunk.changes.mean(axis=1)  # [arm, boundary, seed]
    rows = [
        {
            "arm": trunk.arms[arm].name,
            **{
                name: value
                for place, task in enumerate(trunk.boundaries)
                for name, value in _bounded(f"task_{task}", statistics.t_interval(changes[arm, place])).items()
            },
            "run_id": " ".join(trunk.run_ids),
        }
        for arm in trunk.places(lambda arm: arm.operation != blocks.UNTOUCHED and not arm.undone)
    ]
    return pd.DataFrame(rows)


def _probe_slopes(trunk: Blocks, response: surgery.Response | None) -> pd.DataFrame:
    slopes: dict[str, Array] = {}
    if response is not None:
        slopes = {f"doubling of sharpness, learning rate {rate:g}": own for rate, own in response.by_rate.items()}
        slopes["doubling of sharpness, all learning rates (H1)"] = response.slope
        slopes["its change for a tenfold learning rate (H2)"] = response.trend
        slopes["curvature: its change for two doublings of sharpness"] = response.curvature * 4
    slopes |= {f"doubling of `{name}`, all learning rates": surgery.slope_in(trunk, name) for name in trunk.others}
    slopes["doubling of the total norm, sharpness held where it can be"] = surgery.norm_slope(trunk)
    return _slope_rows(slopes, dict.fromkeys(slopes, " ".join(trunk.run_ids)))


# --- Doses --------------------------------------------------------------------------------------------------------------


def _of_doses(
    sweep: Sweep, experiments: Sequence[Experiment]
) -> tuple[list[str | tuple[str, ...]], list[Table | Picture]]:
    first = experiments[0]
    slopes = {
        (place, held): doses.dose_slopes(sweep, runs)
        for place, experiment in enumerate(experiments)
        for held, runs in experiment.doses.items()
    }
    kept, x, y = doses.changes(sweep, first.baseline, first.ways)
    direct = slopes.get((0, doses.BOTH))
    tests: dict[hypotheses.Name, hypotheses.Test | None] = {
        "H3": hypotheses.line_test(x, y),
        "H4": None if direct is None else hypotheses.slope_test(direct),
    }
    verdicts = hypotheses.answered(tests)
    where = f"Doses of rho, {first.baseline.network}"
    free = first.doses[doses.NOTHING]
    total = hypotheses.slope_test(slopes[0, doses.NOTHING])
    words: list[str | tuple[str, ...]] = [
        f"{where}: whole sequences with rho from {free[0].rho:g} to {free[-1].rho:g}, "
        f"SGD being 0. What is held: {'; '.join(first.doses)}. Late accuracy is test accuracy in the last tenth of the tasks."
        + (f" With nothing held, 0.1 of rho changes it by {hypotheses.written(total.estimate)}." if total else ""),
        tuple(hypotheses.sentence(verdict) for verdict in verdicts),
    ]
    parts: list[Table | Picture] = []
    test = tests["H3"]
    if test is not None and test.line is not None:
        parts += _ways_of(sweep, kept, x, y, test.line, f"{where}: one line or many?")
    named = {
        f"{held} held, {experiments[place].baseline.network}"
        + (" (H4)" if (place, held) == (0, doses.BOTH) else ""): own
        for (place, held), own in slopes.items()
    }
    runs = [" ".join(run.run_id for run in experiments[place].doses[held]) for place, held in slopes]
    parts += [
        _verdict_table("cause_doses", f"{where}: verdicts.", verdicts, " ".join(first.run_ids)),
        Table(
            "cause_dose_slopes",
            "Change of late accuracy for each 0.1 of rho, within seeds, by what is held. Only one of them is a hypothesis.",
            _slope_rows(named, dict(zip(named, runs, strict=True))),
            SLOPES,
        ),
    ]
    return words, parts


def _ways_of(
    sweep: Sweep, kept: Sequence[doses.Run], x: Array, y: Array, line: Line, title: str
) -> list[Table | Picture]:
    across, up = ([statistics.t_interval(way) for way in values] for values in (x, y))
    points = [
        Way(way.kind, way.label, way.value.replace("-", "−"), _ends(a), _ends(b))
        for way, a, b in zip(kept, across, up, strict=True)
    ]
    rows = [
        {
            "way": way.name,
            **_bounded("sharpening", a),
            **_bounded("outcome", b),
            **_bounded("distance", distance),
            "run_id": way.run_id,
        }
        for way, a, b, distance in zip(kept, across, up, line.distances, strict=True)
    ]
    slope = line.slope, line.low, line.high
    caption = (
        "Change of late accuracy against change of sharpness, one point for each way to change it, minus SGD seed by seed. If "
        "sharpness were the only cause, all would lie on one line through 0."
    )
    return [
        Picture(
            "cause-doses",
            caption,
            lambda path, size: figures.ways(
                path, title, points, slope, "plain SGD", "late accuracy (share)", MARGIN, size
            ),
            tuple(way.run_id for way in kept),
        ),
        Table(
            "cause_ways",
            f"Each way, and how far it lies from the line. {sweep.name}.",
            pd.DataFrame(rows),
            WAYS,
            folded=True,
        ),
    ]


# --- Rows ---------------------------------------------------------------------------------------------------------------


def _verdict_table(name: str, caption: str, verdicts: Sequence[Verdict], run_ids: str) -> Table:
    rows = []
    for verdict in verdicts:
        test = verdict.test
        unknown = Interval(float("nan"), float("nan"), float("nan"), 0, 0.95)
        rows.append(
            {
                "hypothesis": verdict.hypothesis,
                "question": hypotheses.QUESTIONS[verdict.hypothesis],
                "answer": verdict.answer,
                "what": hypotheses.NUMBERS[verdict.hypothesis],
                **_bounded("estimate", test.estimate if test else unknown),
                "p": test.p if test else float("nan"),
                "p_adjusted": verdict.p_adjusted if test else float("nan"),
                "run_id": run_ids if test else "",
            }
        )
    return Table(name, caption, pd.DataFrame(rows), VERDICTS)


def _slope_rows(slopes: dict[str, Array], run_ids: dict[str, str]) -> pd.DataFrame:
    rows = [
        {
            "of": name,
            **_bounded("slope", statistics.t_interval(own)),
            "p": statistics.sign_flip_p(own),
            "lanes": len(own),
            "run_id": run_ids[name],
        }
        for name, own in slopes.items()
        if len(own)
    ]
    return pd.DataFrame(rows, columns=["of", "slope", "slope_low", "slope_high", "p", "lanes", "run_id"])


def _bounded(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high
