"""A report about other data or networks than the paper's leads with its own comparison, and judges no claim."""

import html
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from optuna.distributions import CategoricalDistribution
from report_fixtures import Tables, confirmed, play, sent, tuned

import search_spaces
from analysis import report
from analysis.paper.evidence import is_about_the_paper
from search_spaces import Method
from study.sweep.search_plan import make_plan

CLAIMS = {"claims", "effects", "paper_settings", "paper_differences"}
"""The tables of a page that judges the paper's claims."""


def about_the_paper(space, **choices):
    plan = make_plan(space, name="x", **choices)
    return is_about_the_paper(SimpleNamespace(plan=plan.plain()))


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("quickstart", {}, True),
        ("paper_grid", {}, True),
        ("beyond_grid", {"overrides": {"model/widths": [5]}}, True),
        ("quickstart", {"overrides": {"data/name": "fashion_mnist"}}, False),
        ("quickstart", {"overrides": {"model/name": "cnn"}}, False),
        ("beyond_mnist", {}, False),
        ("beyond_mnist", {"overrides": {"data/name": "mnist5k"}}, False),
        ("l2_init_cifar100", {}, False),
        ("online_permuted_mnist", {}, True),
        ("l2_init", {}, True),
        ("l2_init", {"scenarios": ["random_label_mnist"]}, False),
    ],
)
def test_data_network_and_tasks_decide_whether_a_sweep_is_about_the_paper(name, choices, expected):
    assert about_the_paper(search_spaces.load(name), **choices) is expected


@pytest.mark.parametrize(("choices", "expected"), [(["natural_patches", "svhn"], False), (["svhn", "mnist"], True)])
def test_a_sweep_that_draws_its_data_is_about_the_paper_if_it_may_draw_mnist(choices, expected):
    drawn = {"data/name": CategoricalDistribution(choices)}
    space = replace(search_spaces.load("quickstart"), methods={"sgd": Method(distributions=drawn)})
    assert about_the_paper(space) is expected
    points = tuple({"data/name": choice} for choice in choices)
    assert about_the_paper(replace(space, methods={"sgd": Method(points=points)})) is expected


def page_of(directory, uri, name):
    """A page's sections, its words, and its tables."""
    page = report.make(*report.load_all(name, uri))
    place, _ = report.write(page, directory / name / "report")
    text = (place / report.PAGE).read_text(encoding="utf-8")
    words = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text.split("</style>")[1])))
    return [section.anchor for section in page.sections], words, Tables(text).tables


def leader(tables):
    """The setting with the highest mean test accuracy on class pairs in the page's first table."""
    rows = [row for row in tables["answer"] if row.get("scenario", {"text": "class_pairs"})["text"] == "class_pairs"]
    return max(rows, key=lambda row: row["mean test accuracy"]["values"][0])["setting"]["text"]


def test_it_leads_with_the_methods_tuned_and_confirmed(directory, uri, blank_figures):
    folder = tuned(directory, "natural", space="beyond_mnist", trials=2)
    play(folder)
    sent(folder)
    sections, words, tables = page_of(directory, uri, "natural")
    assert sections[:3] == ["summary", "question", "best"]
    assert not CLAIMS & set(tables)
    asked_for = report.make(*report.load_all("natural", uri), paper=True)
    assert [section.anchor for section in asked_for.sections][:4] == ["summary", "question", "best", "claims"]
    assert (
        f"In short The highest mean test accuracy on the seeds of the search, class_pairs: {leader(tables)} with"
        in words
    )
    assert len(tables["answer"]) == 2 * 3
    assert "has not been confirmed on fresh seeds yet: study confirm natural" in words
    assert "SAM and GNP steer away from such regions." in words
    assert "keeps a network able to learn, here a cnn on natural_patches." in words
    assert "images of that task that were never used for training, in permuted_labels on some that were." in words
    assert "permuted_labels: each task shows the same images with their labels dealt out anew" in words
    assert "Nothing about the claims of Koster and Kukla (2024)" in words
    assert "one small convolutional network on images" in words
    assert len(tables["best_settings"]) == 2 * 3
    assert len(tables["best_differences"]) == 2 * 3 * 2
    assert all(row["first minus second"]["values"] for row in tables["best_differences"])

    confirmation = confirmed(folder)
    assert [len(group.points) for group in confirmation.plan.groups] == [1] * 6  # the winners alone
    assert "paper" not in confirmation.plan.description
    play(confirmation)
    sent(confirmation)
    sections, words, tables = page_of(directory, uri, "natural")
    assert sections[:3] == ["summary", "question", "best"]
    assert not CLAIMS & set(tables)
    assert f"In short The highest mean test accuracy on fresh seeds, class_pairs: {leader(tables)} with" in words
    assert (
        "Does any method keep plasticity better than sgd, by more than 0.01 of late accuracy? Sam against sgd:" in words
    )
    assert {"winners-natural-confirm", "winners_differences-natural-confirm", "tuned_confirmed-natural-confirm"} <= set(
        tables
    )
    assert "paper" not in "".join(section for section in words.split("What cannot be concluded")[:-1]).lower()


def test_without_an_objective_all_settings_are_shown_and_none_is_selected(directory, uri, blank_figures):
    overrides = {"tasks/count": 4, "data/name": "natural_patches"}
    folder = tuned(
        directory, "grid", space="paper_grid", scenarios=["class_pairs"], trials=None, tasks=4, overrides=overrides
    )
    play(folder)
    sent(folder)
    sections, words, tables = page_of(directory, uri, "grid")
    assert sections[:3] == ["summary", "question", "best"]
    assert not CLAIMS & set(tables)
    assert "Nothing was selected: there is no trial with an objective." in words
    assert len(tables["all_settings"]) == 6
    assert "choosing by test accuracy would be selecting on the test set" in words


def test_a_confirmation_on_the_papers_data_is_about_the_paper(directory, uri, blank_figures):
    """Tuned elsewhere, confirmed on its digits and network: the claims are shown, and say what is missing."""
    folder = tuned(
        directory,
        "away",
        scenarios=["class_pairs"],
        methods=["sgd"],
        overrides={"tasks/count": 4, "data/name": "svhn"},
        tasks=4,
    )
    play(folder)
    sent(folder)
    confirmation = confirmed(folder, "away-confirm", overrides={"data/name": "mnist5k"})
    play(confirmation)
    sent(confirmation)
    _, _, tables = page_of(directory, uri, "away")
    assert set(tables) >= {"claims"}
