"""A sweep broken at random moments equals one without faults.

`pytest -m slow` breaks a sweep of 12 trials of 10 tasks at STUDY_FAULTS moments.
"""

import os
import sys
import time

import pytest
from faults import Chance, Site, assert_same_results, mlflow_server, tables

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]

FAULTS = int(os.environ.get("STUDY_FAULTS", "6"))
LONG = (
    *("quickstart", "--trials", 2, "--seeds", 2, "--workers", 2),
    *("--set", "tasks/count=10", "--set", "tasks/images_per_task=640", "--set", "diagnostics/images=32"),
)


def breaks_once(site, server, chance):
    """Breaks the running sweep once, in a random way.

    Leaves a driver running. Returns what was done.
    """
    how = chance.choice(
        ["worker"] * 4
        + ["worker and checkpoint"] * 2
        + ["driver"] * 3
        + ["driver and checkpoint"] * 2
        + ["server killed", "server stopped", "interrupts"]
    )
    if how.startswith("worker"):
        site.wait_for_a_worker().kill()
        return f"{how} {site.damage(chance)}" if how.endswith("checkpoint") else how
    if how.startswith("server"):
        server.back()
        site.wait_until_begun()  # a driver that finds no server at its start refuses to begin
        (server.kill if how == "server killed" else server.stop)()
        return how
    if how == "interrupts":
        code, _, err = site.driver.interrupt_twice()
        assert code == 130, err
    else:
        site.driver.kill()
    if how.endswith("checkpoint"):
        how += f" {site.damage(chance)}"
    server.back()
    site.go()
    return how


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_sweep_with_random_faults_in_a_row_equals_one_without(tmp_path, beside):
    chance = Chance("random faults")
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = Site(tmp_path / "whole", "whole", *LONG)
    undisturbed = beside.submit(whole.finish)
    with mlflow_server(tmp_path / "cut" / "mlflow") as server:
        site = Site(tmp_path / "cut", "cut", *LONG, "--tracking-uri", server.uri)
        site.database = server.database
        site.go()
        for left in range(FAULTS, 0, -1):
            to_do = 120 - len(site.kinds("task"))
            assert site.wait_for_tasks(chance.randrange(max(1, to_do // left))), site.driver.end()
            time.sleep(chance.uniform(0, 0.5))
            done = len(site.kinds("task"))
            print(f"after {done} tasks: {breaks_once(site, server, chance)}", flush=True)
        if server.is_away:
            time.sleep(chance.uniform(0, 12))
            server.back()
        code, out, err = site.driver.end()
        print(out)
    assert code == 0, err
    assert tables(out) == tables(undisturbed.result())
    assert_same_results(site, whole, 10)
