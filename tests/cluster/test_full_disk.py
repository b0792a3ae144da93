"""A sweep that cannot write any more stops clearly and loses nothing."""

import sys

import pytest
from faults import SWEEP, TASKS, Chance, Site, assert_same_results, barred, filled, frozen, small_disk, tables

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]


def stopped_by(break_it, site, undisturbed, copy):
    """Breaks what the sweep writes to, at a random moment.

    Expects a clear stop, repairs it, resumes, and expects all results.
    """
    driver = site.go()
    assert site.wait_for_tasks(Chance(site.name).randrange(1, 12)), driver.end()
    with break_it(driver):
        code, out, err = driver.end()
        before = site.records()
    assert code == 1, out + err
    (sentence,) = [line for line in err.splitlines() if line.startswith("study: ")]
    assert f"study resume {site.name}" in sentence
    out = site.finish()
    after = site.records()
    assert all(after[key][: len(lines)] == lines for key, lines in before.items())
    assert tables(out) == tables(undisturbed.result()[1])
    assert_same_results(site.copied_to(copy), undisturbed.result()[0], TASKS)
    return sentence


@pytest.mark.slow
def test_a_full_disk_stops_the_sweep_clearly_and_loses_nothing(tmp_path, undisturbed):
    with small_disk(tmp_path / "small", 64) as (enter, disk):
        site = Site(tmp_path / "small", "full", *SWEEP, wrapper=enter, seen_at=disk)
        sentence = stopped_by(lambda _: filled(disk), site, undisturbed, tmp_path / "copy")
    assert "No space left on device" in sentence


@pytest.mark.slow
def test_files_that_cannot_grow_stop_the_sweep_clearly_and_lose_nothing(tmp_path, undisturbed):
    sentence = stopped_by(frozen, Site(tmp_path, "frozen", *SWEEP), undisturbed, tmp_path / "copy")
    assert "File too large" in sentence


@pytest.mark.slow
def test_checkpoints_that_cannot_be_stored_stop_the_sweep_clearly_and_lose_nothing(tmp_path, undisturbed):
    site = Site(tmp_path, "barred", *SWEEP)
    sentence = stopped_by(lambda _: barred(site.sweep / "ray"), site, undisturbed, tmp_path / "copy")
    assert "checkpoint" in sentence
