"""The report: its numbers are MLflow's, it says what it cannot say, it is whole or not there."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from cause_fixtures import probes
from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from real_study import real_study
from report_fixtures import Tables, accuracy, confirmed, page_of, play, sent, tuned, whole_directory, whole_report
from sweep_fixtures import study

from analysis import report, sample
from analysis.figures import charts
from analysis.figures.comparisons import Confirmed, tuned_and_confirmed
from analysis.report import page as pages
from analysis.report import search
from analysis.report.paper import out_of_reach
from search_spaces import sharpness_grid
from search_spaces.space import Method, grid
from study.errors import StudyError
from study.tracking.store import attach, default_uri


@pytest.fixture(scope="module")
def written():
    """The report of a whole study, tuned and confirmed."""
    return whole_report()


@pytest.fixture(scope="module")
def whole_uri():
    return default_uri(whole_directory())


@pytest.fixture(scope="module")
def tables(written):
    return Tables((written / "report.html").read_text(encoding="utf-8"))


def runs_of(uri, name):
    """The trials of a sweep as plain MLflow gives them, by run id."""
    mlflow.set_tracking_uri(uri)
    found = mlflow.search_runs(experiment_names=[name], filter_string="tags.role = 'trial'", output_format="list")
    return {run.info.run_id: run for run in found}


def lanes_of(uri, run):
    """Test accuracy of each lane and task of a run, as plain MLflow gives it, [task, lane]."""
    client = MlflowClient(uri)
    count = sum(1 for name in run.data.metrics if re.fullmatch(r"accuracy/test/lane_\d+", name))
    histories = [client.get_metric_history(run.info.run_id, f"accuracy/test/lane_{lane}") for lane in range(count)]
    return np.array([[metric.value for metric in sorted(h, key=lambda metric: metric.step)] for h in histories]).T


def test_the_numbers_of_settings_are_those_of_search_runs_to_the_last_digit(tables, whole_uri):
    runs = runs_of(whole_uri, "whole-confirm")
    compared = 0
    for table in ("paper_settings", "winners-whole-confirm"):
        for row in tables.rows(table):
            metrics = runs[row["run"]["runs"][0]].data.metrics
            assert row["mean test accuracy"]["values"][0] == metrics["summary/accuracy_test"]
            assert row["first tenth"]["values"] == [metrics["summary/accuracy_test_first_tenth"]]
            assert row["last tenth"]["values"] == [metrics["summary/accuracy_test_last_tenth"]]
            assert row["decline"]["values"][0] == metrics["summary/decline_test"]
            compared += 4
    assert compared == 4 * (12 + 6)


def test_tuned_and_confirmed_are_those_of_search_runs_to_the_last_digit(tables, whole_uri):
    before, after = runs_of(whole_uri, "whole"), runs_of(whole_uri, "whole-confirm")
    rows = list(tables.rows("tuned_confirmed-whole-confirm"))
    assert len(rows) >= 12
    for row in rows:
        old = before[row["runs: tuned, confirmed"]["runs"][0]].data.metrics
        new = after[row["runs: tuned, confirmed"]["runs"][1]].data.metrics
        assert row["objective tuned"]["values"] == [old["summary/objective"]]
        assert row["objective confirmed"]["values"] == [new["summary/objective"]]
        assert row["test accuracy tuned"]["values"] == [old["summary/accuracy_test"]]
        assert row["test accuracy confirmed"]["values"][0] == new["summary/accuracy_test"]
        assert row["test accuracy, tuned minus confirmed"]["values"] == [
            old["summary/accuracy_test"] - new["summary/accuracy_test"]
        ]
        assert row["objective, tuned minus confirmed"]["values"] == [
            old["summary/objective"] - new["summary/objective"]
        ]


def charts_of(folder):
    """The charts of a page, by name."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    return {name: json.loads(data) for name, data in re.findall(r'id="data-chart-([^"]+)">([^<]+)<', text)}


def test_the_figures_of_the_page_have_the_numbers_of_tables_and_search_runs_to_the_last_digit(
    written, tables, whole_uri
):
    charts, runs = charts_of(written), runs_of(whole_uri, "whole-confirm")
    row = next(tables.rows("winners-whole-confirm"))
    run = runs[row["run"]["runs"][0]]
    chart = charts[f"winners-whole-confirm-{row['scenario']['text']}"]
    traces = [trace for trace in chart["traces"] if trace["legendgroup"] == "0"]
    lanes = lanes_of(whole_uri, run)
    assert [trace["y"] for trace in traces if trace["meta"]["role"] == "seed"] == lanes.T.tolist()
    (mean,) = (trace["y"] for trace in traces if trace["meta"]["role"] == "value")
    assert mean == [float(task.mean()) for task in lanes]
    first = next(trace for trace in charts["answer"]["traces"] if trace["meta"]["role"] == "value")
    assert first["x"] == next(tables.rows("answer"))["mean test accuracy"]["values"][:1]
    for name in ("mean_accuracy", "decline"):
        chart = charts[f"winners_differences-whole-confirm-class_pairs-{name}"]
        ends, means = (trace["x"] for trace in chart["traces"])
        rows = [
            row["first minus second"]["values"]
            for row in tables.rows("winners_differences-whole-confirm")
            if (row["scenario"]["text"], row["quantity"]["text"]) == ("class_pairs", name.replace("_", " "))
        ]
        assert [*zip(means, ends[::3], ends[1::3], strict=True)] == [tuple(row) for row in rows]
    tuned_runs = runs_of(whole_uri, "whole").values()
    objectives = sorted(
        run.data.metrics["summary/objective"] for run in tuned_runs if "summary/objective" in run.data.metrics
    )
    drawn = [
        y for s in ("class_pairs", "permuted_pixels") for t in charts[f"parallel-{s}"]["traces"] for y in [t["text"][0]]
    ]
    assert len(drawn) == len(objectives) == 22
    scatter = [
        value
        for scenario in ("class_pairs", "permuted_pixels")
        for trace in charts[f"settings-{scenario}"]["traces"]
        if trace["meta"]["role"] == "trial" and trace["xaxis"] == "x"
        for value in trace["y"]
    ]
    assert sorted(scatter) == objectives


def test_intervals_are_students_over_seeds(tables, whole_uri):
    runs = runs_of(whole_uri, "whole-confirm")
    for row in tables.rows("winners-whole-confirm"):
        values = lanes_of(whole_uri, runs[row["run"]["runs"][0]])
        assert values.shape == (10, 7)
        for heading, lanes in (("mean test accuracy", values.mean(axis=0)), ("decline", values[0] - values[-1])):
            expected = scipy.stats.ttest_1samp(lanes, 0).confidence_interval(0.95)
            assert row[heading]["values"][1:] == pytest.approx(list(expected), abs=1e-12)


def test_differences_are_paired_tested_exactly_and_corrected(tables, whole_uri):
    runs = runs_of(whole_uri, "whole-confirm")
    rows = list(tables.rows("winners_differences-whole-confirm"))
    assert len(rows) == 2 * 3 * 2
    p_values = []
    for row in rows:
        first, second = (lanes_of(whole_uri, runs[row[f"run of {which}"]["runs"][0]]) for which in ("first", "second"))
        lanes = (
            first - second if row["quantity"]["text"] == "mean accuracy" else (first - second)[[0, -1]] * [[1], [-1]]
        )
        differences = lanes.mean(axis=0) if row["quantity"]["text"] == "mean accuracy" else lanes.sum(axis=0)
        assert row["first minus second"]["values"][0] == pytest.approx(differences.mean(), abs=1e-12)
        exact = scipy.stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
        )
        assert row["p (sign flip)"]["values"][0] == pytest.approx(exact.pvalue, abs=1e-12)
        p_values.append(row["p (sign flip)"]["values"][0])
    order = np.argsort(p_values)
    holm = np.minimum(1, np.maximum.accumulate(np.array(p_values)[order] * np.arange(len(rows), 0, -1)))
    assert [rows[place]["p (Holm)"]["values"][0] for place in order] == pytest.approx(list(holm), abs=1e-12)


def test_every_row_and_every_figure_names_runs_that_mlflow_has(written, tables, whole_uri):
    known = set(runs_of(whole_uri, "whole")) | set(runs_of(whole_uri, "whole-confirm"))
    client = MlflowClient(whole_uri)
    for name in ("whole", "whole-confirm"):
        experiment = client.get_experiment_by_name(name)
        known |= {run.info.run_id for run in client.search_runs([experiment.experiment_id], "tags.role = 'sweep'")}
    for name, rows in tables.tables.items():
        if name == "claims":
            continue  # its effects stand in a table of their own
        for row in rows:
            named = [run for cell in row.values() for run in cell["runs"]]
            assert named, name
            assert set(named) <= known
    text = (written / "report.html").read_text(encoding="utf-8")
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) >= 16
    for figure in figures:
        assert set(re.findall(r'data-run="(\w+)"', figure)) <= known
        assert re.search(r'data-run="\w+"', figure)


def test_a_page_about_many_trials_shows_some_of_them_and_says_so(whole_uri, tmp_path, monkeypatch, blank_figures):
    monkeypatch.setattr(sample, "MOST", 6)
    monkeypatch.setattr(sample, "MOST_SENTENCES", 0)
    page = report.make(*report.load_all("whole", whole_uri))
    report.write(page, tmp_path / "page")
    text = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    shown = list(Tables(text).rows("all_trials"))
    whole = pd.read_csv(tmp_path / "page" / "tables" / "all_trials.csv")
    assert len(whole[whole["sweep"] == "whole"]) == 24
    assert len(shown) == 6 * whole["sweep"].nunique() < len(whole)
    (table,) = (table for table in page.tables if table.name == "all_trials")
    assert f"Of {len(whole)} trials, {len(shown)} are shown: the best, and a sample of the others" in table.caption
    captions = {picture.name: picture.caption for picture in page.pictures}
    for name in ("settings-class_pairs", "parallel-class_pairs"):
        assert "Of 11 trials, 6 are shown" in captions[name] or "Of 12 trials, 6 are shown" in captions[name]
    best = whole[whole["sweep"] == "whole"].groupby(["scenario", "method"])["objective"].idxmax()
    assert set(whole.loc[best, "name"]) <= {row["setting"]["text"] for row in shown}
    assert "And 2 more failed trials, which" in text


def test_figures_and_tables_are_written_in_the_formats_asked_for_and_twice_alike(whole_uri, tmp_path):
    frame = pd.DataFrame(
        {"a": ["x_1", "50 %"], "b": [-0.5, 1e-7], "b_low": [-1, 0], "b_high": [0, 1], "c": [1, "two"], "d": ["r", "r"]}
    )
    columns = (
        pages.Column("a", "A & B"),
        pages.Column("b", "b", "number"),
        pages.Column("c", "c"),
        pages.Column("d", "run", "run"),
    )
    table = pages.Table("t", "Of `this`, 5 %.", frame, columns)
    rows = [Confirmed("one", "sgd", 0.5, 0.6, 0.5, 0.7)]
    picture = pages.Picture(
        "p",
        "p",
        lambda path, size: tuned_and_confirmed(path, "title", rows, size),
        (),
        charts.tuned_and_confirmed(rows),
    )
    page = pages.Page("x", "", (pages.Section("a", "A", (), (table, picture)),))
    told = []
    place, _ = report.write(
        page, tmp_path / "r", ["svg", "pdf", "parquet", "latex"], lambda done, count: told.append((done, count))
    )
    assert told == [(0, 1), (1, 1)]
    assert report.write(page, tmp_path / "r", ["svg", "pdf", "parquet", "latex"]) == (place, False)
    names = {str(path.relative_to(place)) for path in place.rglob("*.*")}
    assert names == {
        "report.html",
        "figures/p.png",
        "figures/p.svg",
        "figures/p.pdf",
        "tables/t.csv",
        "tables/t.parquet",
        "tables/t.tex",
    }
    assert (place / "figures/p.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (place / "figures/p.svg").read_text()
    assert pd.read_parquet(place / "tables/t.parquet")["b"].tolist() == frame["b"].tolist()
    text = (place / "tables/t.tex").read_text()
    assert r"A \& B & b & c \\" in text
    assert r"50 \% & $1 \times 10^{-7}$ [" in text
    assert r"x\_1 & $-0.5$ [$-1$, $0$] & 1 \\" in text
    assert r"\toprule" in text
    assert r"\bottomrule" in text


def test_the_page_asks_for_the_cause_where_networks_were_probed_and_nowhere_else(whole_uri):
    whole, confirmations = report.load_all("whole", whole_uri)
    anchors = [section.anchor for section in report.make(whole, confirmations).sections]
    assert "cause" not in anchors
    probed = dataclasses.replace(whole, probes=probes("cause"))
    place = anchors.index("question") + 1
    assert [section.anchor for section in report.make(probed, confirmations).sections] == [
        *anchors[:place],
        "cause",
        *anchors[place:],
    ]


def test_the_page_needs_nothing_but_itself(tables):
    assert tables.addresses
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in tables.addresses)


def test_on_a_server_every_run_is_linked_to_its_page_in_its_own_experiment(written, whole_uri):
    there = "http://host:5000/"
    whole, confirmations = report.load_all("whole", whole_uri)
    sweeps = [dataclasses.replace(sweep, uri=there) for sweep in (whole, *confirmations)]
    made = report.make(sweeps[0], sweeps[1:])
    experiment = {run: sweep.experiment_id for sweep in sweeps for run in (sweep.run_id, *sweep.runs["run_id"])}
    rows = {table.name: list(table.cells(made.addresses)) for table in made.tables}
    links = re.findall(
        r'href="http://host:5000/#/experiments/(\d+)/runs/(\w+)"',
        "".join(str(c) for r in rows.values() for row in r for _, c in row),
    )
    assert {run for _, run in links} == set(experiment)
    assert all(experiment[run] == number for number, run in links)
    assert len({number for number, _ in links}) == 2


def test_figures_and_tables_stand_beside_the_page_as_files(written, tables):
    assert {path.stem for path in (written / "tables").glob("*.csv")} == set(tables.tables)
    figures = re.findall(r'id="figure-([^"]+)"', (written / "report.html").read_text(encoding="utf-8"))
    assert sorted(figures) == sorted(path.stem for path in (written / "figures").glob("*.png"))
    assert len(set(figures)) == len(figures)
    assert not [path for path in written.iterdir() if path.name not in ("report.html", "figures", "tables")]


def test_the_same_results_give_the_very_same_report_and_write_nothing(written, whole_uri):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    place, new = report.write(report.make(*report.load_all("whole", whole_uri)), written)
    assert (place, new) == (written, False)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    assert not list(written.parent.glob(".report*"))


def test_another_report_stands_beside_the_old_one(tmp_path):
    def page(title):
        return pages.Page(title, "", (pages.Section("a", "A", ("words",)),))

    first, _ = report.write(page("one"), tmp_path / "report")
    second, _ = report.write(page("two"), tmp_path / "report")
    again, new = report.write(page("two"), tmp_path / "report")
    assert (first.name, second.name, again.name, new) == ("report", "report-2", "report-2", False)
    assert "<h1>one</h1>" in (first / "report.html").read_text()


def test_a_report_that_cannot_be_drawn_leaves_nothing_behind(tmp_path):
    def fail(path, size):
        raise ValueError("no")

    broken = pages.Page("x", "", (pages.Section("a", "A", (), (pages.Picture("p", "p", fail),)),))
    with pytest.raises(ValueError, match="no"):
        report.write(broken, tmp_path / "report")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written"):
        report.write(pages.Page("x", "", ()), tmp_path / "file" / "report")


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", "a/b"])
def test_a_name_out_of_mlflow_cannot_lead_out_of_the_report(tmp_path, name):
    blocks = {
        "picture": pages.Picture(name, "p", lambda path, size: path.write_bytes(b"")),
        "table": pages.Table(name, "t", pd.DataFrame({"a": [1]}), (pages.Column("a", "A"),)),
    }
    for block in blocks.values():
        page = pages.Page("x", "", (pages.Section("a", "A", (), (block,)),))
        with pytest.raises(StudyError, match="cannot name a file of the report"):
            report.write(page, tmp_path / "there" / "report")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_claims_are_undecided_on_other_data_than_the_papers(tables):
    verdicts = [row["verdict"]["text"] for row in tables.rows("claims")]
    assert verdicts == ["undecided"] * 7
    assert {row["here"]["text"] for row in tables.rows("claims")} > {"undecided"}


def test_a_confirmation_is_part_of_the_report_of_what_it_confirms(written, whole_uri):
    with pytest.raises(StudyError, match="run `study report whole`"):
        report.load_all("whole-confirm", whole_uri)


def test_without_confirmation_the_report_says_so_and_compares_no_winners(directory, uri, blank_figures):
    folder = tuned(directory, "unconfirmed")
    play(folder)
    sent(folder)
    words, tables = page_of(directory, uri, "unconfirmed")
    assert "Not confirmed yet." in words
    assert "study confirm unconfirmed" in words
    assert not [name for name in tables.tables if name.startswith("winners")]
    assert [row["verdict"]["text"] for row in tables.rows("claims")] == ["undecided"] * 7
    assert "3 seeds cannot support a verdict; at least 6 are needed" in words


def test_a_confirmation_on_other_data_is_not_taken_for_luck(directory, uri, blank_figures):
    folder = tuned(directory, "moved", scenarios=["class_pairs"], methods=["sgd", "sam"])
    play(folder)
    sent(folder)
    for name, overrides in (("moved-confirm", {}), ("moved-fashion", {"data/name": "fashion_mnist"})):
        confirmation = confirmed(folder, name, overrides=overrides)
        play(confirmation)
        sent(confirmation)
    words, tables = page_of(directory, uri, "moved")
    assert (
        "moved-fashion (fashion_mnist, 7 fresh seeds 1000 to 1006). Tuning and confirmation differ in data/name"
        in words
    )
    assert "moved-confirm (mnist5k, 7 fresh seeds 1000 to 1006). A positive difference" in words
    assert {"winners-moved-confirm", "winners-moved-fashion"} <= set(tables.tables)


def test_failed_running_and_waiting_trials_are_told(directory, uri, blank_figures):
    fates = {"class_pairs-sgd-001": "failed", "class_pairs-gnp-003": "running"}
    folder = tuned(directory, "partial", scenarios=["class_pairs"])
    play(folder, fate=lambda history: fates.get(history.key, "finished"))
    sent(folder)
    words, tables = page_of(directory, uri, "partial")
    assert "`" not in words
    assert "partial is not complete: of 12 planned trials there are 10 finished, 1 failed, 1 interrupted." in words
    assert "class_pairs-sgd-001 (sgd lr=0.001) failed: RuntimeError: out of luck" in words
    outcomes = {row["trial"]["text"]: row["outcome"]["text"] for row in tables.rows("all_trials")}
    assert outcomes["class_pairs-sgd-001"] == "failed"
    assert outcomes["class_pairs-gnp-003"] == "interrupted"
    assert "no finished trial of sgd lr=0.001 on class_pairs" in words
    budget = {row["method"]["text"]: row for row in tables.rows("budget")}
    assert budget["sgd"]["failed"]["values"] == [1]
    assert budget["gnp"]["not completed"]["values"] == [1]


def test_one_seed_has_no_interval_and_no_test(directory, uri):
    folder = tuned(directory, "lonely", seeds=1, scenarios=["class_pairs"])
    play(folder)
    sent(folder)
    confirmation = confirmed(folder, seeds=1)
    play(confirmation)
    sent(confirmation)
    words, tables = page_of(directory, uri, "lonely")
    row = next(tables.rows("winners-lonely-confirm"))
    assert len(row["mean test accuracy"]["values"]) == 1
    assert "interval unknown" in row["mean test accuracy"]["text"]
    assert "with one seed there is no interval" in words
    for row in tables.rows("winners_differences-lonely-confirm"):
        assert row["p (Holm)"]["values"] == [1]
    assert "1 seed cannot support a verdict" in words


def test_an_absent_method_is_told(directory, uri, blank_figures):
    folder = tuned(directory, "two-methods", methods=["sgd", "sam"], scenarios=["class_pairs"])
    play(folder)
    sent(folder)
    confirmation = confirmed(folder)
    play(confirmation)
    sent(confirmation)
    words, tables = page_of(directory, uri, "two-methods")
    assert "Nothing about gnp: not part of this sweep." in words
    assert "no finished trial of gnp lr=0.01 on class_pairs" in words
    assert len(list(tables.rows("winners_differences-two-methods-confirm"))) == 2
    (late,) = tables.rows("late_accuracy")
    difference = late["difference"]["values"][0]
    assert difference == pytest.approx(late["late accuracy"]["values"][0] - late["late accuracy of sgd"]["values"][0])
    assert late["better by more than 0.01"]["text"] == "no"
    assert "Sam against sgd: no." in words


def test_a_method_without_a_finished_trial_is_told(directory, uri):
    folder = tuned(directory, "no-gnp", scenarios=["class_pairs"])
    play(folder, fate=lambda history: "failed" if history.method == "gnp" else "finished")
    sent(folder)
    confirmation = confirmed(folder)
    play(confirmation, fate=lambda history: "failed" if history.method == "sam" else "finished")
    sent(confirmation)
    words, _ = page_of(directory, uri, "no-gnp")
    assert "Nothing about gnp on class_pairs from no-gnp: no trial has finished." in words
    assert "Nothing about sam on class_pairs from no-gnp-confirm: no trial has finished." in words


def test_a_sweep_without_any_result_gives_a_report_that_says_so(directory, uri):
    folder = tuned(directory, "hopeless", scenarios=["class_pairs"])
    play(folder, fate=lambda history: "failed")
    sent(folder)
    words, _ = page_of(directory, uri, "hopeless")
    assert "None of the paper's settings has finished" in words
    untouched = tuned(directory, "untouched", scenarios=["class_pairs"])
    sent(untouched)
    words, _ = page_of(directory, uri, "untouched")
    assert "untouched is not complete: of 12 planned trials there are none started." in words


def test_a_grid_without_objective_is_judged_and_selects_nothing(directory, uri, blank_figures):
    overrides = {"data/name": "mnist", "tasks/count": 10}
    folder = tuned(directory, "grid", space="paper_grid", trials=None, seeds=8, overrides=overrides)
    play(folder)
    sent(folder)
    words, tables = page_of(directory, uri, "grid")
    assert "No images were held out for validation, so nothing was selected" in words
    assert len(list(tables.rows("paper_settings"))) == 12
    assert "10 tasks of permuted_pixels instead of 100" in words


def test_the_papers_own_experiment_gets_verdicts(directory, uri, blank_figures):
    folder = tuned(
        directory, "pairs", space="paper_grid", trials=None, seeds=8, overrides={}, tasks=45, scenarios=["class_pairs"]
    )

    def lanes(history, seed):
        values = np.full(45, 0.9)
        if history.method == "sam":
            values[-5:] -= 0.05
        return values + 0.001 * (seed % 3)

    play(folder, lanes)
    sent(folder)
    _, tables = page_of(directory, uri, "pairs")
    verdicts = {row["claim"]["text"]: row["verdict"]["text"] for row in tables.rows("claims")}
    assert (verdicts["C5"], verdicts["C6"]) == ("reproduced", "reproduced")
    assert verdicts["C2"] == "undecided"
    assert "here" not in next(tables.rows("claims"))


def test_heat_maps_show_a_grid_and_nothing_else(directory, uri, blank_figures, written, monkeypatch):
    lr, sharpness = sharpness_grid.LR[:2], sharpness_grid.SHARPNESS[:2]  # a corner: the whole grid has 140 trials
    corner = {
        "sgd": Method(points=grid(lr=lr)),
        "sam": Method(points=grid(lr=lr, rho=sharpness)),
        "gnp": Method(points=grid(r=(0.0, 0.05), lr=lr, lambda_=sharpness)),
    }
    monkeypatch.setattr(sharpness_grid, "SPACE", dataclasses.replace(sharpness_grid.SPACE, methods=corner))
    folder = tuned(directory, "sharp", space="sharpness_grid", scenarios=["class_pairs"], trials=None, seeds=2, tasks=3)
    play(folder)
    sent(folder)
    words, _ = page_of(directory, uri, "sharp")
    figures = {path.stem for path in (directory / "sharp" / "report" / "figures").glob("heat_maps-*.png")}
    assert figures == {"heat_maps-class_pairs-sam", "heat_maps-class_pairs-gnp"}
    assert list((written / "figures").glob("*.png"))
    assert not list((written / "figures").glob("heat_maps*"))
    assert "rho = 0 is SGD" in words


def test_a_report_is_kept_with_the_run_once_and_beside_others(written, directory, uri):
    folder = tuned(directory, "attached", scenarios=["class_pairs"], methods=["sgd"])
    play(folder)
    sent(folder)
    run = report.load_all("attached", uri)[0].run_id
    client = MlflowClient(uri)
    assert attach(uri, run, written, "report.html") == "report"
    assert attach(uri, run, written, "report.html") == "report"
    other = Path(directory / "other")
    (other / "figures").mkdir(parents=True)
    (other / "report.html").write_text("another")
    assert attach(uri, run, other, "report.html") == "report-2"
    names = {file.path for file in client.list_artifacts(run)}
    assert {"report", "report-2"} <= names
    assert "report-3" not in names
    assert {file.path for file in client.list_artifacts(run, "report")} == {
        "report/report.html",
        "report/figures",
        "report/tables",
    }


def test_a_report_that_cannot_be_made_is_refused_in_one_sentence(here, refused):
    assert "There is no MLflow store" in refused("report", "nothing", "--to", "there")
    folder = tuned(here / "study-results", "first", scenarios=["class_pairs"], methods=["sgd"])
    play(folder)
    sent(folder)
    confirmation = confirmed(folder)
    sent(confirmation)
    (here / "file").write_text("")
    assert "known: first, first-confirm, or name a folder for the report with --to" in refused("report", "frist")
    assert "has no sweep 'frist'; did you mean 'first'?" in refused("report", "frist", "--to", "there")
    assert "run `study report first`" in refused("report", "first-confirm")
    assert "--format 'docx' is unknown; figures can be png, svg or pdf" in refused(
        "report", "first", "--format", "docx"
    )
    assert "'file' cannot be a folder: it is a file" in refused("report", "first", "--to", "file")
    assert "cannot be created ('file' is a file)" in refused("report", "first", "--to", "file/there")
    assert "No MLflow server answers" in refused("report", "first", "--tracking-uri", "http://127.0.0.1:1")
    assert "is no MLflow store that the study can use" in refused("report", "first", "--tracking-uri", "foo:bar")


def test_a_report_says_when_mlflow_lacks_what_the_records_have(here, run, blank_figures):
    folder = tuned(here / "study-results", "first", scenarios=["class_pairs"], methods=["sgd"])
    sent(folder)
    play(folder)
    code, out, err = run("report", "first")
    assert code == 0
    assert "4 trials of 'first' have finished, but MLflow has the numbers of 0" in err
    assert "study sync first" in err
    sent(folder)
    code, out, err = run("report", "first")
    assert (code, err) == (0, "")
    assert "wrote study-results/first/report-2/report.html" in out
    assert re.search(r"attached to the sweep's run \w+ in MLflow as report-2", out)


def test_text_from_outside_is_text_on_the_page():
    section = pages.Section("a", "<script>", ("<b>`<i>`*<u>*",))
    frame = pages.pd.DataFrame([{"reason": "<img src=x>", "low": 1.0}])
    table = pages.Table("t", "<caption>", frame, (pages.Column("reason", "why"),))
    for text in (str(pages.marked(section.paragraphs[0])), *(str(c) for row in table.cells({}) for _, c in row)):
        assert "<script>" not in text
        assert "<img" not in text
        assert "<b>" not in text
    assert str(pages.marked("<b>`<i>`*<u>*")) == "&lt;b&gt;<code>&lt;i&gt;</code><em>&lt;u&gt;</em>"


def test_accuracies_of_the_fixture_differ_by_setting_and_seed():
    class History:
        method, scenario, task_count, config = "sgd", "class_pairs", 5, {"optimizer": {"lr": 0.1}}

    assert (accuracy(History, 1) != accuracy(History, 2)).any()


@pytest.mark.sweep
def test_run_confirm_and_report_from_an_empty_folder_agree_with_search_runs():
    root = real_study().place
    done = study("report", "quickstart", cwd=root)
    assert done.returncode == 0, done.stderr
    place = root / "study-results" / "quickstart" / "report"
    assert f"wrote {place.relative_to(root) / 'report.html'}" in done.stdout
    tables = Tables((place / "report.html").read_text(encoding="utf-8"))
    uri = default_uri(root / "study-results")
    before, after = runs_of(uri, "quickstart"), runs_of(uri, "first") | runs_of(uri, "second")
    compared = 0
    for row in tables.rows("tuned_confirmed-first"):
        old, new = before[row["runs: tuned, confirmed"]["runs"][0]], after[row["runs: tuned, confirmed"]["runs"][1]]
        assert row["objective tuned"]["values"] == [old.data.metrics["summary/objective"]]
        assert row["test accuracy confirmed"]["values"][0] == new.data.metrics["summary/accuracy_test"]
        lanes = lanes_of(uri, new).mean(axis=0)
        assert row["test accuracy confirmed"]["values"][0] == pytest.approx(lanes.mean(), abs=1e-15)
        compared += 3
    for row in tables.rows("paper_settings"):
        metrics = (before | after)[row["run"]["runs"][0]].data.metrics
        assert row["decline"]["values"][0] == metrics["summary/decline_test"]
        compared += 1
    assert compared >= 10
    again = study("report", "quickstart", cwd=root)
    assert (again.returncode, "unchanged:" in again.stdout) == (0, True)
    client = MlflowClient(uri)
    sweep_run = re.search(r"sweep's run (\w+)", done.stdout).group(1)
    assert {file.path for file in client.list_artifacts(sweep_run)} >= {"report"}


def a_plan(*groups):
    return SimpleNamespace(plan={"groups": groups})


def a_group(points=(), drawn=(), trials=9, scenario="pairs"):
    texts = {name: distribution_to_json(distribution) for name, distribution in dict(drawn).items()}
    return {"scenario": scenario, "points": list(points), "distributions": texts, "trials": trials}


def test_what_was_searched_is_the_ends_of_all_ranges_and_all_points_of_a_scenario():
    sweep = a_plan(
        a_group([{"optimizer/lr": 3.0}], {"optimizer/lr": FloatDistribution(0.01, 1.0)}),
        a_group(drawn={"optimizer/lr": FloatDistribution(1e-4, 0.1), "training/passes": IntDistribution(1, 5)}),
        a_group(drawn={"training/batch_size": CategoricalDistribution([8, 16]), "x/y": CategoricalDistribution("ab")}),
        a_group([{"optimizer/lr": 99.0}], scenario="another"),
    )
    searched = {label.split(" (")[0]: values for label, values in search._searched(sweep, "pairs").items()}
    assert searched == {"learning rate lr": [1e-4, 0.01, 0.1, 1.0, 3.0], "passes": [1, 5], "batch_size": [8, 16]}


def test_points_and_ranges_beyond_the_budget_were_not_searched():
    points = [{"optimizer/lr": 0.1}, {"optimizer/lr": 0.2}, {"optimizer/lr": 9.0}]
    (values,) = search._searched(
        a_plan(a_group(points, {"optimizer/lr": FloatDistribution(1e-4, 10)}, trials=2)), "pairs"
    ).values()
    assert values == [0.1, 0.2]


@pytest.mark.parametrize(
    ("lanes", "comparisons", "least"), [(4, 12, 9), (6, 6, 8), (8, 6, None), (5, 1, 6), (6, 1, None), (1, 2, 7)]
)
def test_differences_that_no_result_could_make_significant_are_called_so(lanes, comparisons, least):
    sentence = out_of_reach(pd.DataFrame({"p": [1.0] * comparisons, "lanes": lanes}))
    assert bool(sentence) == (least is not None)
    assert sentence == "" or f"takes at least {least} seeds" in sentence


def test_differences_without_a_p_value_are_not_called_out_of_reach():
    assert out_of_reach(pd.DataFrame({"p": [np.nan], "lanes": [50]})) == ""
