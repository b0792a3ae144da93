"""The checks of `study doctor`, and its advice on problems."""

import json
import re
import shutil

import mlflow
import pytest
import torch
from sweep_fixtures import study

from study import provenance
from study.cli import doctor
from study.data import raw_files

NO_RAY = ("--address", "127.0.0.1:1")
"""A cluster that does not exist: refused at once, so that the other checks run without starting Ray."""


@pytest.fixture
def seen(here, run):
    """Runs the doctor without Ray.

    Gives its lines by topic and name, and its problems except Ray's.
    """

    def call(*words):
        code, out, err = run("doctor", *NO_RAY, "--data-dir", here / "data", *words)
        lines, topic = {}, ""
        for line in out.splitlines():
            if line and not line.startswith(" "):
                topic = line
            elif line:
                name, text = re.split(r"  +", line.strip(), maxsplit=1)
                lines[topic, name] = text
        problems = [line.removeprefix("problem: ") for line in err.splitlines()]
        assert "No Ray cluster answers at --address 127.0.0.1:1" in problems.pop()
        assert code == 1
        return lines, problems

    return call


def test_versions_and_the_machine_are_those_of_this_process(seen):
    lines, problems = seen()
    assert problems == []
    assert lines["versions", "torch"] == provenance.versions()["torch"]
    assert lines["versions", "mlflow"] == mlflow.__version__
    assert lines["machine", "host"] == provenance.host()
    if not torch.cuda.is_available():
        assert lines["machine", "GPUs"].startswith("none that torch can use")


def test_looking_leaves_nothing_behind(seen, here):
    seen()
    assert list(here.iterdir()) == []


def test_data_sets_are_told_with_their_fingerprints_or_where_they_will_lie(seen, here):
    lines, problems = seen()
    assert problems == []
    assert re.fullmatch(
        r"4,000 \+ 1,000 images, fingerprint [0-9a-f]{16}, inside a package", lines["data sets", "mnist5k"]
    )
    for name, class_name in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")):
        raw = raw_files(class_name, here / "data")
        assert lines["data sets", name] == f"not in {raw}; will be downloaded there on first use"


def test_data_sets_in_the_cache_are_loaded(here, run, data_dir):
    _, out, _ = run("doctor", *NO_RAY, "--data-dir", data_dir)
    for name in ("mnist", "fashion_mnist"):
        assert re.search(rf"^  {name} +60,000 \+ 10,000 images, fingerprint [0-9a-f]{{16}}, in ", out, re.MULTILINE)


def test_a_damaged_data_set_is_a_problem(seen, here):
    raw = raw_files("MNIST", here / "data")
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte").write_bytes(b"not it")
    lines, (problem,) = seen()
    assert lines["data sets", "mnist"] == "damaged"
    assert "'mnist'" in problem
    assert "delete its four files" in problem


def test_a_folder_that_cannot_be_written_is_a_problem(seen, here):
    (here / "file").write_text("in the way")
    _, problems = seen("--dir", here / "file")
    assert any("cannot be a folder" in problem for problem in problems)


def test_a_full_disk_is_a_problem(seen, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    lines, (problem,) = seen()
    assert lines["results", "disk"].startswith("0.0 GiB free")
    assert "make room" in problem


def test_a_store_that_is_not_there_yet_is_no_problem_and_is_not_made(seen, here):
    lines, problems = seen()
    assert problems == []
    assert lines["MLflow", "store"].endswith("study-results/mlflow.db, will be created by the first sweep")
    assert not (here / "study-results").exists()


def test_a_server_that_does_not_answer_is_a_problem(seen):
    _, (problem,) = seen("--tracking-uri", "http://127.0.0.1:1")
    assert problem.startswith("No MLflow server answers at http://127.0.0.1:1 ")


@pytest.mark.sweep
def test_a_healthy_machine_has_no_problem_and_ray_is_really_started(tmp_path):
    done = study("doctor", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "No problem found."
    (line,) = re.findall(r"^  node 127\.0\.0\.1 .*$", done.stdout, re.MULTILINE)
    assert re.search(r"\d+ CPUs, \d+ GPUs, .* GiB memory; runs this code and can use ", line)
    assert list(tmp_path.iterdir()) == []


def test_the_findings_as_json_are_those_that_are_shown(here, run, monkeypatch):
    found = [doctor.Finding("disk", "free", "1 GiB", "Make room."), doctor.Finding("versions", "torch", "2")]
    monkeypatch.setattr(doctor, "examine", lambda *_: iter(found))
    code, out, err = run("doctor", "--json")
    assert (code, err) == (1, "")
    assert [doctor.Finding(**plain) for plain in json.loads(out)] == found
