"""An archived sweep is the sweep: the same frames to the last digit, the same report, the same verdicts."""

import functools
import gzip
import json
from dataclasses import replace

import pandas as pd
import pytest
from report_fixtures import play, sent, tuned
from sweep_fixtures import REPOSITORY, study

from analysis import archive, diagnostics, load, report
from analysis import tuned as tuned_methods
from analysis.cause import blocks
from analysis.paper import evidence
from analysis.paper.evidence import PAIRS, PIXELS
from analysis.report.cause import section_cause
from analysis.report.page import Table
from study.config import later_settings
from study.errors import StudyError
from study.tracking.store import default_uri

RESULTS = sorted(path.parent for path in (REPOSITORY / "analysis" / "results").glob("*/sweep.json"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A folder with one sweep in which trials finished, failed, and were left running."""
    place = tmp_path_factory.mktemp("sweeps")
    folder = tuned(place, "played")
    fates = {"permuted_pixels-sgd-001": "failed", "class_pairs-gnp-003": "running", "class_pairs-gnp-002": "waiting"}
    play(folder, fate=lambda history: fates.get(history.key, "finished"))
    sent(folder)
    return place


@pytest.fixture(scope="module")
def sweep(directory):
    return load.sweep("played", default_uri(directory), archive.QUANTITIES, diagnosed=True)


@pytest.fixture(scope="module")
def kept(sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "played"
    archive.save(sweep, folder)
    return folder


def test_what_is_read_is_what_was_saved(sweep, kept):
    found = archive.read(kept)
    pd.testing.assert_frame_equal(found.runs, sweep.runs)
    pd.testing.assert_frame_equal(found.lanes, sweep.lanes[found.lanes.columns], check_dtype=False, check_exact=True)
    pd.testing.assert_frame_equal(found.diagnostics, sweep.diagnostics, check_exact=True)
    assert len(found.diagnostics) == len(sweep.finished) * 10 * 3
    assert set(sweep.runs["outcome"]) > {"finished", "failed"}
    for name in ("name", "identity", "experiment_id", "run_id", "status", "notes", "phase"):
        assert getattr(found, name) == getattr(sweep, name), name
    assert dict(found.plan) == dict(sweep.plan)
    assert found.tags == {name: value for name, value in sweep.tags.items() if not name.startswith("mlflow.")}


def test_the_report_of_an_archive_is_that_of_the_store(sweep, kept, tmp_path, blank_figures):
    stored, _ = report.write(report.make(sweep, []), tmp_path / "stored")
    again, _ = report.write(report.make(archive.read(kept), []), tmp_path / "again")
    tables = sorted(path.name for path in stored.rglob("*.csv"))
    assert tables
    for name in tables:
        (one,), (other,) = stored.rglob(name), again.rglob(name)
        assert one.read_bytes() == other.read_bytes(), name


def test_an_archive_says_nothing_of_where_its_store_was(directory, kept):
    text = (kept / archive.SWEEP).read_text() + gzip.decompress((kept / archive.LANES).read_bytes()).decode()
    assert str(directory) not in text
    assert "mlflow" not in (kept / archive.SWEEP).read_text().replace("version/mlflow", "")


def test_the_same_sweep_gives_the_same_bytes_and_nothing_is_overwritten(sweep, kept, tmp_path):
    archive.save(sweep, tmp_path / "twin")
    for name in (archive.SWEEP, archive.LANES, archive.DIAGNOSTICS, archive.VERDICTS):
        assert (tmp_path / "twin" / name).read_bytes() == (kept / name).read_bytes()
    with pytest.raises(StudyError, match="already exists and is left as it is"):
        archive.save(sweep, tmp_path / "twin")
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written"):
        archive.save(sweep, tmp_path / "file" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "twin"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (archive.SWEEP, b"{"),
        (archive.SWEEP, b'{"format": 0}'),
        (archive.SWEEP, b"[]"),
        (archive.LANES, b"trial,lane\n"),
        (archive.LANES, b"\x1f\x8b damaged"),
        (archive.DIAGNOSTICS, b"\x1f\x8b damaged"),
        (archive.DIAGNOSTICS, gzip.compress(b"trial,lane,task\nx,one,0\n", mtime=0)),
        (archive.LANES, gzip.compress(b"trial,lane,seed,task\nunheard-of,0,0,0\n", mtime=0)),
        (archive.LANES, gzip.compress(b"trial,lane,seed,task\n" + b"x,0,0,0\n" * 9, mtime=0)[:-12]),
        (archive.DIAGNOSTICS, gzip.compress(b"trial,lane,seed,task\n" + b"x,0,0,0\n" * 9, mtime=0)[:-12]),
    ],
)
def test_a_damaged_archive_is_refused(name, content, kept, tmp_path):
    for path in kept.iterdir():
        (tmp_path / path.name).write_bytes(content if path.name == name else path.read_bytes())
    with pytest.raises(StudyError, match=r"cannot be read: .*\.$"):
        archive.read(tmp_path)


def test_an_archive_of_networks_that_were_not_looked_into_has_no_file_of_it(sweep, tmp_path):
    archive.save(replace(sweep, diagnostics=diagnostics.empty()), tmp_path / "plain")
    assert not (tmp_path / "plain" / archive.DIAGNOSTICS).exists()
    assert not len(archive.read(tmp_path / "plain").diagnostics)


def test_an_archive_that_is_older_than_a_quantity_is_read(kept, tmp_path):
    for path in kept.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    words = pd.read_csv(kept / archive.LANES, dtype=str).drop(columns="seconds/training")
    (tmp_path / archive.LANES).write_bytes(gzip.compress(words.to_csv(index=False).encode()))
    found = archive.read(tmp_path).lanes
    assert found["seconds/training"].isna().all()
    assert found["accuracy/test"].notna().all()


@pytest.mark.parametrize("every", [1, 2])
def test_trials_from_before_a_setting_have_the_value_that_it_had_then(every, kept, sweep, tmp_path):
    """In the whole archive, or in a part, as of a sweep that another version went on with."""
    for path in kept.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    plain = json.loads((kept / archive.SWEEP).read_text())
    for run in plain["runs"][::every]:
        lacked = later_settings(run)
        assert {"training/pixels", "model/activation"} <= lacked.keys()
        for name in lacked:
            del run[name]
    (tmp_path / archive.SWEEP).write_text(json.dumps(plain))
    pd.testing.assert_frame_equal(archive.read(tmp_path).runs, sweep.runs)


def test_there_is_no_archive_where_there_is_none(tmp_path):
    with pytest.raises(StudyError, match="There is no archived sweep"):
        archive.read(tmp_path)


def test_the_commands_write_an_archive_and_make_a_report_of_it(directory, sweep, run, monkeypatch, blank_figures):
    monkeypatch.chdir(directory)
    done = study("archive", "played", "--dir", ".", "--to", "archived", cwd=directory)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(archive.read(directory / "archived").runs, sweep.runs)
    assert run("archive", "played", "--dir", ".", "--to", "archived")[:2] == (2, "")
    code, _, err = run("report", "archived", "--to", "page")
    assert code == 0, err
    assert (directory / "page" / "report.html").is_file()
    code, out, err = run("report", "archived")
    assert (code, out) == (2, "")
    assert "--to" in err


# --- what is committed -----------------------------------------------------------------------------------------------


@functools.cache
def archived(name):
    """A committed archive, which no test may change."""
    return archive.read(REPOSITORY / "analysis" / "results" / name)


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_the_verdicts_that_are_committed_follow_from_the_numbers_beside_them(folder):
    told = pd.read_csv(folder / archive.VERDICTS)
    found = archive.verdicts(archived(folder.name))
    pd.testing.assert_frame_equal(found, told, check_dtype=False)
    assert told["claim"].tolist() == [f"C{number}" for number in range(1, 8)]


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_a_sweep_from_before_the_decline_after_warm_up_has_it_from_its_lanes(folder):
    sweep = archived(folder.name)
    for run in sweep.finished.to_dict("records")[:3]:
        accuracy = sweep.accuracy(run["run_id"]).to_numpy()
        edge = -(-len(accuracy) // 10)
        early, last = accuracy[edge // 2 : edge // 2 + edge], accuracy[-edge:]
        assert run["summary/decline_after_warmup_test"] == pytest.approx(early.mean() - last.mean(), abs=1e-12)


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_so_do_those_under_other_assumptions(folder):
    found, file = archive.verdicts_under_assumptions(archived(folder.name)), folder / archive.ASSUMPTIONS
    assert file.is_file() == bool(len(found))
    if len(found):
        told = pd.read_csv(file).fillna({"run_ids": ""})  # where nothing was judged there are none
        pd.testing.assert_frame_equal(found, told, check_dtype=False)


def test_the_papers_experiment_is_committed_in_full():
    sweep = archived("paper_grid")
    found = evidence.gather(sweep)
    assert found.stated == found.assumed == ()
    assert len(found.accuracy) == 12
    for setting, accuracy in found.accuracy.items():
        assert accuracy.shape == ({PIXELS: 100, PAIRS: 45}[setting.tasks], 10), setting
        assert accuracy.notna().all(axis=None)


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_what_is_committed_is_finished_and_small(folder):
    sweep = archived(folder.name)
    assert set(sweep.runs["outcome"]) == {"finished"}
    assert len(sweep.runs) == sum(group["trials"] for group in sweep.plan["groups"])
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000


def test_there_are_results():
    assert RESULTS


def test_the_findings_name_the_loss_since_the_best_ten_tasks():
    page = (REPOSITORY / "study" / "docs" / "findings.md").read_text(encoding="utf-8")
    sweep = archived("paper_grid")
    runs = sweep.finished[(sweep.finished["scenario"] == PIXELS) & (sweep.finished["optimizer/lr"] == 0.01)]
    assert list(runs["method"]) == ["sgd", "sam", "gnp"]
    for run in load.rows(runs):
        means = (
            sweep.accuracy(run["run_id"]).mean(axis=1).rolling(10).mean()
        )  # of ten tasks in a row, by the last of them
        assert f"{means.max() - means.iloc[-1]:.4f}" in page


def page_of(name):
    return " ".join((REPOSITORY / "study" / "docs" / name).read_text(encoding="utf-8").split())


def test_confirmations_beside_an_archive_are_found():
    place = REPOSITORY / "analysis" / "results" / "beyond_pairs"
    found = archive.confirmations(place, archived("beyond_pairs"))
    assert [sweep.name for sweep in found] == ["beyond_pairs-confirm", "beyond_pairs-fashion"]
    assert archive.confirmations(place, archived("paper_grid")) == []


def test_the_findings_have_the_late_accuracies_of_the_tuned_pairs():
    page = page_of("findings.md")
    found = tuned_methods.against_baseline([archived("beyond_pairs-confirm"), archived("beyond_pairs-fashion")])
    assert [contrast.first for contrast in found] == ["sam", "gnp"] * 2
    assert {contrast.answer for contrast in found} == {"no"}
    for contrast in found:
        bounds = contrast.difference
        assert f"{contrast.late[0]:.4f} | {bounds.mean:.4f} [{bounds.low:.4f}, {bounds.high:.4f}]" in page
        assert f"{contrast.late[1]:.4f}" in page


def test_the_findings_have_the_late_accuracies_of_the_tuned_permutations():
    page, confirmed = page_of("findings.md"), archived("beyond_pixels-confirm")
    found = tuned_methods.against_baseline([confirmed])
    assert [(contrast.first, contrast.answer) for contrast in found] == [("sam", "no"), ("gnp", "no")]
    for contrast in found:
        bounds = contrast.difference
        assert f"{contrast.late[0]:.4f} | {bounds.mean:.4f} [{bounds.low:.4f}, {bounds.high:.4f}] | no" in page
        assert f"| {contrast.late[1]:.4f} | | |" in page
    sgd, sam, gnp = found[0].declines[1], found[0].declines[0], found[1].declines[0]
    assert f"falls by {sgd.mean:.3f} (SGD), {sam.mean:.3f} (SAM) and {gnp.mean:.3f} (GNP)" in page


def test_the_answers_about_tuned_methods_hold_together():
    names = ("beyond_pairs-confirm", "beyond_pairs-fashion", "beyond_pixels-confirm")
    found = tuned_methods.against_baseline([archived(name) for name in names])
    assert len(found) == 6
    assert {contrast.answer for contrast in found} == {"no"}


def test_the_findings_say_which_claims_depend_on_which_assumption():
    page = page_of("findings.md")
    verdicts = archive.verdicts_under_assumptions(archived("assumptions"))
    turned = verdicts[verdicts["depends"] != "no"]
    assert set(turned["claim"]) == {"C4"}
    assert set(turned["assumption"]) == {"symmetric pixels", "Kaiming's initialisation"}
    assert set(turned["here"]) == {"reproduced"}
    assert verdicts["assumption"].nunique() == 10  # with the main experiment
    by_claim = verdicts.groupby("claim")["here"].agg(set)
    assert [by_claim[claim] for claim in ("C2", "C3", "C7")] == [{"contradicted"}] * 3
    assert [by_claim[claim] for claim in ("C1", "C6")] == [{"reproduced", "undecided"}] * 2
    assert by_claim["C5"] == {"contradicted", "undecided"}
    assert "C4 depends on the scale of the pixels and on the initialisation" in page
    assert "C2, C3 and C7 are contradicted under every assumption" in page


def test_the_page_on_cause_has_the_answers_of_surgery():
    page, section = page_of("cause.md"), section_cause(archived("surgery"))
    answers = next(block.frame for block in section.blocks if block.name == "cause_probes")
    assert list(answers["answer"]) == ["yes", "yes", "not tested", "not tested"]
    first, second = answers["estimate"].iloc[:2]
    assert f"by {first:.3f} [{answers['estimate_low'].iloc[0]:.3f}, {answers['estimate_high'].iloc[0]:.3f}]" in page
    assert f"takes away {-second:.3f}" in page


def test_the_page_on_cause_has_the_answers_of_surgery_on_other_tasks():
    page, by_name = page_of("cause.md"), {}
    for name in ("surgery", "surgery_beyond"):
        tables = [block for block in section_cause(archived(name)).blocks if isinstance(block, Table)]
        by_name |= {f"{name}: {block.name}": block.frame for block in tables}
    slopes = [
        by_name[name].iloc[:5]
        for name in ("surgery: cause_slopes", "surgery_beyond: cause_slopes-1", "surgery_beyond: cause_slopes-2")
    ]
    for place, words in enumerate(("0.003", "0.01", "0.03")):
        assert f"| {words} | {' | '.join(bounded(of.iloc[place], 'slope') for of in slopes)} |" in page
    answers = [by_name[f"surgery_beyond: cause_probes-{number}"] for number in (1, 2)]
    assert [list(frame["answer"][:2]) for frame in answers] == [["no", "yes"], ["yes", "yes"]]
    for place, words, said in ((3, "all (H1)", ("yes", "no", "yes")), (4, "tenfold rate (H2)", ("yes",) * 3)):
        cells = (f"{answer}: {bounded(of.iloc[place], 'slope')}" for answer, of in zip(said, slopes, strict=True))
        assert f"| {words} | {' | '.join(cells)} |" in page
    by_task = by_name["surgery_beyond: cause_tasks-1"].set_index("arm")
    for arm, words in OPERATIONS.items():
        cells = (bounded(by_task.loc[arm], f"task_{task}") for task in (4, 8, 12, 16))
        assert f"| {words} | {' | '.join(cells)} |" in page
    best = by_task[by_task.index.str.startswith("layer_rescaling")].max(numeric_only=True)
    assert f"the best level of sharpness gives back {best['task_12']:.3f} and {best['task_16']:.3f}" in page
    operations = by_name["surgery_beyond: cause_operations-2"]
    redrawn = operations[operations["arm"] == "idle_units"].iloc[0]
    assert f"redrawn units change nothing ({bounded(redrawn, 'outcome')})" in page
    (first, *_) = blocks.blocks(archived("surgery_beyond"))
    means = zip(first.boundaries, first.accuracy[0].mean(axis=(0, 2)), strict=True)
    late = [f"{mean:.3f} on task {task}" for task, mean in means]
    assert f"untouched copies is {', '.join(late[:3])} and {late[3]}" in page


OPERATIONS = {
    "layer_rescaling 0": "flattest copy",
    "layer_rescaling 1": "sharpest copy",
    "idle_units": "idle units redrawn",
    "random_displacement 1": "random displacement",
    "fresh_weights": "new weights",
}


def bounded(row, name):
    """An estimate and its interval, as the page has them."""
    words = "{:.3f} [{:.3f}, {:.3f}]".format(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))
    return words.replace("-0.000", "0.000")


def test_the_page_on_cause_has_the_answers_of_doses_of_rho():
    page, sweep = page_of("cause.md"), archived("dose_response")
    frames = {block.name: block.frame for block in section_cause(sweep).blocks if isinstance(block, Table)}
    answers = frames["cause_doses"]
    assert list(answers["answer"]) == ["not tested", "not tested", "no", "open"]
    assert "H3: no, many lines" in page
    assert "H4: open" in page
    line, direct = answers.iloc[2], answers.iloc[3]
    assert f"slope of {line.estimate:.3f} [{line.estimate_low:.3f}, {line.estimate_high:.3f}]" in page
    assert f"by {direct.estimate:.3f} [{direct.estimate_low:.3f}, {direct.estimate_high:.3f}]" in page
    assert f"adjusted p = {line.p_adjusted:.3f} and" in page
    slopes = frames["cause_dose_slopes"]
    for each in slopes.itertuples():
        assert f"{each.slope:.3f} [{each.slope_low:.3f}, {each.slope_high:.3f}] |" in page, each.of
    steepness = slopes["slope"].iloc[0] / direct.estimate
    assert 27 < steepness < 34, "the page says thirty times as steep"
    ways = frames["cause_ways"].set_index("way")
    for way in ("batch size 64", "learning rate 0.005", "sam -0.05"):
        lost = ways.loc[way]
        assert f"{-lost.outcome:.3f} [{-lost.outcome_high:.3f}, {-lost.outcome_low:.3f}]" in page, way
    assert f"{2 ** ways.loc['sam -0.05'].sharpening:.1f} times as sharp" in page
    on_the_line = ["sam 0.01", "sam 0.02", "sam 0.05", "friendly_sam 0.05", "random_sam 1", "random_sam 5"]
    assert ways.loc[on_the_line, ["distance_low", "distance_high"]].abs().to_numpy().max() < 0.005
    late = {run["name"]: sweep.accuracy(run["run_id"]).tail(10).to_numpy().mean() for run in load.rows(sweep.finished)}
    both = "every=1 threshold=0.025 every=125"
    assert f"from {late[f'sam {both} rho=-0.05']:.3f} at" in page
    assert (
        f"to {late[f'sam {both} rho=0.05']:.3f} at 0.05 and falls to {late[f'sam {both} rho=0.2']:.3f} at 0.2" in page
    )
    assert f"has {late['sgd']:.3f} with nothing held and {late[f'sgd {both}']:.3f} with both" in page
