"""`study ui`: its server and links, in a real browser."""

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from ports import free_port
from report_fixtures import Blank, play, sent, tuned, whole_directory
from sweep_fixtures import assert_one_sentence, clean_environment, plan_of, study

import search_spaces
from analysis.figures.style import METHOD_COLOURS
from study.cli import ui
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.tracking import server, tracker, views
from study.tracking.client import find_runs
from study.tracking.store import default_uri

PATIENCE = 60


@pytest.fixture(scope="module")
def directory():
    """The folder of a sweep that has been played and sent, and of its confirmation."""
    return whole_directory()


@pytest.fixture(scope="module")
def client(directory):
    return MlflowClient(default_uri(directory))


class Page:
    """A running `study ui`."""

    def __init__(self, directory, *words, port=None, hangup=signal.SIG_DFL):
        self.port = port or free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "study", "ui", *words, "--port", str(self.port), "--dir", str(directory)]
        self.process = subprocess.Popen(
            command,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),  # noqa: PLW1509  # not as the tests were started
        )
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self._reader.start()

    def wait(self):
        """Waits until it serves; returns the links by name."""
        deadline = time.monotonic() + PATIENCE
        while not any("Ctrl-C" in line for line in list(self.lines)):
            assert time.monotonic() < deadline, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.05)
        return self.links()

    def links(self):
        return dict(line.rstrip("\n").rsplit(": ", 1) for line in list(self.lines) if ": http" in line)

    def end(self, number):
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def page(directory):
    running = Page(directory, "whole")
    try:
        running.wait()
        yield running
    finally:
        running.end(signal.SIGTERM)


# --- the views -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", search_spaces.names())
def test_every_view_of_every_space_fits_into_a_tag(space):
    plan = plan_of("some", space=space, scenarios=[], methods=[], trials=None, overrides={})
    scenarios = list(search_spaces.load(space).scenarios)
    tags = views.views(plan)
    assert set(tags) == {
        "mlflow.experimentKind",
        f"{views.VIEW_TAG}trials",
        *(f"{views.VIEW_TAG}trials-{scenario}" for scenario in scenarios if len(scenarios) > 1),
        *(f"{views.VIEW_TAG}best-{scenario}" for scenario in scenarios),
    }
    assert max(len(text) for text in tags.values()) < views.LARGEST_TAG


def test_a_sweep_of_one_scenario_has_one_view_and_one_of_its_best(client):
    plan = plan_of("some", scenarios=["class_pairs"])
    assert [name.removeprefix(views.VIEW_TAG) for name in views.views(plan) if name.startswith(views.VIEW_TAG)] == [
        "trials",
        "best-class_pairs",
    ]


@pytest.mark.parametrize("space", ["quickstart", "paper_grid"])
def test_every_view_begins_with_what_trials_are_ranked_by(space):
    plan = plan_of("some", space=space, scenarios=[], methods=[], trials=None, overrides={})
    states = [json.loads(text) for name, text in views.views(plan).items() if name.startswith(views.VIEW_TAG)]
    for state in states:
        assert state["selectedColumns"][0] == f"metrics.`{views.ranking(plan)}`"
        assert state["compareRunCharts"][0]["metricKey"] == views.ranking(plan)
        assert [section["columns"] for section in state["compareRunSections"]] == [2]


def test_a_confirmation_s_table_has_the_trial_that_each_of_its_trials_confirms(directory):
    plan = SweepFolder.open(directory, "whole-confirm").plan
    assert "tags.`confirms_trial`" in json.loads(views.views(plan)[f"{views.VIEW_TAG}trials"])["selectedColumns"]


def test_every_trial_has_the_colour_of_its_method(client):
    runs = find_runs(client, client.get_experiment_by_name("whole").experiment_id, "tags.role = 'trial'")
    assert {(run.data.tags["method"], run.data.tags["mlflow.runColor"]) for run in runs} == set(METHOD_COLOURS.items())


def test_nothing_is_ranked_by_test_accuracy_where_there_is_an_objective():
    validated, plain = plan_of("some"), plan_of("some", space="paper_grid")
    assert views.ranking(validated) == "objective"
    assert views.ranking(plain) == "summary/accuracy_test"
    assert '"orderByKey":"metrics.`objective`"' in views.views(validated)[f"{views.VIEW_TAG}trials"]


# --- the best --------------------------------------------------------------------------------------------------------


def best_of(client, name):
    experiment = client.get_experiment_by_name(name).experiment_id
    return {run.data.tags["trial"]: run for run in find_runs(client, experiment, "tags.best LIKE '%'")}


def test_the_best_of_each_method_and_scenario_is_tagged_with_its_file(client, directory, here, run):
    folder = SweepFolder.open(directory, "whole")
    found = best_of(client, "whole")
    assert len(found) == 6
    finished = [history for history in folder.histories() if history.outcome == "finished"]
    assert len(finished) == 22
    objective = {history.key: history.summary["summary/objective"] for history in finished}
    for key, best in found.items():
        group = key.rpartition("-")[0]
        assert objective[key] == max(value for other, value in objective.items() if other.startswith(f"{group}-"))
        assert best.data.tags["best"] == "{1} on {0}".format(*group.split("-"))
        (file,) = client.list_artifacts(best.info.run_id, "best")
        assert file.path == f"best/{key}.yaml"
    code, _, err = run("export", "whole", "--dir", directory, "--to", "winners")
    assert code == 0, err
    for key, best in found.items():
        there = client.download_artifacts(best.info.run_id, f"best/{key}.yaml", str(here))
        assert Path(there).read_text() == (here / "winners" / f"{key}.yaml").read_text()


def test_a_confirmation_chooses_no_best(client):
    assert best_of(client, "whole-confirm") == {}


def test_a_longer_search_takes_the_tag_from_the_one_it_beats_and_a_user_s_tags_stay(tmp_path):
    folder = tuned(tmp_path / "study-results", "grown", methods=["sgd"], trials=2)

    def rising(history, seed):
        return np.full(history.task_count, 0.5 + 0.01 * history.number)

    play(folder, rising)
    sent(folder)
    client = MlflowClient(default_uri(folder.directory))
    first = best_of(client, "grown")
    assert set(first) == {"permuted_pixels-sgd-001", "class_pairs-sgd-001"}
    for run in first.values():
        client.set_tag(run.info.run_id, "mine", "kept")
    with folder.locked():
        folder.log("budget", trials=4)
    folder = SweepFolder.open(folder.directory, "grown")
    play(folder, rising)
    sent(folder)
    assert set(best_of(client, "grown")) == {"permuted_pixels-sgd-003", "class_pairs-sgd-003"}
    assert client.get_run(first["class_pairs-sgd-001"].info.run_id).data.tags["mine"] == "kept"


# --- the server ------------------------------------------------------------------------------------------------------


def test_links_lead_to_trials_charts_comparisons_and_the_sweep(page, client):
    links = page.links()
    assert set(links) == {
        *(
            f"{part}: {view}"
            for part in ("all trials", "permuted_pixels", "class_pairs")
            for view in ("table", "charts")
        ),
        "the sweep's run",
        "permuted_pixels: the best 10 compared",
        "class_pairs: the best 10 compared",
    }
    assert all(link.startswith(page.root) for link in links.values())
    link = links["class_pairs: the best 10 compared"]
    assert "viewStateShareKey=best-class_pairs&" in link
    assert link.endswith("&compareRunsMode=CHART")
    experiment = client.get_experiment_by_name("whole").experiment_id
    state = json.loads(client.get_experiment(experiment).tags[f"{views.VIEW_TAG}best-class_pairs"])
    assert (state["runsHiddenMode"], state["orderByAsc"]) == ("FIRST_10_RUNS", False)
    shown = client.search_runs([experiment], state["searchFilter"], order_by=[f"{state['orderByKey']} DESC"])[:10]
    ids = [run.info.run_id for run in shown]
    objectives = [run.data.metrics["objective"] for run in shown]
    assert len(ids) == 10
    assert objectives == sorted(objectives, reverse=True)
    others = [
        run
        for run in find_runs(client, experiment, "tags.scenario = 'class_pairs' and attributes.status = 'FINISHED'")
        if run.info.run_id not in ids
    ]
    assert min(objectives) >= max(run.data.metrics["objective"] for run in others)


@pytest.fixture
def unproxied(monkeypatch):
    """Puts back what a command in this process says of proxies."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")


def test_a_server_of_the_same_store_is_used(page, directory, here, run, unproxied):
    code, out, err = run("ui", "whole", "--port", page.port, "--dir", directory)
    assert code == 0, err
    assert f"A server of this store already runs at {page.root}." in out
    assert out.count("http") == len(page.links()) + 1
    assert urllib.request.urlopen(f"{page.root}/health").status == 200


def test_a_port_of_something_else_is_refused(directory, here, unproxied):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = study("ui", "--port", other.getsockname()[1], "--dir", directory, cwd=here)
    assert (done.returncode, done.stdout) == (2, "")
    assert "taken by something else; choose another one with --port" in done.stderr


def test_a_server_of_another_store_is_no_server_of_this_one_even_if_it_has_the_sweep(
    page, directory, here, run, unproxied
):
    """Its numbers of experiments and runs are others, to which no link may lead."""
    copy = here / "copy"
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("mlflow.db", "mlflow-artifacts"))
    elsewhere = f"sqlite:///{here / 'elsewhere.db'}"  # made anew: two copies of one template would look like one store
    MlflowClient(elsewhere).create_experiment("before")
    tracker.sync(SweepFolder.open(copy, "whole"), elsewhere, Blank())
    words = ("--tracking-uri", elsewhere, "--port", page.port, "--dir", directory)
    for name in (["whole"], []):
        code, out, err = run("ui", *name, *words)
        assert (code, out) == (2, "")
        assert "taken by something else; choose another one with --port" in err


def test_no_proxy_stands_before_a_server_of_this_machine(page, directory, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    done = study("ui", "whole", "--port", page.port, "--dir", directory, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "A server of this store already runs" in done.stdout


@pytest.mark.parametrize("words", [("ui", "whole"), ("export", "whole"), ("export", "whole", "--model")])
def test_a_store_that_refuses_is_told_in_a_sentence(words, directory, here, run):
    copy = here / "study-results"
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("mlflow-artifacts"))
    with sqlite3.connect(copy / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'of_another_mlflow'")
    code, out, err = run(*words, "--dir", copy)
    assert_one_sentence(code, out, err)
    assert "MLflow at sqlite:///" in err
    assert " refuses: " in err


def test_a_host_of_another_machine_is_refused(directory, here, run, unproxied):
    code, out, err = run("ui", "--host", "192.0.2.1", "--dir", directory)
    assert (code, out) == (2, "")
    assert "no address of this machine" in err


def test_a_sweep_of_which_mlflow_knows_nothing_is_refused(directory, here, run):
    SweepFolder.create(here, plan_of("unsent"), Execution(data_dir="data"), {"class_pairs": 3})
    code, out, err = run("ui", "unsent", "--dir", ".", "--tracking-uri", default_uri(directory))
    assert (code, out) == (2, "")
    assert "study sync unsent" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stops_cleanly(directory, number):
    running = Page(directory)
    assert list(running.wait()) == ["sweeps"]
    children = [path for path in Path("/proc").glob("[0-9]*") if _parent(path) == running.process.pid]
    assert children
    assert not any(str(directory) in (child / "cmdline").read_text() for child in children), "nor a database's password"
    assert running.end(number) == server.STOPPED
    assert not [child for child in children if child.exists()]
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", running.port))


def test_under_nohup_it_outlives_its_terminal(directory):
    running = Page(directory, hangup=signal.SIG_IGN)
    running.wait()
    running.process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(1)
    assert urllib.request.urlopen(f"{running.root}/health").read() == b"OK"
    assert running.end(signal.SIGTERM) == server.STOPPED


def _parent(process):
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def test_a_browser_is_opened_only_where_somebody_sits(monkeypatch):
    opened = []
    monkeypatch.setattr(ui.webbrowser, "open", opened.append)
    monkeypatch.setattr(ui.sys.stdout, "isatty", lambda: True, raising=False)
    for screen, wanted, expected in (("", True, []), (":0", False, []), (":0", True, ["http://here"])):
        monkeypatch.setenv("DISPLAY", screen)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setattr(ui.sys, "platform", "linux")
        opened.clear()
        ui._show([("first", "http://here"), ("second", "http://there")], wanted)
        assert opened == expected
    monkeypatch.setattr(ui.sys.stdout, "isatty", lambda: False, raising=False)
    ui._show([("first", "http://here")], True)
    assert opened == ["http://here"], "not into a pipe"


# --- what the page shows ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield launched.new_page(viewport={"width": 1900, "height": 900})
        launched.close()


HEADERS = """() => [...document.querySelectorAll('.ag-header-cell')]
    .filter(cell => cell.getBoundingClientRect().right < innerWidth)
    .sort((one, other) => one.getBoundingClientRect().left - other.getBoundingClientRect().left)
    .map(cell => cell.getAttribute('col-id'))"""
"""The columns that can be seen, from left to right."""


def shows(tab, link, *texts):
    """Opens a link and waits for all the texts."""
    tab.goto("about:blank")
    tab.goto(link)
    for text in texts:
        tab.get_by_text(text, exact=True).first.wait_for(state="visible", timeout=PATIENCE * 1000)


def test_the_table_shows_at_once_what_was_tried_and_what_came_of_it_the_best_first(tab, page, client):
    shows(tab, page.links()["permuted_pixels: table"], "objective")
    tab.wait_for_selector("[col-id='metrics.`objective`'] >> nth=3")
    settings = [f"params.`optimizer/{name}`" for name in ("lr", "rho", "lambda")]
    results = [f"metrics.`{name}`" for name in ("objective", "summary/accuracy_test", "summary/decline_test")]
    wanted = [results[0], "tags.`method`", *settings, *results[1:]]
    deadline = time.monotonic() + PATIENCE
    while (seen := [name for name in tab.evaluate(HEADERS) if name in wanted]) != wanted:
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)
    shown = tab.eval_on_selector_all(
        ".ag-row [col-id='metrics.`objective`']", "cells => cells.map(cell => parseFloat(cell.textContent))"
    )
    experiment = client.get_experiment_by_name("whole").experiment_id
    runs = find_runs(client, experiment, "tags.role = 'trial' and tags.scenario = 'permuted_pixels'")
    told = sorted((run.data.metrics["objective"] for run in runs), reverse=True)
    assert shown == pytest.approx(told[: len(shown)], abs=1e-6)
    assert len(shown) == len(told) == 12


def test_the_charts_are_parallel_coordinates_and_accuracy_by_task(tab, page):
    shows(tab, page.links()["class_pairs: charts"], "Parallel Coordinates", "accuracy/test", "accuracy/validation")
    tab.wait_for_selector(".js-plotly-plot .scatterlayer .trace >> nth=2", timeout=PATIENCE * 1000, state="attached")


BARS = """() => [...document.querySelectorAll('.js-plotly-plot .barlayer .point path')]
    .map(bar => getComputedStyle(bar).fill)"""


def test_the_best_are_compared_by_objective_settings_and_accuracy_in_their_methods_colours(tab, page):
    link = page.links()["class_pairs: the best 10 compared"]
    shows(tab, link, "objective", "Parallel Coordinates", "accuracy/test", "accuracy/validation")
    tab.wait_for_selector(".js-plotly-plot .barlayer .point >> nth=9", timeout=PATIENCE * 1000, state="attached")
    fills = tab.evaluate(BARS)
    assert len(fills) == 10
    rgb = {f"rgb({int(c[1:3], 16)}, {int(c[3:5], 16)}, {int(c[5:], 16)})" for c in METHOD_COLOURS.values()}
    assert set(fills) == rgb


def test_mlflow_s_telemetry_is_off(page):
    with urllib.request.urlopen(f"{page.root}/ajax-api/3.0/mlflow/ui-telemetry") as answer:
        assert json.load(answer)["disable_ui_telemetry"] is True


@pytest.mark.parametrize("package", ["study", "analysis"])
@pytest.mark.parametrize("chosen", [None, "false"])
def test_telemetry_is_off_wherever_mlflow_is_used_unless_the_user_has_chosen(package, chosen):
    """Asked of the variable: in a test run MLflow has it off anyway."""
    environment = clean_environment(**({"MLFLOW_DISABLE_TELEMETRY": chosen} if chosen else {}))
    if chosen is None:
        del environment["MLFLOW_DISABLE_TELEMETRY"]  # this process has imported the study
    program = f"import {package}, os, sys; print(os.environ['MLFLOW_DISABLE_TELEMETRY'], 'mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [chosen or "true", "False"]


def test_the_sweeps_page_leads_to_its_trials_and_a_trials_page_to_the_sweep(tab, page, client):
    shows(tab, page.links()["the sweep's run"], "permuted_pixels: table")
    with tab.context.expect_page() as opened:
        tab.get_by_role("link", name="permuted_pixels: table").click()
    opened.value.wait_for_selector("[col-id='metrics.`objective`'] >> nth=3", timeout=PATIENCE * 1000)
    opened.value.close()
    experiment = client.get_experiment_by_name("whole").experiment_id
    best = next(iter(best_of(client, "whole").values()))
    shows(tab, views.run_link(page.root, experiment, best.info.run_id), "The whole sweep", best.info.run_name)
    shows(
        tab, views.artifacts_link(page.root, experiment, best.info.run_id), "best", "configuration", "figures", "tables"
    )
