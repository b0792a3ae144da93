"""What `study doctor` sees, and what it says about what does not work."""

import re
import shutil

import mlflow
import pytest
import torch
from sweep_fixtures import study

from study import provenance
from study.data import raw_files

NO_RAY = ("--address", "127.0.0.1:1")
"""A cluster that is not there: refused at once, so that what comes before it can be looked at without starting Ray."""


@pytest.fixture
def seen(here, run):
    """Runs the doctor without Ray: what it printed by topic and name, its problems but Ray's, and its exit code."""

    def call(*words):
        code, out, err = run("doctor", *NO_RAY, "--data-dir", here / "data", *words)
        found, topic = {}, ""
        for line in out.splitlines():
            if line and not line.startswith(" "):
                topic = line
            elif line:
                name, text = re.split(r"  +", line.strip(), maxsplit=1)
                found[topic, name] = text
        problems = [line.removeprefix("problem: ") for line in err.splitlines()]
        assert "No Ray cluster answers at --address 127.0.0.1:1" in problems.pop()
        assert code == 1
        return found, problems

    return call


def test_versions_and_the_machine_are_those_of_this_process(seen):
    found, problems = seen()
    assert problems == []
    assert found["versions", "torch"] == provenance.versions()["torch"]
    assert found["versions", "mlflow"] == mlflow.__version__
    assert found["machine", "host"] == provenance.host()
    if not torch.cuda.is_available():
        assert found["machine", "GPUs"].startswith("none that torch can use")


def test_looking_leaves_nothing_behind(seen, here):
    seen()
    assert list(here.iterdir()) == []


def test_data_sets_are_told_with_their_fingerprints_or_where_they_will_lie(seen, here):
    found, problems = seen()
    assert problems == []
    assert re.fullmatch(
        r"4,000 \+ 1,000 images, fingerprint [0-9a-f]{16}, inside a package", found["data sets", "mnist5k"]
    )
    for name, class_name in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")):
        raw = raw_files(class_name, here / "data")
        assert found["data sets", name] == f"not in {raw}; downloaded there on first use"


def test_data_sets_in_the_cache_are_loaded(here, run, data_dir):
    _, out, _ = run("doctor", *NO_RAY, "--data-dir", data_dir)
    for name in ("mnist", "fashion_mnist"):
        assert re.search(rf"^  {name} +60,000 \+ 10,000 images, fingerprint [0-9a-f]{{16}}, in ", out, re.MULTILINE)


def test_a_damaged_data_set_is_a_problem(seen, here):
    raw = raw_files("MNIST", here / "data")
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte").write_bytes(b"not it")
    found, (problem,) = seen()
    assert found["data sets", "mnist"] == "damaged"
    assert "'mnist'" in problem
    assert "delete its four files" in problem


def test_a_folder_that_cannot_be_written_is_a_problem(seen, here):
    (here / "file").write_text("in the way")
    _, problems = seen("--dir", here / "file")
    assert any("cannot be a folder" in problem for problem in problems)


def test_a_full_disk_is_a_problem(seen, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    found, (problem,) = seen()
    assert found["results", "disk"].startswith("0.0 GiB free")
    assert "make room" in problem


def test_a_store_that_is_not_there_yet_is_no_problem_and_is_not_made(seen, here):
    found, problems = seen()
    assert problems == []
    assert found["MLflow", "store"].endswith("study-results/mlflow.db, made by the first sweep")
    assert not (here / "study-results").exists()


def test_a_server_that_does_not_answer_is_a_problem(seen):
    _, (problem,) = seen("--tracking-uri", "http://127.0.0.1:1")
    assert problem.startswith("MLflow at http://127.0.0.1:1 cannot be used")


@pytest.mark.sweep
def test_a_healthy_machine_has_no_problem_and_ray_is_really_started(tmp_path):
    done = study("doctor", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "No problem found."
    (line,) = re.findall(r"^  node 127\.0\.0\.1 .*$", done.stdout, re.MULTILINE)
    assert re.search(r"\d+ CPUs, \d+ GPUs, .* GiB memory; runs this code and reaches ", line)
    assert list(tmp_path.iterdir()) == []
