"""The paper's claims: what reproduces, contradicts and leaves them open, how often they err, and what they say of it."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from analysis_fixtures import SETTINGS, curve, evidence_of, same_everywhere
from hypothesis import given
from hypothesis import strategies as st

from analysis import statistics
from analysis.paper import claims
from analysis.paper.claims import ALPHA, MARGIN, findings
from analysis.paper.evidence import PAIRS, PIXELS, Setting
from analysis.paper.verdicts import Effect
from analysis.statistics import Interval

C1_TO_C7 = ["C1", "C2", "C3", "C4", "C5", "C6", "C7"]
REPRODUCING = {
    "C1": {},
    "C2": {},
    "C3": {(PIXELS, "sgd", 0.001): (0.93, 0.93)},
    "C4": {(PIXELS, "sam", 0.01): (0.9, 0.85), (PIXELS, "gnp", 0.01): (0.9, 0.85)},
    "C5": {(PAIRS, "sgd", 0.01): (0.9, 0.93)},
    "C6": {(PAIRS, "sam", 0.01): (0.9, 0.87), (PAIRS, "sam", 0.001): (0.9, 0.87)},
    "C7": {(PAIRS, method, lr): (0.9, 0.85) for method in ("sgd", "sam") for lr in (0.01, 0.001)},
}
CONTRADICTING = {
    "C1": {(PAIRS, "sgd", 0.001): (0.9, 0.85)},
    "C2": {(PIXELS, "gnp", 0.001): (0.85, 0.85)},
    "C3": {(PIXELS, "gnp", 0.01): (0.93, 0.93)},
    "C4": {(PIXELS, "sam", 0.01): (0.9, 0.85)},
    "C5": {(PAIRS, "sgd", 0.001): (0.9, 0.87)},
    "C6": {(PAIRS, "sam", 0.001): (0.9, 0.85)},
    "C7": {(PAIRS, "gnp", 0.01): (0.9, 0.88)},
}
ENDS_AT_MARGIN = {
    "C1": {
        (PIXELS, "sgd", 0.01): (0.9, 0.9 - MARGIN),
        (PIXELS, "sam", 0.01): (0.95, 0.95),
        (PIXELS, "gnp", 0.01): (0.95, 0.9),
    },
    "C2": {(PIXELS, "sgd", 0.001): (0.9 + MARGIN, 0.9 + MARGIN)},
    "C3": {},
    "C4": {(PIXELS, "sam", 0.01): (0.9, 0.9 - MARGIN), (PIXELS, "gnp", 0.01): (0.9, 0.8)},
    "C5": {(PAIRS, "sgd", 0.001): (0.9, 0.9 - MARGIN)},
    "C6": {(PAIRS, "sam", 0.001): (0.9, 0.9 - MARGIN), (PAIRS, "sam", 0.01): (0.9, 0.8)},
    "C7": {},
}
"""Truths on the border of each claim: the other effects are far inside."""


def study(changes, noise=0.002, lanes=10, draw=None, tasks=20, settings=SETTINGS):
    """The twelve settings at 0.9 throughout, but for (start, end) of some."""
    draw = draw or np.random.default_rng(1)
    table = {Setting(*key): ends for key, ends in changes.items()}
    return {
        setting: curve(tasks, *table.get(setting, (0.9, 0.9)), lanes=lanes, noise=noise, draw=draw)
        for setting in settings
    }


def judged(claim, accuracy, **named):
    (found,) = (found for found in findings(evidence_of(accuracy, **named)) if found.claim == claim)
    return found


def test_there_are_seven_claims_each_with_a_statement_and_a_criterion():
    found = findings(evidence_of({}))
    assert [finding.claim for finding in found] == C1_TO_C7
    assert len({finding.statement for finding in found} | {finding.criterion for finding in found}) == 14
    assert {finding.verdict for finding in found} == {finding.here for finding in found} == {"undecided"}


@pytest.mark.parametrize("claim", C1_TO_C7)
def test_a_claim_is_reproduced_by_data_that_show_it(claim):
    found = judged(claim, study(REPRODUCING[claim]))
    assert (found.verdict, found.here) == ("reproduced", "reproduced")
    assert {effect.outcome for effect in found.effects} == {"holds"}
    assert found.reason == f"all {len(found.effects)} effects lie within their bounds, 10 seeds."
    assert {effect.lanes_needed for effect in found.effects} == {None}


@pytest.mark.parametrize("claim", C1_TO_C7)
def test_a_claim_is_contradicted_by_data_that_show_the_opposite(claim):
    found = judged(claim, study(CONTRADICTING[claim]))
    assert (found.verdict, found.here) == ("contradicted", "contradicted")
    fails = sum(effect.outcome == "fails" for effect in found.effects)
    assert fails >= 1
    lie = "lies" if fails == 1 else "lie"
    assert found.reason == f"{fails} of {len(found.effects)} effects {lie} beyond the bounds, 10 seeds."


@pytest.mark.parametrize("claim", C1_TO_C7)
def test_a_claim_is_left_open_by_noise(claim):
    found = judged(claim, study(REPRODUCING[claim], noise=0.3))
    assert found.verdict == found.here == "undecided"
    assert "too close to a bound for 10 seeds; about " in found.reason
    assert found.reason.endswith(" would have an even chance of deciding it, if estimates and spread stay as they are.")


def test_which_effects_a_claim_looks_at():
    table = {finding.claim: finding for finding in findings(evidence_of(study({})))}
    assert {claim: len(finding.effects) for claim, finding in table.items()} == dict(
        zip(C1_TO_C7, (8, 6, 5, 2, 2, 2, 8), strict=True)
    )
    labels = [effect.label for effect in table["C1"].effects]
    assert "decline: sgd lr=0.001 on class_pairs minus gnp lr=0.001 on class_pairs" in labels
    assert "mean accuracy: sam lr=0.01 on permuted_pixels minus gnp lr=0.01 on permuted_pixels" in [
        effect.label for effect in table["C2"].effects
    ]
    best = "sgd lr=0.001 on permuted_pixels"
    assert all(effect.label.startswith(f"mean accuracy: {best} minus ") for effect in table["C3"].effects)
    assert f"{best} minus {best}" not in " ".join(effect.label for effect in table["C3"].effects)
    bounds = {claim: {(e.low, e.high) for e in finding.effects} for claim, finding in table.items()}
    assert bounds == {
        "C1": {(-math.inf, MARGIN)},
        "C2": {(-MARGIN, MARGIN)},
        "C3": {(0.0, math.inf)},
        "C4": {(MARGIN, math.inf)},
        "C5": {(-math.inf, MARGIN)},
        "C6": {(MARGIN, math.inf)},
        "C7": {(0.0, math.inf), (-MARGIN, math.inf)},
    }
    assert MARGIN == 0.01


def test_an_effect_is_the_paired_difference_of_plain_numpy():
    accuracy = study({(PAIRS, "gnp", 0.01): (0.95, 0.91)}, noise=0.02)
    found = judged("C7", accuracy)
    sgd, gnp = (accuracy[Setting(PAIRS, method, 0.01)].to_numpy() for method in ("sgd", "gnp"))
    lanes = (sgd[:2].mean(0) - sgd[-2:].mean(0)) - (gnp[:2].mean(0) - gnp[-2:].mean(0))
    effect = found.effects[0]
    assert effect.interval.mean == pytest.approx(lanes.mean(), abs=1e-11)
    half = statistics.t_interval(lanes, 1 - 0.05 / 8)
    assert (effect.interval.low, effect.interval.high) == pytest.approx((half.low, half.high), abs=1e-11)
    assert effect.run_ids == ("run of sgd lr=0.01 on class_pairs", "run of gnp lr=0.01 on class_pairs")


def test_the_intervals_of_a_claim_hold_together():
    for finding in findings(evidence_of(study({}))):
        provisos = [effect.proviso for effect in finding.effects if effect.proviso]
        assert len(provisos) == (8 if finding.claim == "C1" else 0)
        levels = {interval.level for interval in (*(effect.interval for effect in finding.effects), *provisos)}
        assert levels == {1 - ALPHA / (len(finding.effects) + len(provisos))}


def test_a_method_that_never_learns_keeps_no_plasticity():
    """It does not decline, but at chance there is nothing to lose."""
    never = {(PAIRS, "gnp", lr): (0.5, 0.5) for lr in (0.01, 0.001)}
    falling = {(PAIRS, method, lr): (0.95, 0.92) for method in ("sgd", "sam") for lr in (0.01, 0.001)}
    accuracy = study({**falling, **never})
    assert judged("C7", accuracy).verdict == "contradicted"
    found = judged("C1", accuracy)
    assert found.verdict == "reproduced"
    effect = next(e for e in found.effects if "gnp lr=0.01 on class_pairs" in e.label)
    assert effect.interval.low > MARGIN  # it does decline less
    assert effect.proviso.high < -MARGIN  # but learns the end worse
    learnt = study({**falling, **dict.fromkeys(never, (0.92, 0.92))})
    assert judged("C1", learnt).verdict == "contradicted"
    assert judged("C7", learnt).verdict == "reproduced"


def test_whether_the_end_is_learnt_as_well_must_be_sure_before_a_smaller_decline_counts():
    falling = {(PAIRS, "sgd", 0.01): (0.95, 0.92)}
    accuracy = study({**falling, (PAIRS, "gnp", 0.01): (0.92 - MARGIN, 0.92 - MARGIN)})
    found = judged("C1", accuracy)
    effect = next(e for e in found.effects if e.label.endswith("gnp lr=0.01 on class_pairs"))
    assert (found.verdict, effect.outcome) == ("undecided", "open")
    assert effect.proviso.low < -MARGIN < effect.proviso.high
    assert effect.lanes_needed is not None


@pytest.mark.parametrize("lanes", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("claim", C1_TO_C7)
def test_a_verdict_needs_six_lanes(claim, lanes):
    found = judged(claim, study(REPRODUCING[claim], lanes=lanes, noise=1e-6))
    if lanes >= 6:
        assert found.verdict == "reproduced"
    else:
        assert found.verdict == found.here == "undecided"
        seeds = "1 seed" if lanes == 1 else f"{lanes} seeds"
        assert found.reason == f"{seeds} cannot support a verdict; at least 6 are needed, and the paper has 10."
        assert {effect.interval.lanes for effect in found.effects} == {lanes}


def test_the_setting_with_the_fewest_lanes_decides_whether_there_are_enough():
    accuracy = study(REPRODUCING["C6"])
    short = Setting(PAIRS, "sam", 0.001)
    accuracy[short] = accuracy[short][list(range(5))]
    assert judged("C6", accuracy).reason.startswith("5 seeds cannot support a verdict")
    assert judged("C5", accuracy).verdict == "reproduced"


@pytest.mark.parametrize("claim", C1_TO_C7)
def test_a_missing_setting_is_named_and_leaves_no_verdict(claim):
    whole = study(CONTRADICTING[claim])
    used = [setting for setting in SETTINGS if str(setting) in " ".join(e.label for e in judged(claim, whole).effects)]
    for gone in used:
        found = judged(claim, {setting: table for setting, table in whole.items() if setting != gone})
        assert found.verdict == found.here == "undecided"
        assert found.reason == (f"no finished trial of {gone}; `study run paper_grid` has all of the paper's settings.")
        assert len(found.effects) < len(judged(claim, whole).effects)
    for other in set(SETTINGS) - set(used):
        rest = {setting: table for setting, table in whole.items() if setting != other}
        assert judged(claim, rest).verdict == "contradicted"


def test_a_missing_setting_is_named_once():
    found = judged("C2", {})
    assert found.reason.count("sgd lr=0.01 on permuted_pixels") == 1
    assert found.effects == ()


@given(st.permutations(range(10)), st.sets(st.integers(0, 9), max_size=3), st.integers(0, 10**6))
def test_lanes_are_paired_by_their_seeds_whatever_the_order_of_the_columns(order, lost, seed):
    accuracy = study({}, noise=0.02, draw=np.random.default_rng(seed))
    kept = [column for column in range(10) if column not in lost]
    changed = {
        setting: table[[column for column in order if column in kept]] if setting.method != "sgd" else table
        for setting, table in accuracy.items()
    }
    expected = {setting: table[kept] for setting, table in accuracy.items()}
    pairs = zip(judged("C1", changed).effects, judged("C1", expected).effects, strict=True)
    for found, plain in pairs:
        assert found.interval.lanes == 10 - len(lost)
        np.testing.assert_allclose(
            dataclasses.astuple(found.interval), dataclasses.astuple(plain.interval), rtol=0, atol=1e-11
        )


def test_settings_without_a_common_seed_cannot_be_compared_and_say_so():
    accuracy = study(REPRODUCING["C7"])
    for setting, table in accuracy.items():
        if setting.method == "gnp":
            accuracy[setting] = table.rename(columns=lambda seed: seed + 100)
    found = judged("C7", accuracy)
    assert found.reason.startswith("0 seeds cannot support a verdict")
    assert all(math.isnan(effect.interval.mean) and effect.outcome == "open" for effect in found.effects)


@pytest.mark.parametrize("claim", C1_TO_C7)
@pytest.mark.parametrize("changes", [REPRODUCING, CONTRADICTING])
def test_a_departure_from_the_paper_withholds_the_verdict_but_says_what_holds_here(claim, changes):
    accuracy = study(changes[claim])
    plain, far = judged(claim, accuracy), judged(claim, accuracy, stated=("10 tasks instead of 100",))
    assert far.verdict == "undecided"
    assert far.here == plain.verdict != "undecided"
    assert far.effects == plain.effects
    assert far.reason == (
        "this is not the paper's experiment, `study run paper_grid` is; "
        f"by its criterion it is {plain.verdict} here: {plain.reason}"
    )


@pytest.mark.parametrize("claim", C1_TO_C7)
def test_a_departure_from_an_assumption_withholds_nothing(claim):
    accuracy = study(REPRODUCING[claim])
    assert judged(claim, accuracy, assumed=("batches of 17",)) == judged(claim, accuracy)


def test_diverged_seeds_are_named_where_they_count():
    diverged = {Setting(PAIRS, "sam", 0.01): 3}
    table = {finding.claim: finding.reason for finding in findings(evidence_of(study({}), diverged=diverged))}
    told = "; diverged seeds, which count at chance accuracy: 3 of sam lr=0.01 on class_pairs."
    assert {claim for claim, reason in table.items() if reason.endswith(told)} == {"C1", "C6", "C7"}
    assert all(told in reason or "diverged" not in reason for reason in table.values())


def effect(low, high, bounds, mean=None):
    interval = Interval((low + high) / 2 if mean is None else mean, low, high, 10, 0.95)
    return Effect("made", interval, *bounds, None, ())


@pytest.mark.parametrize(
    ("low", "high", "bounds", "outcome"),
    [
        (-0.005, 0.005, (-0.01, 0.01), "holds"),
        (-0.01, 0.005, (-0.01, 0.01), "open"),
        (-0.005, 0.01, (-0.01, 0.01), "open"),
        (0.01, 0.02, (-0.01, 0.01), "open"),
        (0.0101, 0.02, (-0.01, 0.01), "fails"),
        (-0.02, -0.0101, (-0.01, 0.01), "fails"),
        (-0.02, 0.02, (-0.01, 0.01), "open"),
        (0.001, 0.5, (0.0, math.inf), "holds"),
        (0.0, 0.5, (0.0, math.inf), "open"),
        (-0.5, -0.001, (0.0, math.inf), "fails"),
        (-0.5, 0.009, (-math.inf, 0.01), "holds"),
        (0.011, 0.5, (-math.inf, 0.01), "fails"),
        (math.nan, math.nan, (-math.inf, 0.01), "open"),
    ],
)
def test_an_effect_holds_within_its_bounds_fails_beyond_them_and_is_open_otherwise(low, high, bounds, outcome):
    assert effect(low, high, bounds).outcome == outcome


def test_no_effect_is_both_open_and_without_a_lean_unless_its_mean_is_inside():
    assert effect(-0.01, 0.05, (-0.01, 0.01)).leans_to_fail
    assert not effect(-0.02, 0.02, (-0.01, 0.01)).leans_to_fail
    assert not effect(0.02, 0.05, (-0.01, 0.01)).leans_to_fail


def test_lanes_without_any_spread_at_the_border_decide_nothing():
    found = judged("C5", study({(PAIRS, "sgd", 0.01): (0.99, 0.98)}, noise=0))
    assert found.verdict == "undecided"
    assert found.reason == (
        "1 of 2 effects lies too close to a bound for 10 seeds; "
        "it lies so close that no feasible number of seeds would decide it."
    )
    found = judged("C6", study({(PAIRS, "sam", 0.01): (0.99, 0.98), (PAIRS, "sam", 0.001): (0.99, 0.98)}, noise=0))
    assert found.verdict == "undecided"


def test_rounding_decides_nothing():
    accuracy = study({}, noise=0.03)
    first = accuracy[Setting(PIXELS, "sgd", 0.001)]
    for setting in accuracy:
        nudged = pd.DataFrame(np.asfortranarray(first.to_numpy() - 2e-16), columns=first.columns)
        accuracy[setting] = first if setting == Setting(PIXELS, "sgd", 0.001) else nudged
    found = judged("C3", accuracy)
    assert [effect.interval.mean for effect in found.effects] == [0] * 5
    assert found.verdict == "undecided"


def declining(*mean_and_spread):
    """Evidence on C5: SGD's decline at either learning rate, ten lanes of that mean and (half above, half below) spread."""
    accuracy = study({}, noise=0)
    for lr, (mean, spread) in zip((0.01, 0.001), mean_and_spread, strict=True):
        table = curve(20, 0.9, 0.9, lanes=10)
        table.iloc[-2:] -= mean + spread * np.array([-1, 1] * 5)
        accuracy[Setting(PAIRS, "sgd", lr)] = table
    return accuracy


def test_one_effect_that_would_fail_is_enough_to_contradict():
    found = judged("C5", declining((0.04, 0.05), (0.014, 0.05)))
    needed = [effect.lanes_needed for effect in found.effects]
    assert [effect.outcome for effect in found.effects] == ["open", "open"]
    assert needed == [statistics.lanes_needed(0.05 * math.sqrt(10 / 9), gap, 0.975) for gap in (0.03, 0.004)]
    assert found.reason == (
        "2 of 2 effects lie too close to a bound for 10 seeds; "
        f"about {needed[0]} would have an even chance of deciding it, if estimates and spread stay as they are."
    )


def test_an_effect_that_would_hold_cannot_contradict():
    found = judged("C5", declining((0.009, 0.05), (0.04, 0.05)))
    assert f"about {found.effects[1].lanes_needed} would have an even chance of deciding it" in found.reason
    assert found.effects[0].lanes_needed > found.effects[1].lanes_needed


def test_to_hold_takes_the_seeds_of_every_open_effect():
    found = judged("C5", declining((-0.01, 0.05), (0.005, 0.05)))
    needed = [effect.lanes_needed for effect in found.effects]
    assert needed[0] < needed[1]
    assert f"about {needed[1]} would have an even chance of deciding it" in found.reason


def test_where_no_number_of_seeds_would_tell_it_says_so():
    found = judged("C5", declining((-0.01, 0.05), (0.01 - 1e-9, 0.05)))
    assert found.reason.endswith("; one lies so close that no feasible number of seeds would decide it.")
    found = judged("C5", declining((0.0, 0.001), (0.01 + 1e-9, 0.05)))
    assert found.reason.endswith("; it lies so close that no feasible number of seeds would decide it.")
    found = judged("C5", declining((0.01 + 1e-9, 0.05), (0.04, 0.05)))
    assert f"about {found.effects[1].lanes_needed} would have an even chance of deciding it" in found.reason


def shares(claim, changes, studies=500, lanes=10, noise=0.02, seed=0):
    """How often a claim is reproduced and how often contradicted in simulated studies."""
    draw = np.random.default_rng(seed)
    judge = getattr(claims, claim.lower())
    used = {run for effect in judge(evidence_of(study(changes))).effects for run in effect.run_ids}
    settings = [setting for setting in SETTINGS if f"run of {setting}" in used]
    simulated = (study(changes, noise, lanes, draw, 3, settings) for _ in range(studies))
    verdicts = [judge(evidence_of(accuracy)).verdict for accuracy in simulated]
    return verdicts.count("reproduced") / studies, verdicts.count("contradicted") / studies


def most(rate, studies=500):
    """What a share with that chance exceeds in one of 2000 simulations."""
    from scipy import stats

    return stats.binom.ppf(1 - 0.0005, studies, rate) / studies


@pytest.mark.parametrize("claim", C1_TO_C7)
def test_at_the_border_of_a_claim_wrong_verdicts_are_rare(claim):
    """Effects lie exactly at a bound, where either verdict is wrong: each comes from one side, which has half of 5 %."""
    reproduced, contradicted = shares(claim, ENDS_AT_MARGIN[claim])
    assert reproduced <= most(0.025)
    assert contradicted <= most(0.025)
    assert reproduced + contradicted > 0 or claim == "C1"  # 16 intervals: each side errs once in 600 studies


def test_without_any_effect_wrong_verdicts_are_rare():
    """No method matters and nothing declines: C1, C2 and C5 are true, the others are not."""
    draw = np.random.default_rng(7)
    wrong = {"C1": 0, "C2": 0, "C3": 0, "C4": 0, "C5": 0, "C6": 0, "C7": 0}
    false = {claim: "contradicted" if claim in ("C1", "C2", "C5") else "reproduced" for claim in wrong}
    for _ in range(500):
        for finding in findings(evidence_of(same_everywhere(noise=0.02, draw=draw, tasks=3))):
            wrong[finding.claim] += finding.verdict == false[finding.claim]
    assert max(wrong.values()) / 500 <= 0.05
    assert sum(wrong.values()) / 500 <= 0.05


@pytest.mark.parametrize("truth", [0.0, 0.004, 0.02])
def test_the_seeds_said_to_be_needed_decide_in_about_half_of_all_studies_and_twice_as_many_nearly_always(truth):
    level, spread = 0.975, 0.02
    needed = statistics.lanes_needed(spread, truth - MARGIN, level)
    draw = np.random.default_rng(5)

    def decided(lanes):
        outcomes = []
        for values in draw.normal(truth, spread, (400, lanes)):
            found = Effect("made", statistics.t_interval(values, level), -math.inf, MARGIN, None, ())
            outcomes.append(found.outcome != "open")
        return np.mean(outcomes)

    assert 0.35 < decided(needed) < 0.65
    assert decided(2 * needed) > 0.75
    assert decided(max(2, needed // 3)) < 0.3
