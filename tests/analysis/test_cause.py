"""Is sharpness the cause: what the analysis computes, when its gate shuts, and what the page says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from cause_fixtures import (
    BOUNDARIES,
    LEVELS,
    RATES,
    RHO,
    WAYS,
    dose_sweep,
    doses,
    probes,
    rescaled,
    surgery_sweep,
    ways,
)
from scipy import stats

import search_spaces
from analysis import statistics
from analysis.cause import doses as dosing
from analysis.cause import surgery
from analysis.cause.blocks import blocks
from analysis.cause.hypotheses import answered, line_test, sentence, slope_test
from analysis.cause.lines import curve_p, line_through_zero
from analysis.report.cause import needed, section_cause
from study.sweep.search_plan import make_plan


def draws(seed=0):
    return np.random.default_rng(seed)


def words(section):
    return " ".join(
        text for paragraph in section.paragraphs for text in ([paragraph] if isinstance(paragraph, str) else paragraph)
    )


def tables(section):
    return {block.name: block.frame for block in section.blocks if block.is_table}


# --- Blocks -------------------------------------------------------------------------------------------------------------


def test_probes_become_blocks_in_any_order_of_rows():
    table = probes("cause", seeds=3)
    (made,) = blocks(surgery_sweep(table))
    (again,) = blocks(surgery_sweep(table.sample(frac=1, random_state=0)))
    assert (made.rates, made.boundaries, made.seeds, made.left_out) == (RATES, BOUNDARIES, (0, 1, 2), ())
    assert made.arms[0].name == "none"
    place = [arm.name for arm in again.arms].index("layer_rescaling 0.75")
    row = table[
        (table["arm"] == "layer_rescaling 0.75") & (table["lr"] == 0.03) & (table["task"] == 60) & (table["seed"] == 1)
    ]
    assert again.accuracy[place, 2, 2, 1] == row["probe/accuracy_online"].item()
    assert 2 ** again.sharpness[place, 2, 1] == pytest.approx(row["onset/hessian/largest_eigenvalue"].item())
    assert again.function_change[place, 2, 1] == row["probe/function_change"].item()


@pytest.mark.parametrize(
    ("column", "value"), [("probe/accuracy_online", np.nan), ("onset/hessian/largest_eigenvalue", -1.0), ("seed", None)]
)
def test_a_seed_that_lacks_a_number_is_left_out_and_named(column, value):
    table = probes("cause", seeds=7)
    row = table.index[(table["arm"] == "layer_rescaling 1") & (table["seed"] == 4)][0]
    table = (
        table.drop(index=row)
        if value is None
        else table.assign(**{column: table[column].mask(table.index == row, value)})
    )
    (made,) = blocks(surgery_sweep(table))
    assert (made.seeds, made.left_out) == ((0, 1, 2, 3, 5, 6), (4,))
    assert np.isfinite(made.accuracy).all()
    assert "Left out, because they lack a number: seeds 4." in words(section_cause(surgery_sweep(table)))


def dose_sweep_without_onset():
    return replace(dose_sweep("neither", seeds=2), diagnostics=pd.DataFrame({"run_id": []}))


def test_trunks_are_judged_one_by_one():
    other = probes("confounder")
    two = probes("cause"), other.assign(run_id="other " + other["run_id"], scenario="patches")
    section = section_cause(surgery_sweep(*two))
    found = tables(section)
    assert found["cause_probes-1"]["answer"].tolist()[:2] == ["yes", "yes"]
    assert found["cause_probes-2"]["answer"].tolist()[:2] == ["no", "open"]
    assert set(found["cause_probes-2"]["run_id"]) == {" ".join(f"other run-{rate}" for rate in RATES), ""}


# --- Surgery ------------------------------------------------------------------------------------------------------------


def test_slopes_are_those_of_scipy_within_each_block():
    draw = draws()
    x, y = draw.normal(size=(5, 2, 3)), draw.normal(size=(5, 2, 3))
    found = surgery.slopes(x, y)
    square, low, high = surgery.parabolas(x, y)
    for place in np.ndindex(2, 3):
        own = x[:, *place], y[:, *place]
        assert found[place] == pytest.approx(stats.linregress(*own).slope)
        a, b, _ = np.polyfit(*own, 2)
        assert square[place] == pytest.approx(a)
        assert (low[place], high[place]) == pytest.approx((b + 2 * a * own[0].min(), b + 2 * a * own[0].max()))


def test_blocks_whose_sharpness_hardly_moves_are_left_out():
    made = rescaled(draws(), "cause", seeds=8)
    made.sharpness[1:, 2] = 4 + 0.01 * np.arange(5)[:, None]
    made.sharpness[1:, :, 3] = 4.0
    found = surgery.response(made)
    assert found.narrow == 8 + 3
    assert len(found.slope) == 7
    assert found.slope.mean() == pytest.approx(-0.02, abs=0.005)
    made.sharpness[:] = 4.0
    assert surgery.response(made) is None


def test_the_slope_of_a_seed_is_the_mean_over_blocks_and_rates():
    made = rescaled(draws(), "cause", seeds=8)
    found = surgery.response(made)
    levels = [
        [stats.linregress(made.sharpness[1:, b, 0], made.accuracy[1:, r, b, 0]).slope for b in range(4)]
        for r in range(3)
    ]
    assert found.slope[0] == pytest.approx(np.mean(levels))
    assert found.by_rate[0.01][0] == pytest.approx(np.mean(levels[1]))
    assert found.trend[0] == pytest.approx(stats.linregress(np.log10(RATES), np.mean(levels, axis=1)).slope)


@pytest.mark.parametrize(("bend", "is_u"), [(-0.02, True), (0.02, False), (0.0, False)])
def test_an_inverted_u_rises_at_the_flat_end_and_falls_at_the_sharp_end(bend, is_u):
    found = surgery.response(rescaled(draws(), "neither", bend=bend))
    assert found.is_inverted_u is is_u
    assert statistics.t_interval(found.curvature).mean == pytest.approx(bend, abs=0.002)


def test_other_measures_of_sharpness_have_their_own_slope():
    (made,) = blocks(surgery_sweep(probes("cause")))
    assert list(made.others) == ["onset/hessian/trace"]
    # half as many doublings, so twice the slope for each
    assert surgery.slope_in(made, "onset/hessian/trace") == pytest.approx(2 * surgery.response(made).slope)


def test_effects_stand_against_the_untouched_copy_and_a_displacement_of_the_same_length():
    (made,) = blocks(surgery_sweep(probes("cause")))
    found = {(effect.arm.name, effect.baseline.name): effect for effect in surgery.effects(made)}
    assert len(found) == len(made.arms) - 1 + len(LEVELS)
    own = found["layer_rescaling 1", "none"]
    place = [arm.name for arm in made.arms].index("layer_rescaling 1")
    differences = (made.accuracy[place] - made.accuracy[0]).mean(axis=(0, 1))
    assert own.outcome.interval.mean == pytest.approx(differences.mean())
    assert own.outcome.interval.high == pytest.approx(statistics.t_interval(differences).high)
    assert own.outcome.p == statistics.sign_flip_p(differences)
    assert own.sharpening.mean == pytest.approx((made.sharpness[place] - made.sharpness[0]).mean())
    assert found["layer_rescaling 1", "random_displacement 1"].outcome.interval.below(0)
    assert statistics.t_interval(surgery.norm_slope(made)).mean == pytest.approx(-0.0068, abs=0.001)


def test_each_operation_is_shown_on_each_task_as_the_mean_over_learning_rates():
    table = tables(section_cause(surgery_sweep(probes("cause"))))["cause_tasks"]
    (trunk,) = blocks(surgery_sweep(probes("cause")))
    shown = [place for place, arm in enumerate(trunk.arms) if place and not arm.undone]
    assert list(table["arm"]) == [trunk.arms[place].name for place in shown]
    for place, (_, row) in zip(shown, table.iterrows(), strict=True):
        differences = (trunk.accuracy[place] - trunk.accuracy[0]).mean(axis=0)  # [boundary, seed]
        for task, of_task in zip(trunk.boundaries, differences, strict=True):
            assert row[f"task_{task}"] == pytest.approx(of_task.mean())
            assert row[f"task_{task}_high"] == pytest.approx(statistics.t_interval(of_task).high)


# --- The gate -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda table: probes("cause", controls=0.002), "undone changed accuracy at learning rate 0.003, or may have"),
        (lambda table: table[~table["undone"]], "there is no probe of undone rescaling"),
        (lambda table: table[table["operation"] != "unit_permutation"], "there is no probe of permuted units"),
        (lambda table: table.assign(**{"probe/function_change": 0.01}), "changed a logit by 0.01"),
        (lambda table: table.assign(**{"probe/function_change": np.nan}), "changed logits by an unknown amount"),
    ],
)
def test_where_negative_controls_fail_nothing_else_is_shown(spoil, reason):
    section = section_cause(surgery_sweep(spoil(probes("cause"))))
    assert reason in words(section)
    assert "nothing is shown" in words(section)
    assert "H1" not in words(section)
    assert [block.name for block in section.blocks] == ["cause_controls"]


def test_one_control_at_one_learning_rate_shuts_the_gate():
    table = probes("cause")
    off = (table["arm"] == "unit_permutation") & (table["lr"] == 0.03)
    table["probe/accuracy_online"] += 0.0011 * off
    gate = surgery.gate(blocks(surgery_sweep(table))[0])
    assert [(control.arm, control.rate) for control in gate.controls if not control.holds] == [
        ("unit_permutation", 0.03)
    ]
    assert not gate.is_open
    assert len(gate.controls) == 6 * 3


# --- One line or many ---------------------------------------------------------------------------------------------------


def test_without_errors_in_x_the_line_is_weighted_least_squares_and_q_is_cochrans():
    x = np.repeat(np.array([[-2.0], [-1.0], [0.5], [1.0]]), 10, axis=1)
    y = 0.03 * x + draws().normal(0, 0.01, x.shape) * np.array([[1], [2], [3], [1]])
    line = line_through_zero(x, y)
    weights = 1 / ((y - line.slope * x) ** 2).mean(axis=1)
    assert line.slope == pytest.approx((weights * x[:, 0] * y.mean(axis=1)).sum() / (weights * x[:, 0] ** 2).sum())
    distances = y.mean(axis=1) - line.slope * x[:, 0]
    assert line.q == pytest.approx((distances**2 / (y.var(axis=1, ddof=1) / 10)).sum())
    assert [each.mean for each in line.distances] == pytest.approx(distances)
    assert line.freedom == 3
    assert line.low < 0.03 < line.high


def test_two_ways_on_a_line_have_no_heterogeneity_and_two_beside_it_have():
    draw = draws()
    noise = draw.normal(0, 0.001, (2, 10))
    x = np.array([[-1.0], [2.0]]) + draw.normal(0, 0.05, (2, 10))
    on, beside = line_through_zero(x, 0.02 * x + noise), line_through_zero(x, 0.02 * np.abs(x) + noise)
    assert on.p > 0.05
    assert on.i_squared < beside.i_squared - 0.4
    assert beside.p <= 0.01
    assert np.isnan(curve_p(x, 0.02 * np.abs(x) + noise))


def test_too_few_seeds_leave_the_line_without_an_interval():
    line = line_through_zero(*ways(draws(), "cause", seeds=5))
    assert np.isnan(line.low)
    assert np.isnan(line.high)
    assert line.slope == pytest.approx(-0.02, abs=0.003)


@pytest.mark.parametrize(("x", "y"), [((1, 9), (1, 9)), ((3, 2), (3, 2)), ((3, 9), (3, 8))])
def test_a_line_needs_two_ways_and_three_seeds(x, y):
    with pytest.raises(ValueError, match="A line needs two ways and three seeds at least"):
        line_through_zero(np.ones(x), np.ones(y))


def test_changes_must_be_finite():
    with pytest.raises(ValueError, match="must be finite"):
        curve_p(np.full((4, 9), np.nan), np.ones((4, 9)))


# --- Doses --------------------------------------------------------------------------------------------------------------


def test_arms_are_told_by_their_settings():
    first, second = dosing.experiments(dose_sweep("neither", seeds=2))
    assert first.baseline.network == "permuted_pixels"
    assert second.baseline.network == "permuted_pixels, gelu"
    assert {held: [run.rho for run in runs] for held, runs in first.doses.items()} == {
        held: list(RHO) for held in dosing.CONDITIONS
    }
    assert list(second.doses) == [dosing.NOTHING, dosing.BOTH]
    assert [way.name for way in first.ways] == [
        *(f"sam {rho:g}" for rho in RHO if rho),
        "friendly_sam 0.1",
        "random_sam 5",
        "batch size 64",
        "learning rate 0.005",
    ]
    assert len(first.ways) == len(WAYS)


def test_the_space_has_these_arms():
    space = search_spaces.load("dose_response")
    plan = make_plan(space, name="x")
    runs = [
        {"run_id": f"{group.method} {n}", "scenario": group.scenario, **plan.trial_config(group, point).flat()}
        for group in plan.groups
        for n, point in enumerate(group.points)
    ]
    made = [dosing.arm(run) for run in runs]
    assert None not in made
    first, second = dosing.experiments_of(made)
    arms = [run.run_id for experiment in (first, second) for doses in experiment.doses.values() for run in doses]
    assert len(arms) == len(set(arms)) == 49
    assert len(first.ways) == 6 + 7
    assert len(runs) == 49 + 7
    assert {run["optimizer/name"] for run in runs if not run.get("optimizer/rho")} == {"sgd"}


def test_other_settings_are_no_arms():
    base = {"run_id": "a", "scenario": "s", "optimizer/name": "sam", "optimizer/rho": 0.1, "optimizer/lr": 0.1}
    base |= {"training/batch_size": 16, "model/layer_norm": "none"}
    assert dosing.arm(base).held == dosing.NOTHING
    for other in (
        {"optimizer/momentum": 0.9},
        {"optimizer/schedule": "linear"},
        {"interventions/l2/strength": 0.1},
        {"interventions/redo/every": 10, "interventions/fire/every": 1},
        {"model/layer_norm": "plain"},
        {"optimizer/name": "adamw", "optimizer/rho": np.nan},
    ):
        assert dosing.arm({**base, **other}) is None


def test_slopes_in_rho_are_within_seeds_and_for_a_tenth():
    sweep = dose_sweep("confounder")
    first, _ = dosing.experiments(sweep)
    runs = first.doses[dosing.NOTHING]
    late = [sweep.accuracy(run.run_id)[3].iloc[-2:].mean() for run in runs]
    assert dosing.dose_slopes(sweep, runs)[3] == pytest.approx(stats.linregress(RHO, late).slope / 10)


def test_sharpness_is_the_mean_logarithm_over_the_last_half():
    sweep = dose_sweep("neither", seeds=3)
    first, _ = dosing.experiments(sweep)
    (rows,) = [rows for run_id, rows in sweep.diagnostics.groupby("run_id") if run_id == first.baseline.run_id]
    late = rows[(rows["task"] >= 10) & (rows["seed"] == 1)]["onset/hessian/largest_eigenvalue"]
    assert dosing.late_sharpness(sweep, first.baseline)[1] == pytest.approx(np.log2(late).mean())
    kept, x, y = dosing.changes(sweep, first.baseline, first.ways)
    assert kept == list(first.ways)
    assert x.shape == y.shape == (10, 3)
    assert x[5] == pytest.approx(dosing.late_sharpness(sweep, kept[5]) - dosing.late_sharpness(sweep, first.baseline))


# --- Verdicts -----------------------------------------------------------------------------------------------------------


def test_the_family_is_four_whatever_was_tested():
    slopes = np.full(10, 0.02) + draws().normal(0, 0.001, 10)
    (h1, *others) = answered({"H1": slope_test(slopes)})
    assert h1.p_adjusted == pytest.approx(4 * 2 / 2**10)
    assert h1.answer == "yes"
    assert [(verdict.answer, verdict.p_adjusted) for verdict in others] == [("not tested", 1.0)] * 3
    assert answered({"H1": slope_test(slopes[:7])})[0].answer == "open"
    assert answered({"H1": slope_test(slopes[:8])})[0].answer == "yes"


@pytest.mark.parametrize(
    ("name", "mean", "spread", "answer"),
    [
        ("H1", 0.02, 0.001, "yes"),
        ("H1", 0.001, 0.0001, "no"),
        ("H1", 0.004, 0.008, "open"),
        ("H2", 0.02, 0.001, "yes"),
        ("H2", 0.0, 0.001, "open"),
        ("H4", 0.02, 0.001, "yes"),
        ("H4", -0.02, 0.001, "yes"),
        ("H4", 0.006, 0.003, "open"),
        ("H4", 0.001, 0.001, "no"),
    ],
)
def test_answers_follow_margin_and_p(name, mean, spread, answer):
    slopes = mean + spread * np.array([-1, 1, -0.5, 0.5, 0.2, -0.2, 0.9, -0.9, 0.1, -0.1])
    assert {verdict.hypothesis: verdict.answer for verdict in answered({name: slope_test(slopes)})}[name] == answer


def test_a_slope_that_every_learning_rate_shares_is_not_through_step_sizes():
    same = np.linspace(-0.001, 0.001, 10)
    assert answered({"H1": slope_test(same + 0.02), "H2": slope_test(same)})[1].answer == "no"
    assert answered({"H1": slope_test(same), "H2": slope_test(same)})[1].answer == "open"


@pytest.mark.parametrize(("world", "answer"), [("cause", "yes"), ("confounder", "no"), ("neither", "open")])
def test_one_line_or_many(world, answer):
    verdict = answered({"H3": line_test(*ways(np.random.default_rng(2), world))})[2]
    assert verdict.answer == answer
    assert f"H3, all ways to change sharpness lie on one line: *{answer}*" in sentence(verdict)
    assert "Cochran's Q" in sentence(verdict)


def test_fewer_than_two_ways_or_three_seeds_test_no_line():
    assert line_test(np.empty((0, 0)), np.empty((0, 0))) is None
    assert line_test(*ways(draws(), "cause", seeds=2)) is None


# --- The page -----------------------------------------------------------------------------------------------------------


def test_a_sweep_without_probes_and_doses_has_no_section():
    assert section_cause(dose_sweep_without_onset()) is None


def test_every_hypothesis_has_its_sentence_and_every_number_its_runs():
    section = section_cause(dose_sweep("confounder"))
    for sentence_of in (
        "H1, sharpness at the onset, set by experiment, changes the next task's online accuracy: *not tested* by this sweep",
        "H2, it does so only through step sizes: *not tested* by this sweep; `study run surgery` does.",
        "H3, all ways to change sharpness lie on one line: *no*. Late accuracy for a doubling",
        "H4, rho has a direct effect when norms and idle units are held: *no*. Late accuracy for 0.1 of rho with both held",
    ):
        assert sentence_of in words(section)
    found = tables(section)
    assert list(found) == ["cause_ways", "cause_doses", "cause_dose_slopes"]
    assert len(found["cause_ways"]) == 10
    assert len(found["cause_dose_slopes"]) == 7
    sweep = dose_sweep("confounder")
    known = set(sweep.runs["run_id"])
    for frame in found.values():
        assert {run for row in frame["run_id"] for run in row.split()} <= known
    assert needed(sweep) == known
    assert [block.name for block in section.blocks if not block.is_table] == ["cause-doses"]


def test_ways_without_sharpness_are_no_points_and_the_slopes_remain():
    sweep = dose_sweep("cause", seeds=3)
    first, _ = dosing.experiments(sweep)
    kept = sweep.diagnostics[sweep.diagnostics["run_id"] == first.baseline.run_id]
    section = section_cause(replace(sweep, diagnostics=kept))
    assert "H3, all ways to change sharpness lie on one line: *not tested*" in words(section)
    assert list(tables(section)) == ["cause_doses", "cause_dose_slopes"]


def test_doses_under_one_condition_alone_are_no_experiment():
    sweep = dose_sweep("cause", seeds=2)
    held = [name for name in sweep.runs if name.startswith("interventions/")]
    plain = sweep.runs[sweep.runs[held].isna().all(axis=1)]
    assert dosing.experiments(replace(sweep, runs=plain)) == []


def test_fixtures_hold_what_is_held():
    late = doses(np.random.default_rng(0), "confounder", (dosing.NORMS, dosing.IDLE_UNITS))
    assert np.ptp(late.mean(axis=1)) < 0.01
