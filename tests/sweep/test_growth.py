"""What grows with the number of trials, counted in lines and numbers rather than in seconds."""

import tracemalloc

import growth
import numpy as np
import pandas as pd
import pytest

from analysis import sample
from study.sweep import lines, record
from study.sweep.conductor import Conductor
from study.sweep.folder import SweepFolder

TASKS, LANES = 12, 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of sweeps of 20, 40 and 80 made-up trials."""
    return {
        trials: growth.make(tmp_path_factory.mktemp(str(trials)), trials, tasks=TASKS, lanes=LANES)
        for trials in (20, 40, 80)
    }


@pytest.fixture
def parsed(monkeypatch):
    """The number of lines that were parsed since the last look."""
    counted = []
    true = lines._parsed
    monkeypatch.setattr(lines, "_parsed", lambda text, form: counted.append(text) or true(text, form))

    def look():
        count = len(counted)
        counted.clear()
        return count

    return look


LINES_OF_TRIAL = TASKS + 4  # the trial, its start, facts and end


@pytest.mark.parametrize("trials", [20, 40, 80])
def test_every_line_is_read_once_and_the_first_ones_three_times(made, parsed, trials):
    folder = SweepFolder.open(made[trials].directory, growth.NAME)
    parsed()
    assert folder.outcomes() == {"finished": trials}
    assert parsed() == trials * (LINES_OF_TRIAL + 2)  # whether it has a line, and whose record it is
    assert len(folder.histories()) == trials
    assert parsed() == trials * (LINES_OF_TRIAL + 2)


@pytest.mark.parametrize("trials", [20, 40, 80])
def test_list_and_best_read_the_records_once(made, parsed, run, trials):
    for command, once in (("list", 1), ("best", 1)):
        code, out, _ = run(command, *([growth.NAME] if command == "best" else []), "--dir", made[trials].directory)
        assert code == 0
        assert ("80" if trials == 80 else str(trials)) in out or command == "best"
        assert parsed() <= once * trials * (LINES_OF_TRIAL + 2) + 10


def test_list_holds_one_record_at_a_time(made):
    peaks = {}
    for trials, folder in made.items():
        folder.outcomes()
        tracemalloc.start()
        folder.outcomes()
        peaks[trials] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[80] < 1.5 * peaks[20]


def test_a_trial_in_memory_takes_little_more_than_its_numbers(made):
    numbers = TASKS * (11 + LANES * (4 + len(growth.DIAGNOSTICS)))
    held = {}
    for trials in (20, 80):
        made[trials].histories()
        tracemalloc.start()
        histories = made[trials].histories()
        held[trials] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(histories) == trials
    of_one = (held[80] - held[20]) / 60
    assert of_one < 2 * 8 * numbers + 20_000  # the rest is its configuration


def test_the_first_proposal_reads_every_record_once(made, parsed):
    for trials in (20, 80):
        conductor = Conductor(SweepFolder.open(made[trials].directory, growth.NAME))
        assert len(conductor.histories) == trials
        assert parsed() <= trials * (LINES_OF_TRIAL + 2) + 10


def test_an_array_of_numbers_gives_back_the_line_it_was_made_of(made):
    path = next(made[20].root.glob("trials/*/record.jsonl"))
    plain = [line for line in lines.LineReader(path).new_lines() if line["kind"] == "task"]
    plain[3]["diagnostics"]["rank/srank"][1] = None
    compact = [record.compacted(line) for line in plain]
    assert [dict(line) for line in compact] == plain
    assert compact[0] == plain[0]
    assert compact[0].shape is compact[1].shape


def runs(count, methods=2):
    draw = np.random.default_rng(count)
    return pd.DataFrame(
        {
            "run_id": [f"run {place}" for place in range(count)],
            "scenario": "pairs",
            "method": [f"method {place % methods}" for place in range(count)],
            "objective": draw.random(count),
        }
    )


def test_the_page_shows_the_best_and_a_sample_of_many_trials():
    many = runs(2000)
    shown = sample.best_and_sample(many)
    assert len(shown) == sample.MOST
    assert list(shown.index) == sorted(shown.index)
    assert set(many.nlargest(50, "objective")["run_id"]) <= set(shown["run_id"])
    assert set(many.groupby("method")["objective"].idxmax()) <= set(shown.index)
    assert shown.equals(sample.best_and_sample(many))
    others = shown.index.difference(many.nlargest(sample.MOST // 2, "objective").index)
    assert np.diff([0, *others, 2000]).max() < 60  # no part of the sweep is left out
    assert "Of 2,000 trials, 200 are shown" in sample.words(len(shown), len(many))


def test_few_trials_are_all_shown():
    few = runs(sample.MOST)
    assert sample.best_and_sample(few) is few
    assert sample.words(len(few), len(few)) == ""
    assert sample.few(["a"] * 20, "more") == ["a"] * 20
    assert sample.few(["a"] * 22, "failed trials") == [*["a"] * 20, "And 2 more failed trials."]


def test_trials_without_a_value_are_in_the_sample_too():
    many = runs(500).assign(objective=np.nan)
    assert len(sample.best_and_sample(many)) == sample.MOST
