"""MLflow and the report of a sweep that optimised something else than the mean validation accuracy."""

import mlflow
from report_fixtures import Tables, confirmed, play, sent, tuned

from analysis import archive, load, report, tables
from study.sweep import winners
from study.tracking import views

GOAL = "decline_after_warmup"


def test_it_is_named_and_selected_by_in_the_store_the_archive_and_the_report(directory, uri, blank_figures):
    choices = {"scenarios": ["class_pairs"], "methods": ["sgd", "sam"], "objectives": [GOAL]}
    folder = tuned(directory, "chosen", **choices)
    play(folder)
    sent(folder)
    sent(folder)  # again, as after a resume
    mlflow.set_tracking_uri(uri)
    (own,) = mlflow.search_runs(experiment_names=["chosen"], filter_string="tags.role = 'sweep'", output_format="list")
    assert own.data.params["objective"] == GOAL
    best = {
        history.key: history for history in folder.histories() if history.key in winners.best_keys(folder.histories())
    }
    for history in best.values():
        rivals = [other.objective for other in folder.histories() if other.group == history.group]
        assert history.objective == min(rivals) < max(rivals)
        assert own.data.metrics[f"best_objective/{history.group}"] == history.objective
    assert (views.ranking(folder.plan), views._is_ascending(folder.plan)) == (GOAL, True)

    sweep = load.sweep("chosen", uri, archive.QUANTITIES)
    assert set(tables.best(sweep)["trial"]) == set(best)
    assert tables.best(sweep)["summary/chosen_objective"].tolist() == [history.objective for history in best.values()]
    archive.save(sweep, directory / "kept")
    assert set(tables.best(archive.read(directory / "kept"))["trial"]) == set(best)

    confirmation = confirmed(folder)
    play(confirmation)
    sent(confirmation)
    page = report.make(*report.load_all("chosen", uri))
    place, _ = report.write(page, directory / "report")
    shown = Tables((place / report.PAGE).read_text()).tables["tuned_confirmed-chosen-confirm"]
    for row in shown:
        assert row["objective tuned"]["values"], row
    words = "".join(str(paragraph) for section in page.sections for paragraph in section.paragraphs)
    assert "the lowest decline of validation accuracy after warm-up is selected; no test image was read for it" in words
    captions = " ".join(picture.caption for picture in page.pictures)
    assert "decline of validation accuracy after warm-up (share), minimised" in captions
    assert "The objective is the decline of validation accuracy after warm-up, minimised." in " ".join(
        table.caption for table in page.tables
    )
