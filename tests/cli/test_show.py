"""Estimates and dry runs, which start and write nothing."""

import json
import re
import urllib.request

import pytest
import torch
from sweep_fixtures import folder_of, plan_of

from study.cli import show
from study.cluster import connection, nodes
from study.timing import estimate, speed

DRY = ("run", "quickstart", "--dry-run")

TINY = """
from search_spaces import Method, SearchSpace
SPACE = SearchSpace(
    name="mine", description="Two tasks.", scenarios={"pairs": {"tasks/name": "class_pairs", "tasks/count": 2}},
    methods={"sgd": Method(points=({"optimizer/lr": 0.1},))}, settings={SETTINGS}, seeds=(0,),
)
"""


INTERVENED = """
from optuna.distributions import FloatDistribution
from search_spaces import Method, SearchSpace
LR = {"optimizer/lr": FloatDistribution(0.01, 0.1)}
SPACE = SearchSpace(
    name="mine", description="Interventions.", scenarios={"pairs": {"tasks/name": "class_pairs", "tasks/count": 2}},
    methods={
        "sgd": Method(distributions=LR),
        "weak": Method(settings={"optimizer/name": "sgd", "interventions/l2_init/strength": 1e-3}, distributions=LR),
        "strong": Method(settings={"optimizer/name": "sgd", "interventions/l2_init/strength": 0.5}, distributions=LR),
        "momentum": Method(settings={"optimizer/name": "sgd", "optimizer/momentum": 0.9}, points=({"optimizer/lr": 0.1},)),
    },
    settings={"tasks/validation_fraction": 0.5}, seeds=(0,), trials=2,
)
"""


@pytest.fixture
def short(monkeypatch):
    """Measures for a moment only."""
    monkeypatch.setattr(show, "SECONDS", 0.2)


@pytest.fixture
def unmeasured(monkeypatch):
    """Nothing may be measured."""

    def measured(*_, **__):
        raise AssertionError("measured")

    monkeypatch.setattr(speed, "measured", measured)


def test_a_dry_run_shows_the_plan_with_what_is_overruled_and_leaves_nothing_behind(here, run, short):
    words = (
        "--scenario",
        "class_pairs",
        "--method",
        "sam",
        "--set",
        "training/batch_size=50",
        "--seeds",
        2,
        "--trials",
        4,
    )
    code, out, err = run(*DRY, *words, "--workers", 1, "--price-per-hour", 3600, "--name", "mine")
    assert (code, err) == (0, "")
    assert list(here.iterdir()) == []
    assert re.search(r"^training/batch_size +50$", out, re.MULTILINE)
    assert re.search(r"^class_pairs +sam +4 +10 +666 +[0-9.]+ s +[0-9.]+ s$", out, re.MULTILINE)
    assert "1 at once, 1 thread each, seeds: 2" in out
    assert re.search(r"About .* in total: .* CPU-hours, [0-9]+\.[0-9]{2} at 3600 per hour\.$", out, re.MULTILINE)
    assert "The sweep 'mine' would go to study-results/mine" in out


def test_what_a_sampler_draws_is_told_as_a_range(here, run, short):
    (here / "mine.py").write_text(
        "from optuna.distributions import CategoricalDistribution\n"
        + TINY.replace(
            'points=({"optimizer/lr": 0.1},)', "distributions={'training/passes': CategoricalDistribution([1, 99])}"
        ).replace("{SETTINGS}", "{'tasks/validation_fraction': 0.5, 'diagnostics/curvature_every': 0}, trials=3")
    )
    code, out, _ = run("show", "./mine.py")
    assert code == 0
    assert re.search(r"^pairs +sgd +3 +2 +400 x 1 to 99 +[0-9.]+ s to [0-9.]+ s ", out, re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        ("--address", "127.0.0.1:1"),
        ("--cpus-per-trial", 10_000),
        ("--gpus-per-trial", 10_000),
        ("--set", "training/device=cuda", "--gpus-per-trial", 0),
        ("--storage", "ftp://somewhere"),
        ("--storage", "/proc/nowhere"),
        ("--price-per-hour", -1),
    ],
)
def test_a_dry_run_refuses_what_cannot_run_here(refused, unmeasured, words):
    assert words[0] in refused(*DRY, *words) or "training/device=cuda" in words


def test_a_dry_run_refuses_a_name_that_exists(refused, here, unmeasured):
    folder_of(here / "study-results", plan_of("first"))
    assert "study resume first" in refused(*DRY, "--name", "first")


def test_a_price_without_an_estimate_is_refused(refused):
    assert "--dry-run" in refused("run", "quickstart", "--price-per-hour", 2)


def test_show_measures_nothing_when_it_is_not_to(here, run, unmeasured):
    code, out, err = run("show", "quickstart", "--no-estimate")
    assert (code, err) == (0, "")
    assert "Estimate" not in out


def test_data_that_is_not_here_is_stood_in_for_and_not_downloaded(here, run, short, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("downloads"))
    (here / "mine.py").write_text(TINY.replace("{SETTINGS}", "{'data/name': 'mnist', 'model/widths': [5]}"))
    code, out, _ = run("show", "./mine.py", "--data-dir", "empty")
    assert code == 0
    assert re.search(r"^pairs +sgd +1 +2 +12,000 ", out, re.MULTILINE)
    assert "mnist has not been downloaded yet; the estimate used random images of the same shape." in out
    assert not (here / "empty").exists()


def test_all_that_differs_between_methods_is_shown(here, run, unmeasured):
    (here / "mine.py").write_text(INTERVENED)
    code, out, err = run("show", "./mine.py", "--no-estimate")
    assert (code, err) == (0, "")
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("pairs ")}
    assert "interventions/l2_init/strength=0.001" in rows["weak"]
    assert "interventions/l2_init/strength=0.5" in rows["strong"]
    assert "optimizer/momentum=0.9" in rows["momentum"]
    assert "optimizer/momentum=0" in rows["sgd"]
    assert "l2_init" not in rows["sgd"]
    assert re.search(r'^optimizer/name +"sgd"$', out, re.MULTILINE), "the same in all of them"
    assert not [line for line in out.splitlines() if line.startswith(("optimizer/momentum", "interventions"))]


def test_a_space_whose_methods_differ_only_in_what_is_tried_has_no_column_of_fixed_settings(here, run, unmeasured):
    _, out, _ = run("show", "quickstart", "--no-estimate")
    assert "fixed in this method" not in out


@pytest.mark.parametrize(("at_once", "said"), [(1, False), (2, True)])
def test_the_sum_of_the_column_is_told_where_trials_run_side_by_side(at_once, said, capsys):
    hours = estimate.Range(20 * 3600, 20 * 3600)
    row = estimate.Row("pairs", "sgd", 2, 1, estimate.Range(1, 1), estimate.Range(1, 1), hours, hours * 2)
    show.show_sum(estimate.Estimate((row,), at_once, 1, 1, 0), None)
    lines = capsys.readouterr().out.split("\n\n")
    assert ("All trials add up to 40 h 00 min, and 2 run at once." in lines[0]) == said
    assert f"About {40 // at_once} h 00 min in total: 40 CPU-hours." in lines[-1]


def test_points_that_are_lists_are_shown(here, run, unmeasured):
    points = "points=({'model/widths': [10]}, {'model/widths': [20, 20]})"
    (here / "mine.py").write_text(TINY.replace('points=({"optimizer/lr": 0.1},)', points).replace("{SETTINGS}", "{}"))
    code, out, err = run("show", "./mine.py", "--no-estimate")
    assert (code, err) == (0, "")
    assert "widths=[10]; widths=[20, 20]" in " ".join(out.split())


def test_a_cluster_whose_trials_get_gpus_is_not_estimated_where_there_are_none(here, run, unmeasured, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(connection, "foreseen", lambda execution, *_: (execution, 4, []))
    code, out, err = run(*DRY, "--address", "auto", "--gpus-per-trial", "1")
    assert code == 0
    assert "What is tried" in out
    assert "nothing was started" in out
    assert err == "no estimate: the trials use GPUs, and this machine has none to measure on.\n"


def test_no_more_processes_measure_than_this_machine_runs_trials(here, run, monkeypatch):
    asked = []

    def measured(configs, *_, trials_at_once, **__):
        asked.append(trials_at_once)
        return [speed.Timing(10, 1, 1, 1.0, 1.0, 1.0) for _ in configs]

    monkeypatch.setattr(speed, "measured", measured)
    monkeypatch.setattr(connection, "foreseen", lambda execution, *_: (execution, 600, []))
    code, out, _ = run(*DRY, "--address", "auto")
    assert code == 0
    assert asked == [min(nodes.this_machine().fits(1, 0), 36)]
    assert "36 at once" in out


def test_show_says_why_where_it_cannot_estimate(here, run, unmeasured):
    (here / "mine.py").write_text(TINY.replace("{SETTINGS}", "{'tasks/images_per_task': 4000}"))
    code, out, err = run("show", "./mine.py")
    assert code == 0
    assert "What is tried" in out
    assert err.startswith("no estimate: tasks/images_per_task=4000 is too many")


def test_the_plan_and_the_estimate_as_json(here, run, monkeypatch):
    one = estimate.Range(1.0, 2.0)
    row = estimate.Row("pairs", "sgd", 1, 2, one, one, one, one)
    monkeypatch.setattr(show, "_estimated", lambda *_: estimate.Estimate((row,), 1, 1, 1.0, 0.0))
    (here / "mine.py").write_text(TINY.replace("{SETTINGS}", "{'data/name': 'mnist5k'}"))
    code, out, err = run("show", "./mine.py", "--json", "--price-per-hour", 36)
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert [group["points"] for group in shown["plan"]["groups"]] == [[{"optimizer/lr": 0.1}]]
    assert shown["estimate"]["rows"][0]["method"] == "sgd"
    assert shown["estimate"]["duration"] == {"low": 1.0, "high": 2.0}
    assert shown["estimate"]["price"] == {"low": 0.01, "high": 0.02}


def test_ranges_in_json_need_no_parsing(here, run):
    _, out, _ = run("show", "quickstart", "--json", "--no-estimate")
    drawn = json.loads(out)["plan"]["groups"][0]["distributions"]["optimizer/lr"]
    assert drawn["attributes"] == {"low": 1e-3, "high": 1.0, "log": True, "step": None}
