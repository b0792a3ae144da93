"""What a setting is called: by its label, or by its own name; never two settings by one name."""

from dataclasses import replace

import pytest
from analysis_fixtures import curve, framed, paper_trial

from analysis import settings
from analysis.figures import heat_maps
from analysis.paper.evidence import PIXELS, Setting
from analysis.report.search import section_search
from analysis.settings import describe
from study.config import EARLIER_LABELS


@pytest.mark.parametrize(
    ("name", "label", "role"),
    [
        ("optimizer/lr", "learning rate lr (1)", "learning rate"),
        ("optimizer/rho", "rho (length in weight space)", "sharpness"),
        ("optimizer/lambda", "lambda (1)", "sharpness"),
        ("optimizer/r", "r (length in weight space)", "other"),
        ("training/batch_size", "batch_size", "other"),
        ("size", "size", "other"),
    ],
)
def test_a_setting_has_a_label_and_a_role(name, label, role):
    assert (describe(name).axis, describe(name).role) == (label, role)
    assert describe(name, {}) == describe(name), "a plan from before plans had labels"


def test_the_labels_of_a_plan_are_those_of_its_parts():
    plan = {"labels": {"optimizer/radius": {"short": "R", "unit": "cm", "role": "sharpness", "zero": "off"}}}
    assert describe("optimizer/radius", plan).axis == "R (cm)"
    assert describe("optimizer/rho", plan).role == "other", "no part of this plan declares it"


def test_two_settings_never_share_a_name():
    names = ["optimizer/decay", "interventions/decay", "optimizer/lr"]
    assert settings.labels(names) == {
        "optimizer/decay": "optimizer/decay",
        "interventions/decay": "interventions/decay",
        "optimizer/lr": "learning rate lr (1)",
    }
    assert settings.short_names(names)["optimizer/lr"] == "lr"


RADIUS = {"short": "R", "unit": "cm", "role": "sharpness", "zero": ""}


def grid_of(method, points, **described):
    """A sweep of one method over a grid of points, with SGD at two learning rates beside."""
    plain = [{"optimizer/lr": lr} for lr in (0.1, 0.2)]
    trials = [
        paper_trial(Setting(PIXELS, name, point["optimizer/lr"]), curve(4).to_numpy(), **point)
        for name, points in (("sgd", plain), (method, points))
        for point in points
    ]
    groups = [
        {"scenario": PIXELS, "method": name, "trials": len(points), "points": points, "distributions": {}}
        for name, points in (("sgd", plain), (method, points))
    ]
    sweep = framed(trials, groups=groups)
    labels = {name: label.plain() for name, label in EARLIER_LABELS.items()} | described
    return replace(sweep, plan={**sweep.plan, "labels": labels})


def maps_of(sweep, monkeypatch):
    """The heat maps of a sweep's report as they are handed to the figure."""
    drawn = []
    monkeypatch.setattr(heat_maps, "heat_maps", lambda path, title, maps, size: drawn.extend(maps))
    for picture in section_search(sweep).blocks:
        if picture.name.startswith("heat_maps"):
            picture.draw(None, "wide")
    return drawn


def test_a_new_methods_sharpness_has_heat_maps_once_its_setting_is_described(monkeypatch):
    points = [
        {"optimizer/lr": lr, "interventions/radius": radius, "interventions/kind": kind}
        for kind in ("soft", "hard")
        for lr in (0.1, 0.2)
        for radius in (0.5, 1.0)
    ]
    maps = maps_of(grid_of("sam", points, **{"interventions/radius": RADIUS}), monkeypatch)
    assert [one.title for one in maps] == [
        f"{what} test accuracy, kind = {kind}" for kind in ("soft", "hard") for what in ("mean", "decline of")
    ]
    for one in maps:
        assert (one.row_label, one.column_label) == ("R (cm)", "learning rate lr (1)")
        assert (one.rows, one.columns) == ([0.0, 0.5, 1.0], [0.1, 0.2])
    assert not maps_of(grid_of("sam", points), monkeypatch), "nobody says that it is a sharpness"


def test_the_radius_of_gnp_has_maps_of_its_own_and_0_is_exact(monkeypatch):
    points = [
        {"optimizer/r": r, "optimizer/lr": lr, "optimizer/lambda": penalty}
        for r in (0.0, 0.05)
        for lr in (0.1, 0.2)
        for penalty in (0.5, 1.0)
    ]
    maps = maps_of(grid_of("gnp", points), monkeypatch)
    assert [one.title for one in maps] == [
        f"{what} test accuracy, r = {r}" for r in ("0 (exact)", "0.05") for what in ("mean", "decline of")
    ]
    assert {one.row_label for one in maps} == {"lambda (1)"}
