"""Records and logs that were edited, torn, mixed up or written by another version: told by file and line."""

import json
import os
import random
import re
import shutil

import pytest
from shared import once
from sweep_fixtures import FACTS, assert_one_sentence, folder_of, lines_of, plan_of, task_line, train

from study.errors import StudyError
from study.sweep import optuna_storage, winners
from study.sweep.conductor import Conductor
from study.sweep.folder import SweepFolder
from study.sweep.lines import FORMAT
from study.sweep.record import TrialRecord
from study.tracking.run_content import diagnostics_csv, lanes_csv, task_metrics, trial_description, trials_csv

MUTATIONS = int(os.environ.get("STUDY_MUTATIONS", "300"))
SEED = int(os.environ.get("STUDY_MUTATION_SEED", "20261127"))
KEY = "class_pairs-sgd-001"


def sweep_directory():
    """A folder with one sweep: finished trials, one that has failed, one that waits; nobody writes to it."""
    return once("records", _sweep)


def _sweep(directory):
    folder = folder_of(directory, plan_of("made", trials=3))
    conductor = Conductor(folder)
    for _ in range(5):
        train(conductor, conductor.propose())
    history = conductor.propose()
    train(conductor, history, tasks=1)
    conductor.checkpointed(history.key, "ray/session-000/checkpoint")
    conductor.note(history.key, "a note")
    conductor.lost(history.key, "its node is gone")
    conductor.propose()
    conductor.failed(history.key, "RuntimeError: out of luck")
    folder.begin_session(folder.execution, folder.execution)
    folder.log("end", interrupted=True, failed=1, fault="")
    folder.log("logged", complete=True, seconds=0.5)
    folder.log("budget", trials=4)


@pytest.fixture
def made(here):
    """The sweep in a folder of its own, which the command line finds."""
    shutil.copytree(sweep_directory() / "made", here / "study-results" / "made")
    return SweepFolder.open(here / "study-results", "made")


def record_of(folder, key=KEY):
    return folder.root / "trials" / key / "record.jsonl"


def change(path, number, line):
    """Writes another text, or another line, in place of the line of that number."""
    texts = path.read_bytes().split(b"\n")
    texts[number - 1] = line if isinstance(line, bytes) else json.dumps(line).encode()
    path.write_bytes(b"\n".join(texts))


def refusal(read):
    """What is said of the file; it names it, with the line, in one short sentence."""
    with pytest.raises(StudyError) as caught:
        read()
    said = str(caught.value)
    assert len(said) <= 300, said
    assert said.isprintable(), said
    return said


def without(key):
    return lambda line: {name: value for name, value in line.items() if name != key}


def within(part, **values):
    return lambda line: {**line, part: {**line[part], **values}}


def having(**values):
    return lambda line: {**line, **values}


DEEP = b'{"kind": "task", "task": ' + b"[" * 5000 + b"]" * 5000 + b"}"

ROWS = {
    "no summary": (6, without("summary"), "has no 'summary'"),
    "a summary without its accuracy": (6, lambda line: {**line, "summary": {"summary/objective": 0.5}}, "is missing"),
    "an empty summary": (6, having(summary={}), "is missing in 'summary'"),
    "a summary too early": (4, having(summary={}), "is missing in 'summary'"),
    "no metrics": (4, without("metrics"), "the key 'metrics' is missing"),
    "metrics without a time": (4, lambda line: {**line, "metrics": {"accuracy/test": 0.5}}, "is missing in 'metrics'"),
    "metrics that are a list": (4, having(metrics=[1, 2]), "'metrics' is [1, 2]"),
    "a metric that is a word": (4, within("metrics", objective="high"), "'metrics/objective' is 'high'"),
    "a metric that is true": (4, within("metrics", objective=True), "'metrics/objective' is True"),
    "an unheard-of metric": (4, within("metrics", beauty=1.0), "'beauty' in 'metrics' is not a quantity"),
    "NaN as objective": (4, within("metrics", objective=float("nan")), "'metrics/objective' is nan"),
    "infinite objective": (4, within("metrics", objective=1e999), "is inf"),
    "an objective in some tasks": (5, lambda line: {**line, "metrics": without("objective")(line["metrics"])}, "other"),
    "no lanes": (4, without("lanes"), "the key 'lanes' is missing"),
    "lanes without test accuracy": (4, having(lanes={}), "'accuracy/test' is missing in 'lanes'"),
    "too few lanes": (4, lambda line: {**line, "lanes": {k: v[:1] for k, v in line["lanes"].items()}}, "1 lanes"),
    "uneven lanes": (4, within("lanes", **{"loss/online": [1.0]}), "different numbers of lanes"),
    "lanes that are words": (4, within("lanes", **{"loss/online": ["a", "b"]}), "'lanes/loss/online/0' is 'a'"),
    "an unheard-of diagnostic": (4, having(diagnostics={"mood": [1, 2]}), "'mood' in 'diagnostics'"),
    "a task that is text": (4, having(task="0"), "'task' is '0'"),
    "a task below zero": (4, having(task=-1), "'task' is -1"),
    "a huge task": (4, having(task=10**400), "not JSON|'task' is"),
    "another task": (4, having(task=1), "task 1 stands where task 0 is due"),
    "a time that is no time": (4, having(at="noon"), "'at' is 'noon'"),
    "a time beyond the calendar": (2, having(at=1e300), "'at' is 1e+300"),
    "a time before the first": (2, having(at=-1), "'at' is -1"),
    "no time": (2, without("at"), "the key 'at' is missing"),
    "no kind": (2, without("kind"), "the key 'kind' is missing"),
    "an unknown kind": (2, having(kind="began"), "its kind is 'began', which is none of trial, start"),
    "a kind that is a list": (2, having(kind=[]), "its kind is"),
    "an unknown outcome": (7, having(outcome="won"), "'outcome' is 'won'"),
    "finished too early": (2, having(kind="end", outcome="finished"), "finished with 0 of 3 tasks"),
    "no outcome": (7, without("outcome"), "the key 'outcome' is missing"),
    "an unknown key": (2, having(colour="red"), "the key 'colour' is unknown"),
    "facts without versions": (3, lambda line: {**line, "facts": {}}, "'facts/versions' is missing"),
    "facts that are text": (3, having(facts="cpu"), "'facts' is 'cpu'"),
    "a second trial": (2, having(kind="trial"), "is missing"),
    "a list": (2, lambda _: [1], "dictionary|object"),
    "a word": (2, lambda _: b"hello", "it is not JSON"),
    "zeros": (2, lambda _: b"\x00" * 9, "it is not JSON"),
    "not UTF-8": (2, lambda _: b'{"kind": "note", "text": "\xff", "at": 1.0}', "it is not JSON"),
    "half a character": (2, lambda _: b'{"kind": "note", "text": "\\ud800", "at": 1.0}', "it is not JSON"),
    "a control character": (3, lambda line: json.dumps(line).replace("nowhere", "\x1b[2J").encode(), "it is not JSON"),
    "an escaped control character": (3, within("facts", host="\x1b[2J"), "'facts/host' is"),
    "a key that stands twice": (2, lambda _: b'{"kind": "start", "at": 1.0, "at": 2.0}', "'at' stands twice"),
    "a metric that stands twice": (
        4,
        lambda line: json.dumps(line).replace('"objective"', '"objective": 0.9, "objective"').encode(),
        "'objective' stands twice",
    ),
    "nesting without end": (4, lambda _: DEEP, "it is not JSON: recursion limit"),
    "nesting in the settings": (1, lambda _: DEEP.replace(b"task", b"trial"), "not the record of a trial|not JSON"),
    "seeds as text": (1, within("config", seeds="0, 1"), "seeds"),
    "seeds as texts": (1, within("config", seeds=["0", "1"]), "seeds"),
    "other seeds": (1, within("config", seeds=[7, 8]), "its seeds are"),
    "no seeds": (1, lambda line: {**line, "config": without("seeds")(line["config"])}, "seeds"),
    "no configuration": (1, without("config"), "the key 'config' is missing"),
    "a configuration that is text": (1, having(config="sgd"), "'config' is 'sgd'"),
    "a drawn value out of its range": (
        1,
        lambda line: drawn(line, 50.0),
        "optimizer/lr is 50.0, which the sweep does not try",
    ),
    "a drawn value that is a word": (1, lambda line: drawn(line, "fast"), "optimizer/lr is 'fast'"),
    "a drawn value that is huge": (1, lambda line: drawn(line, 10**400), "optimizer/lr is"),
    "a drawn value that is another one": (1, having(tried={"optimizer/lr": 0.02}), "in 'tried', but"),
    "nothing tried": (1, having(tried={}), "'optimizer/lr' is missing in the settings tried"),
    "more tried": (
        1,
        lambda line: {**line, "tried": {**line["tried"], "tasks/count": 3}},
        "'tasks/count' is not among the settings tried",
    ),
    "another number": (1, having(number=7), "its key does not say"),
    "a number that is text": (1, having(number="1"), "'number' is '1'"),
    "another method": (1, having(method="adam"), "its key does not say"),
    "another phase": (1, having(phase="confirm"), "phase"),
    "an unknown phase": (1, having(phase="rest"), "'phase' is 'rest'"),
    "fewer tasks": (1, having(task_count=2), "task 1 of 2 has no 'summary'"),
    "more tasks": (1, having(task_count=9), "task 2 of 9 has a 'summary'"),
    "no tasks": (1, having(task_count=0), "'task_count' is 0"),
    "notes of a sampler that are text": (1, having(sampler_notes="x"), "'sampler_notes' is 'x'"),
    "another key": (1, having(key="../../elsewhere"), "not of the trial that its folder is named after"),
    "a newer format": (1, having(format=FORMAT + 1), "it has format 3, and this version reads 1 and 2"),
    "a format that is text": (1, having(format="new"), "it has format 'new'"),
    "a format that is true": (1, having(format=None), "it has format None"),
}


def drawn(line, value):
    """The trial with another learning rate, in its settings tried and in its configuration."""
    config = {**line["config"], "optimizer": {**line["config"]["optimizer"], "lr": value}}
    return {**line, "tried": {**line["tried"], "optimizer/lr": value}, "config": config}


@pytest.mark.parametrize("row", ROWS)
def test_a_line_that_does_not_fit_is_told_by_file_and_line(row, made):
    number, edit, fault = ROWS[row]
    path = record_of(made)
    change(path, number, edit(lines_of(path)[number - 1]))
    for read in (made.histories, made.outcomes):
        said = refusal(read)
        told = {"fewer tasks": 5, "more tasks": 6}.get(row, number)  # where it meets the tasks
        assert f", line {told}: " in said
        assert str(path.relative_to(made.root / "trials")) in said
        assert any(words in said for words in fault.split("|")), said


LOG_ROWS = {
    "a newer format": (1, having(format=FORMAT + 1), "it has format 3, and this version reads 1 and 2"),
    "no seeds": (1, within("plan", seeds=[]), "it needs seeds"),
    "seeds as text": (1, within("plan", seeds="0"), "seeds"),
    "the same seed twice": (1, within("plan", seeds=[1, 1]), "each of them once"),
    "no groups": (1, within("plan", groups=[]), "it needs seeds and methods"),
    "a group that is text": (1, within("plan", groups=["sgd"]), "groups/0"),
    "an unknown setting": (1, within("plan", colour="red"), "unknown setting 'colour'"),
    "a distribution that is none": (1, lambda line: drawn_from(line, "{}"), "is no distribution"),
    "a distribution nested without end": (
        1,
        lambda line: drawn_from(line, "[" * 100_000),
        "is no distribution",
    ),
    "a range from high to low": (
        1,
        lambda line: drawn_from(
            line, line["plan"]["groups"][0]["distributions"]["optimizer/lr"].replace("1.0", "1e-9")
        ),
        "is no distribution",
    ),
    "no count of tasks": (1, having(task_counts={}), "the number of tasks of class_pairs is missing"),
    "a count of tasks that is text": (1, having(task_counts={"class_pairs": "3"}), "'task_counts/class_pairs' is '3'"),
    "an execution that is text": (1, having(execution="here"), "'execution' is 'here'"),
    "an execution without data": (1, having(execution={}), "how it runs is malformed"),
    "a second plan": (2, lambda _: None, ""),
    "a budget that is text": (5, having(trials="4"), "'trials' is '4'"),
    "a budget of none": (5, having(trials=0), "--trials must be at least 1"),
    "an unknown kind": (5, having(kind="rest"), "its kind is 'rest', which is none of plan, start"),
    "a word": (5, lambda _: b"hello", "it is not JSON"),
    "no time": (3, without("at"), "the key 'at' is missing"),
}


def drawn_from(line, text):
    group, *others = line["plan"]["groups"]
    return {**line, "plan": {**line["plan"], "groups": [{**group, "distributions": {"optimizer/lr": text}}, *others]}}


@pytest.mark.parametrize("row", LOG_ROWS)
def test_a_line_of_a_log_that_does_not_fit_is_told_by_file_and_line(row, made):
    number, edit, fault = LOG_ROWS[row]
    path = made.root / "sweep.jsonl"
    lines = lines_of(path)
    change(path, number, {**lines[0], "at": 1.0} if row == "a second plan" else edit(lines[number - 1]))
    said = refusal(lambda: SweepFolder.open(made.directory, "made"))
    assert f"{str(path)!r}, line {number}: " in said
    assert fault in said


def test_files_from_before_formats_had_numbers_are_read(made):
    before = {history.key: vars(history) for history in made.histories()}
    for path in (made.root / "sweep.jsonl", *made.root.glob("trials/*/record.jsonl")):
        first, *others = lines_of(path)
        assert first["format"] == FORMAT
        path.write_text("".join(json.dumps(line) + "\n" for line in (without("format")(first), *others)))
    again = SweepFolder.open(made.directory, "made")
    assert (again.plan, again.task_counts) == (made.plan, made.task_counts)
    assert {history.key: vars(history) for history in again.histories()} == before


COMMANDS = {
    "list": (),
    "best": ("made",),
    "export": ("made",),
    "export --trial": ("made", "--trial", KEY),
    "sync": ("made",),
    "resume": ("made",),
    "confirm": ("made",),
    "report": ("made",),
    "archive": ("made",),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_a_damaged_record_before_it_does_anything(command, made, here, run):
    change(record_of(made), 4, b'{"kind": "task", "at": 1.0}')
    before = sorted(path for path in here.rglob("*") if path.name != ".lock")
    code, out, err = run(command.split()[0], *COMMANDS[command])
    if command == "list":  # the rest of the table is of use
        assert "Search spaces" in out
        out = ""
    assert_one_sentence(code, out, err)
    assert f"{f'study-results/made/trials/{KEY}/record.jsonl'!r}, line 4: the key 'task' is missing" in err
    assert sorted(path for path in here.rglob("*") if path.name != ".lock") == before


@pytest.mark.parametrize("command", ["list", "best", "resume", "report"])
def test_every_command_tells_a_damaged_log(command, made, here, run):
    change(made.root / "sweep.jsonl", 3, b'{"kind": "end", "at": 1.0}')
    code, out, err = run(command, *COMMANDS[command])
    assert_one_sentence(code, "" if command == "list" else out, err)
    assert "sweep.jsonl', line 3: the key 'interrupted' is missing" in err


def test_list_shows_the_other_sweeps_and_tells_each_damaged_one(made, run):
    for name in ("other", "third"):
        shutil.copytree(made.root, made.directory / name)
    for name in ("made", "third"):
        change(made.directory / name / "trials" / KEY / "record.jsonl", 4, b"[]")
    code, out, err = run("list")
    assert code == 2
    assert re.search(
        r"^other +quickstart +5/8 +5 finished, 1 failed +interrupted +[-0-9]{10} [0-9:]{5}$", out, re.MULTILINE
    )
    note, refusal = err.splitlines()
    assert note.startswith("note: ")
    assert "third/trials" in note
    assert refusal.startswith("study: ")
    assert "made/trials" in refusal


def test_a_line_that_no_reader_would_take_is_not_written(made):
    path = record_of(made, "class_pairs-sam-002")
    record = TrialRecord(path)
    before = path.read_bytes()
    for kind, content, fault in (
        ("end", {"outcome": "won"}, "'outcome' is 'won'"),
        ("end", {"outcome": "finished"}, "finished with 1 of 3 tasks"),
        ("task", task_line(record.history, 1, None), "it has other quantities"),
        ("facts", {"facts": {**FACTS, "colour": "red"}}, "'facts/colour' is unknown"),
    ):
        with pytest.raises(StudyError, match=re.escape(fault)):
            record.append(kind, **content)
    assert path.read_bytes() == before


def test_a_trial_that_a_newer_version_continues_may_measure_more(made):
    record = TrialRecord(record_of(made, "class_pairs-sam-002"))
    line = task_line(record.history, 1, record.history.tasks[0]["lanes"]["accuracy/validation"])
    more = {**line, "metrics": {**line["metrics"], "seconds/diagnostics": 0.5}}
    assert "seconds/diagnostics" not in record.history.tasks[0]["metrics"]
    record.append("task", **more)
    assert TrialRecord(record.path).history.tasks[1]["metrics"]["seconds/diagnostics"] == 0.5
    assert lanes_csv(record.history).count("\n") == 1 + 2 * len(record.history.seeds)


def test_half_a_character_in_a_reason_is_written_as_a_question_mark(made):
    record = TrialRecord(record_of(made, "class_pairs-sam-002"))
    record.append("end", outcome="failed", reason="no file 'caf\udce9' \U0001f600")
    assert TrialRecord(record.path).history.reason == "no file 'caf?' \U0001f600"


def mutated(chance, texts):
    """The lines of a file after one random change, and what it was."""
    texts = list(texts)
    place = chance.randrange(len(texts))
    act = chance.choice(["repeat", "swap", "drop", "cut", "bytes", "value", "value", "value", "value", "key", "nest"])
    if act == "repeat":
        texts.insert(chance.randrange(len(texts) + 1), texts[place])
    elif act == "swap":
        other = chance.randrange(len(texts))
        texts[place], texts[other] = texts[other], texts[place]
    elif act == "drop":
        del texts[place]
    elif act == "cut":
        texts[place] = texts[place][: chance.randrange(len(texts[place]))]
    elif act == "bytes":
        at = chance.randrange(len(texts[place]))
        texts[place] = (
            texts[place][:at] + chance.choice([b"\x00", b"\xff", b"}", b'"', b"9", b"\n"]) + texts[place][at + 1 :]
        )
    else:
        line = json.loads(texts[place])
        holder, name = chance.choice(list(places_in(line)))
        if act == "value":
            holder[name] = chance.choice(STRANGE)
        elif act == "key" and isinstance(holder, dict):
            holder[chance.choice(["x", "kind", "at", "task", ""])] = holder.pop(name)
        else:
            holder[name] = [holder[name]]
        texts[place] = json.dumps(line).encode()
    return act, texts


STRANGE = [
    None,
    True,
    -1,
    0,
    7,
    10**30,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\x1b[2J",
    "\x00",
    [],
    {},
    [[]],
    "1",
]


def places_in(content):
    """Every place within a line, as its holder and the key or index there."""
    for name, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield content, name
        if isinstance(value, dict | list):
            yield from places_in(value)


def use(directory, stored):
    """Does with a sweep what the commands do with its records; perhaps writes Optuna's own storage too, which takes time."""
    folder = SweepFolder.open(directory, "made")
    folder.outcomes()
    histories = folder.histories()
    winners.best_keys(histories, 2)
    trials_csv(histories)
    for history in histories:
        if history.tasks:
            lanes_csv(history)
            diagnostics_csv(history)
        for line in history.tasks:
            task_metrics(line)
        trial_description(history, "")
    conductor = Conductor(folder)
    history = conductor.propose()
    if history is not None:
        train(conductor, history)
    folder.begin_session(folder.execution, folder.execution)
    SweepFolder.open(directory, "made").histories()
    if stored:
        optuna_storage.write(folder)


def refused(directory, stored):
    """The refusal to use a sweep, or "" if it can be used."""
    try:
        use(directory, stored)
    except StudyError as error:
        return str(error)
    return ""


def test_a_mutated_record_is_read_or_refused_by_file_and_line(tmp_path):
    """Each mutation depends on the printed seed alone."""
    print(f"STUDY_MUTATION_SEED={SEED} STUDY_MUTATIONS={MUTATIONS}")
    source, root, read = sweep_directory() / "made", tmp_path / "made", 0
    for number in range(MUTATIONS):
        chance = random.Random(f"{SEED}/{number}")
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(source, root)
        log, *records = [root / "sweep.jsonl", *sorted(root.glob("trials/*/record.jsonl"))]
        path = chance.choice([log, *records, *records])
        act, texts = mutated(chance, path.read_bytes().splitlines())
        path.write_bytes(b"".join(text + b"\n" for text in texts))
        what = f"mutation {number} of {path.relative_to(root)}, {act}"
        try:
            said = refused(tmp_path, stored=number % 40 == 0)
        except Exception as error:
            raise AssertionError(what) from error
        read += not said
        if said:
            assert re.search(r"line \d+: |does not begin with the plan", said), (what, said)
            # a changed plan may be a plan all the same, which the records then do not fit
            assert path.name in said or (path == log and "record.jsonl" in said), (what, said)
            assert len(said) <= 300, (what, said)
            assert said.isprintable(), (what, said)
    assert MUTATIONS / 20 < read < MUTATIONS / 2
