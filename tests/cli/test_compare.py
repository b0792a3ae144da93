"""`study compare`: sweeps and archives side by side, read and never changed."""

import hashlib
import shutil

import pytest
from report_fixtures import whole_directory
from sweep_fixtures import REPOSITORY, folder_of, plan_of

RESULTS = REPOSITORY / "analysis" / "results"
CONFIRMED, FASHION = RESULTS / "beyond_pairs-confirm", RESULTS / "beyond_pairs-fashion"


def contents(folder):
    """The files of a folder and what is in them."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def sweeps(here):
    """The folder `study-results` with a sweep and its confirmation."""
    shutil.copytree(whole_directory(), here / "study-results")
    return here / "study-results"


def test_archives_are_compared_in_the_terminal_and_on_a_page(here, run, blank_figures):
    before = contents(RESULTS)
    words = ("compare", CONFIRMED, FASHION, "--quantity", "late_accuracy", "--to", "compared", "--format", "latex")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["sam", "beyond_pairs-fashion", "20", "0.9791", "[0.9766,", "0.9815]"] in [row[:6] for row in rows]
    assert "wrote compared/report.html" in out
    assert sorted(path.name for path in (here / "compared" / "tables").iterdir()) == [
        f"{name}.{kind}" for name in ("comparison", "differing") for kind in ("csv", "tex")
    ]
    assert contents(RESULTS) == before
    assert "unchanged: compared/report.html" in run(*words)[1]


def test_sweeps_are_compared_and_left_as_they_are(sweeps, run, blank_figures):
    before = contents(sweeps)
    code, out, err = run("compare", "whole-confirm", "whole")
    assert (code, err) == (0, "")
    assert "unpaired" in (sweeps / "compared-whole-confirm-whole" / "report.html").read_text(encoding="utf-8")
    assert "`whole` chose its best trials by these seeds and images" in out
    after = contents(sweeps)
    new = {path for path in after if path.parts[0] == "compared-whole-confirm-whole"}
    assert {path: after[path] for path in after if path not in new} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Missing argument"),
        (("first",), "at least two sweeps"),
        ((CONFIRMED, CONFIRMED), "is named twice"),
        ((CONFIRMED, FASHION), "with --to"),
        ((CONFIRMED, FASHION, "--to", "page", "--quantity", "late_acuracy"), "did you mean 'late_accuracy'"),
        ((CONFIRMED, FASHION, "--to", "page", "--baseline", "adamw"), "known: gnp, sam, sgd"),
        ((CONFIRMED, FASHION, "--to", "page", "--format", "gif"), "--format 'gif' is unknown"),
        ((CONFIRMED, "nothing", "--to", "page"), "There is no sweep 'nothing'"),
        ((CONFIRMED, RESULTS / "surgery", "--to", "page"), "Nothing to compare"),
        (("first", "second"), "`study sync first`"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(refused, here, words, said):
    for name in ("first", "second"):
        folder_of(here / "study-results", plan_of(name))
    assert said in refused("compare", *words)
