"""Driver and workers run the same code, and a sweep ends where they cannot."""

import json
from types import SimpleNamespace

import pytest
import ray
from ray.tune.schedulers import TrialScheduler

from study import provenance
from study.cluster import connection, tuner
from study.cluster.nodes import Node
from study.sweep.execution import Execution


def search_path(job):
    """What Ray makes workers search before all else, given the job of their driver."""
    assert job._runtime_env_has_working_dir()  # so Ray adds neither the current folder nor that of the script
    return list(job._get_proto_job_config().py_driver_sys_path)


def test_workers_search_no_folder_of_the_driver_for_the_installed_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "installed_folder", provenance.source_folder)
    assert search_path(connection._job()) == []


@pytest.mark.parametrize("installed", [None, "elsewhere"])
def test_workers_search_the_drivers_source_first_where_it_is_not_the_installed_one(tmp_path, monkeypatch, installed):
    monkeypatch.setattr(provenance, "installed_folder", lambda: installed and tmp_path / installed)
    assert search_path(connection._job()) == [str(provenance.source_folder())]


def test_a_sweep_ends_when_a_worker_refuses_to_train():
    ending = tuner._Ending(lambda: False)
    verdicts = tuner.Verdicts(SimpleNamespace(), ending)
    trial = SimpleNamespace(config={"trials": [{"key": "pairs-sgd-000"}]})
    report = {"report": json.dumps({"refusal": "a worker runs other code"})}
    assert verdicts.on_trial_result(None, trial, report) == TrialScheduler.STOP
    assert ending.fault == "a worker runs other code"
    assert ending.stop_all()


def answer(**changes):
    own = {
        "host": "far",
        "source": provenance.source_fingerprint(),
        "folder": str(provenance.source_folder()),
        "versions": provenance.versions(),
        "fault": "",
    }
    return {name: value for name, value in {**own, **changes}.items() if value is not None}


@pytest.mark.parametrize("folder", ["/opt/other", None])  # older versions do not tell it
def test_a_node_with_other_code_is_refused_by_name_and_both_places(tmp_path, monkeypatch, folder):
    monkeypatch.setattr("study.cluster.nodes._ask", lambda *_: [answer(source="0" * 16, folder=folder)])
    (report,) = connection_report(tmp_path)
    assert "10.0.0.9 (far) has other code of the study" in report.problem
    assert f"this machine, in {provenance.source_folder()}; install the same on all nodes." in report.problem
    assert folder is None or "in /opt/other" in report.problem


def connection_report(place):
    from study.cluster import nodes

    return nodes.examine([Node("one", "10.0.0.9")], str(place), "advice")


@pytest.mark.parametrize("address", ["auto", "10.0.0.9:6379"])
def test_the_code_of_a_cluster_of_one_node_is_checked_too(monkeypatch, address):
    asked = []
    monkeypatch.setattr("study.cluster.nodes.check", lambda nodes, *_: asked.append(nodes) or ["note"])
    monkeypatch.setattr("study.cluster.resources.divided", lambda execution, *_: execution)
    cluster = [Node("one", "10.0.0.9")]
    execution = Execution(data_dir="data", address=address)
    assert connection._resolved(cluster, execution, None, "place") == (execution, ["note"])
    assert asked == [cluster]
    local = Execution(data_dir="data")
    assert connection._resolved(cluster, local, None, "place") == (local, [])
    assert asked == [cluster]
    assert not ray.is_initialized()
