"""Commands: bad input gives one sentence and exit code 2.

It leaves no files behind.
"""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from shared import lay_database
from sweep_fixtures import REPOSITORY, assert_one_sentence, clean_environment, folder_of, plan_of, run_all, study

import search_spaces

CLOSED = "127.0.0.1:9"


QUICK = ("run", "quickstart")

BAD_RUNS = {
    "unknown space": (("run", "quickstrat"), "did you mean 'quickstart'"),
    "unknown scenario": ((*QUICK, "--scenario", "class_pair"), "did you mean 'class_pairs'"),
    "unknown method": ((*QUICK, "--method", "sammy"), "did you mean 'sam'"),
    "unknown sampler": ((*QUICK, "--sampler", "tpee"), "did you mean 'tpe'"),
    "unknown scheduler": ((*QUICK, "--scheduler", "ashes"), "did you mean 'asha'"),
    "unknown setting": ((*QUICK, "--set", "training/batchsize=3"), "did you mean 'training/batch_size'"),
    "unknown setting of a part": ((*QUICK, "--set", "tasks/cuont=3"), "did you mean 'count'"),
    "unknown section": ((*QUICK, "--set", "trainnig/batch_size=3"), "did you mean 'training'"),
    "unknown data set": ((*QUICK, "--set", "data/name=mnist5"), "did you mean 'mnist5k'"),
    "unknown model": ((*QUICK, "--set", "model/name=mpl"), "did you mean 'mlp'"),
    "unknown intervention": ((*QUICK, "--set", "interventions/l2init/strength=1"), "did you mean 'l2_init'"),
    "negative lr": ((*QUICK, "--set", "optimizer/lr=-1"), "optimizer/lr=-1"),
    "lr that is a word": ((*QUICK, "--set", "optimizer/lr=fast"), "optimizer/lr='fast'"),
    "lr that is infinite": ((*QUICK, "--set", "optimizer/lr=Infinity"), "optimizer/lr=inf"),
    "batch size 0": ((*QUICK, "--set", "training/batch_size=0"), "training/batch_size=0"),
    "batch size that is no integer": ((*QUICK, "--set", "training/batch_size=1.5"), "training/batch_size=1.5"),
    "validation fraction above 1": (
        (*QUICK, "--set", "tasks/validation_fraction=1.5"),
        "tasks/validation_fraction=1.5",
    ),
    "rho 0": ((*QUICK, "--method", "sam", "--set", "optimizer/rho=0"), "optimizer/rho=0"),
    "rho for sgd": ((*QUICK, "--method", "sgd", "--set", "optimizer/rho=0.1"), "'sgd' has no setting 'optimizer/rho'"),
    "rho for all methods": ((*QUICK, "--set", "optimizer/rho=0.1"), "choose methods with --method"),
    "widths that are no list": ((*QUICK, "--set", "model/widths=100"), "model/widths=100"),
    "a width of 0": ((*QUICK, "--set", "model/widths=[100,0]"), "model/widths/1=0"),
    "seeds by --set": ((*QUICK, "--set", "training/seeds=3"), "unknown setting"),
    "set without =": ((*QUICK, "--set", "optimizer/lr"), "training/batch_size=32"),
    "set without a slash": ((*QUICK, "--set", "lr=0.1"), "training/batch_size=32"),
    "a setting taken for a group": ((*QUICK, "--set", "optimizer/lr/x=1"), "optimizer/lr"),
    "zero trials": ((*QUICK, "--trials", 0), "--trials must be at least 1, not 0"),
    "negative trials": ((*QUICK, "--trials", -1), "--trials must be at least 1, not -1"),
    "trials that are a word": ((*QUICK, "--trials", "many"), "--trials"),
    "more trials than points": (("run", "paper_grid", "--trials", 3), "2 explicit points"),
    "zero seeds": ((*QUICK, "--seeds", 0), "--seeds must be at least 1, not 0"),
    "negative seeds": ((*QUICK, "--seeds", -2), "--seeds must be at least 1, not -2"),
    "zero workers": ((*QUICK, "--workers", 0), "--workers must be above 0, not 0"),
    "zero CPUs": ((*QUICK, "--cpus-per-trial", 0), "--cpus-per-trial must be above 0, not 0"),
    "negative CPUs": ((*QUICK, "--cpus-per-trial", -1), "--cpus-per-trial must be above 0, not -1"),
    "infinite CPUs": ((*QUICK, "--cpus-per-trial", "inf"), "--cpus-per-trial"),
    "CPUs that are no number": ((*QUICK, "--cpus-per-trial", "nan"), "--cpus-per-trial"),
    "negative GPUs": ((*QUICK, "--gpus-per-trial", -0.5), "--gpus-per-trial must be 0 or more, not -0.5"),
    "infinite GPUs": ((*QUICK, "--gpus-per-trial", "inf"), "--gpus-per-trial"),
    "zero tasks": ((*QUICK, "--set", "tasks/count=0"), "tasks/count=0"),
    "more tasks than there are": (
        (*QUICK, "--scenario", "class_pairs", "--set", "tasks/count=46"),
        "tasks/count=46 is too many: mnist5k has 45 pairs",
    ),
    "more images than there are": (
        (*QUICK, "--set", "tasks/images_per_task=4001"),
        "tasks/images_per_task=4001 is too many",
    ),
    "a validation share that holds out nothing": (
        (*QUICK, "--set", "tasks/validation_fraction=0.0001"),
        "holds out no image",
    ),
    "a name that climbs": ((*QUICK, "--name", "../x"), "cannot be a name"),
    "a name with a path": ((*QUICK, "--name", "a/b"), "cannot be a name"),
    "an absolute name": ((*QUICK, "--name", "/x"), "cannot be a name"),
    "a hidden name": ((*QUICK, "--name", ".x"), "cannot be a name"),
    "a name with a line break": ((*QUICK, "--name", "a\nb"), "cannot be a name"),
    "an empty name": ((*QUICK, "--name", ""), "'' cannot be a name"),
    "the name of the store": ((*QUICK, "--name", "mlflow.db"), "MLflow's store has that name"),
    "an MLflow server that is away": ((*QUICK, "--tracking-uri", f"http://{CLOSED}"), f"http://{CLOSED}"),
    "a port that cannot be": ((*QUICK, "--tracking-uri", "http://127.0.0.1:99999"), "http://127.0.0.1:99999"),
    "an address that cannot be": ((*QUICK, "--tracking-uri", "http://[::1"), "http://[::1"),
    "a tracking URI of an unknown kind": ((*QUICK, "--tracking-uri", "ftp://somewhere"), "'ftp://somewhere'"),
    "MLflow's old file store": ((*QUICK, "--tracking-uri", "./mlruns"), "'./mlruns'"),
    "a database without its driver": ((*QUICK, "--tracking-uri", "oracle+nothing://x/y"), "oracle+nothing://x/y"),
    "nsga2 with asha": ((*QUICK, "--sampler", "nsga2", "--scheduler", "asha"), "two objectives"),
    "an objective of test images": ((*QUICK, "--objective", "summary/accuracy_test:max"), "computed from test images"),
    "an unknown objective": ((*QUICK, "--objective", "late_acuracy"), "did you mean 'late_accuracy'"),
    "an area as objective": ((*QUICK, "--objective", "area_above_reset"), "no curve of a reset to compare with"),
    "two objectives and one sampler": (
        (*QUICK, "--objective", "accuracy", "--objective", "decline"),
        "need --sampler nsga2",
    ),
    "a race with gp": ((*QUICK, "--scheduler", "race", "--sampler", "gp"), "gp learns nothing from configurations"),
    "a race with one seed": ((*QUICK, "--scheduler", "race", "--seeds", "1"), "at least 2 of them"),
    "asha without validation images": (
        ("run", "paper_grid", "--scheduler", "asha"),
        "--scheduler asha judges trials on held-out images",
    ),
    "a search without validation images": (
        (*QUICK, "--set", "tasks/validation_fraction=0"),
        "--set tasks/validation_fraction=0.1667",
    ),
    "an unknown option": ((*QUICK, "--sheduler", "asha"), "--scheduler"),
    "an unknown command": (("runn", "quickstart"), "No such command"),
    "no space": (("run",), "space"),
    "an unknown device": ((*QUICK, "--set", "training/device=tpu"), "training/device='tpu'"),
    "one method's name for another": ((*QUICK, "--set", "optimizer/name=sam"), "--method"),
    "one scenario's tasks for another": ((*QUICK, "--set", "tasks/name=class_pairs"), "--scenario"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_bad_launch_dies_with_one_sentence(refused, case):
    words, said = BAD_RUNS[case]
    assert said in refused(*words)


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_dry_run_refuses_what_a_launch_refuses(refused, case):
    words, said = BAD_RUNS[case]
    assert said in refused(*words, "--dry-run")


def test_a_setting_of_a_part_that_the_space_leaves_at_its_default_can_be_set():
    plan = plan_of(overrides={"tasks/count": 3, "model/widths": [7]})
    assert plan.trial_config(plan.groups[0], {}).flat()["model/widths"] == [7]


def test_a_file_in_the_place_of_the_folder_is_refused(refused, here):
    (here / "file").write_text("")
    assert "'file' is a file" in refused(*QUICK, "--dir", "file")
    assert "'file' is a file" in refused(*QUICK, "--dir", "file/below")


def test_data_that_cannot_be_downloaded_names_the_folder_and_the_data_set_that_is_there(refused, here, monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, f"http://{CLOSED}")
    monkeypatch.setattr(urllib.request, "_opener", None)  # remembers its proxies for good
    (here / "empty" / "MNIST" / "raw").mkdir(parents=True)
    said = refused(*QUICK, "--set", "data/name=mnist", "--data-dir", "empty")
    assert str(here / "empty" / "MNIST" / "raw") in said
    assert "mnist5k" in said


BAD_SPACES = {
    "not there": (None, "There is no search space file"),
    "raising": ("1 / 0", "ZeroDivisionError"),
    "not Python": ("SPACE = (", "SyntaxError"),
    "leaving": ("raise SystemExit(0)", "SystemExit"),
    "lacking SPACE": ("SPCAE = 1", "must define SPACE"),
    "of another kind": ("SPACE = {}", "must define SPACE"),
    "without a budget": (
        "from optuna.distributions import FloatDistribution\nfrom search_spaces import Method, SearchSpace\n"
        "SPACE = SearchSpace('x', 'x', {'s': {}}, {'sgd': Method(distributions={'optimizer/lr': "
        "FloatDistribution(0.1, 1)})})",
        "`trials`",
    ),
    "with a range beyond what the setting allows": (
        "from optuna.distributions import FloatDistribution\nfrom search_spaces import Method, SearchSpace\n"
        "SPACE = SearchSpace('x', 'x', {'s': {}}, {'sgd': Method(distributions={'optimizer/lr': "
        "FloatDistribution(-1, 1)})}, {'tasks/name': 'class_pairs', 'tasks/validation_fraction': 0.2}, trials=2)",
        "optimizer/lr=-1",
    ),
    "with a point outside of its range": (
        "from optuna.distributions import FloatDistribution\nfrom search_spaces import Method, SearchSpace\n"
        "SPACE = SearchSpace('x', 'x', {'s': {}}, {'sgd': Method(points=({'optimizer/lr': 2.0},), distributions="
        "{'optimizer/lr': FloatDistribution(0.1, 1)})}, {'tasks/name': 'class_pairs', 'tasks/validation_fraction': 0.2}, "
        "trials=2)",
        "lies outside",
    ),
    "with a name that is a path": (
        "from search_spaces import Method, SearchSpace\n"
        "SPACE = SearchSpace('a/b', 'x', {'s': {}}, {'sgd': Method(points=({},))})",
        "cannot be a name",
    ),
}


@pytest.mark.parametrize("case", BAD_SPACES)
def test_a_bad_search_space_file_dies_with_one_sentence(refused, here, monkeypatch, case):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text, said = BAD_SPACES[case]
    if text is not None:
        (here / "mine.py").write_text(text)
    assert said in refused("run", "./mine.py")


BAD_TRIALS = {
    "not there": (None, "No such file"),
    "empty": (b"", "must be a mapping"),
    "a list": (b"- 1\n", "must be a mapping"),
    "not YAML": (b"optimizer: [1\n", "is not plain YAML"),
    "not text": (b"\xff\xfe\x00", "not UTF-8"),
    "with an unsafe tag": (b"!!python/object/apply:os.system ['touch harm']\n", "is not plain YAML"),
    "with one key twice": (b"seeds: [0]\nseeds: [1]\n", "is not plain YAML"),
    "nested without end": (b"[" * 3000, "is not plain YAML"),
    "containing itself": (b"optimizer: &x {name: sgd, lr: *x}\n", "is not plain YAML"),
    "foreign": (b"services: {web: {image: nginx}}\n", "unknown setting 'services'"),
    "with keys that are no words": (b"1: 2\n", "keys should be strings"),
    "with a part that is no mapping": (b"optimizer: sgd\n", "optimizer='sgd'"),
    "with seeds that are no list": (b"seeds: 5\n", "seeds=5"),
    "with a seed twice": (b"seeds: [1, 1]\n", "seeds must all be different"),
    "without seeds": (b"seeds: []\n", "seeds"),
    "with an unknown setting": (b"optimizer: {name: sam, roh: 0.1}\n", "did you mean 'rho'"),
    "with a value out of range": (b"optimizer: {name: sam, rho: 0.0}\n", "optimizer/rho=0.0"),
    "with a provenance that is none": (b"provenance: 5\n", "provenance must be a mapping"),
}


@pytest.mark.parametrize("case", BAD_TRIALS)
def test_a_bad_trial_file_dies_with_one_sentence(refused, here, case):
    content, said = BAD_TRIALS[case]
    if content is not None:
        (here / "trial.yaml").write_bytes(content)
    assert said in refused("trial", "trial.yaml")


def test_a_folder_is_no_trial_file(refused, here):
    assert "Is a directory" in refused("trial", ".")


@pytest.mark.parametrize("threads", [0, 10**11])
def test_threads_that_this_machine_does_not_have_are_refused(refused, here, threads):
    (here / "trial.yaml").write_text("optimizer: {name: sgd}\n")
    assert "--threads must be from 1 to" in refused("trial", "trial.yaml", "--threads", threads)


@pytest.mark.parametrize(
    "setting", ["seeds/x=3", "lr/x=1", "optimizer/lr=1e300", "training/batch_size=100000000000000000000"]
)
def test_a_setting_that_means_nothing_is_refused_for_a_trial_too(refused, here, setting):
    (here / "trial.yaml").write_text("optimizer: {name: sgd}\n")
    assert setting.split("=")[0] in refused("trial", "trial.yaml", "--set", setting)


MALFORMED = {
    "seeds that are no tuple": "seeds=3",
    "a seed that is no number": "seeds=(0.5,)",
    "no trials": "trials=0",
    "trials as a word": "trials='8'",
    "scenarios as a list": "scenarios=['class_pairs']",
    "a distribution that is none": "methods={'sgd': Method(distributions={'optimizer/lr': (0.1, 1)})}",
    "a method that is a dict": "methods={'sgd': {}}",
    "points that are no tuple": "methods={'sgd': Method(points={'optimizer/lr': 0.1})}",
    "no settings": "settings=None",
    "no name": "name=None",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_search_space_is_refused_with_a_sentence(refused, here, what):
    (here / "mine.py").write_text(
        "from search_spaces import Method, SearchSpace\n"
        "choices = dict(name='mine', description='', scenarios={'class_pairs': {'tasks/name': 'class_pairs'}},\n"
        "               methods={'sgd': Method(points=({'optimizer/lr': 0.1},))})\n"
        f"SPACE = SearchSpace(**(choices | dict({MALFORMED[what]})))\n"
    )
    assert "mine.py" in refused("show", "./mine.py")


def test_trials_of_one_scenario_must_have_equally_many_tasks(refused, here):
    (here / "mine.py").write_text(
        "from search_spaces import Method, SearchSpace\n"
        "SPACE = SearchSpace(name='mine', description='', scenarios={'x': {'tasks/name': 'class_pairs', 'tasks/count': 2}},\n"
        "    methods={'sgd': Method(points=({'optimizer/lr': 0.1}, {'tasks/count': 4}))})\n"
    )
    assert "equally many tasks" in refused("run", "./mine.py")


def test_labels_that_would_be_the_same_are_refused(refused, here):
    (here / "mine.py").write_text(
        "from search_spaces import Method, SearchSpace\n"
        "METHOD = Method(settings={'optimizer/name': 'sgd'}, points=({'optimizer/lr': 0.1},))\n"
        "PAIRS = {'tasks/name': 'class_pairs', 'tasks/count': 2}\n"
        "SPACE = SearchSpace(name='mine', description='', scenarios={'a-b': PAIRS, 'a': PAIRS},\n"
        "    methods={'c': METHOD, 'b-c': METHOD})\n"
    )
    assert "would both be called 'a-b-c'" in refused("run", "./mine.py")


def test_a_refused_sweep_makes_no_store(refused):
    refused(*QUICK, "--tracking-uri", "sqlite:///new.db", "--set", "tasks/count=46")


def test_a_folder_that_is_no_sweep_is_not_said_to_be_one(refused, here):
    (here / "study-results" / "half").mkdir(parents=True)
    assert "it is no sweep" in refused(*QUICK, "--name", "half")


@pytest.mark.parametrize("command", ["resume", "best", "export", "sync", "ui"])
def test_a_sweep_that_does_not_exist_is_refused(refused, here, command):
    folder_of(here / "study-results", plan_of("first"))
    said = refused(command, "fisrt")
    assert "There is no sweep 'fisrt'" in said
    assert "did you mean 'first'" in said


@pytest.mark.parametrize("command", ["resume", "best", "export", "sync", "ui"])
def test_the_name_of_a_sweep_cannot_be_a_path(refused, command):
    assert "cannot be a name" in refused(command, "../first")


def test_a_name_that_exists_is_refused(refused, here):
    folder_of(here / "study-results", plan_of("first"))
    said = refused(*QUICK, "--name", "first")
    assert "study resume first" in said
    assert "--name first-2" in said


def test_a_shrinking_budget_is_refused(refused, here):
    folder_of(here / "study-results", plan_of("first", trials=3))
    assert "a budget can only grow" in refused("resume", "first", "--trials", 2)
    assert "--trials" in refused("resume", "first", "--trials", 0)


@pytest.mark.parametrize("trials", [1, 2, 3])
def test_the_budget_of_a_grid_is_its_points(refused, here, trials):
    plan = plan_of("grid", space="paper_grid", overrides={"tasks/count": 3}, trials=None)
    folder_of(here / "study-results", plan)
    # two points each: fewer is refused, more do not exist; the same number passes, and then the next error is found
    said = refused("resume", "grid", "--trials", trials, "--tracking-uri", f"http://{CLOSED}")
    assert {1: "a budget can only grow", 2: "No MLflow server answers", 3: "2 explicit points"}[trials] in said


def test_a_damaged_sweep_is_refused(refused, here):
    folder_of(here / "study-results", plan_of("first"))
    (here / "study-results" / "first" / "sweep.jsonl").write_text('{"kind": "plan", "pl')
    assert "does not begin with the plan" in refused("best", "first")


def test_the_page_needs_a_store(refused):
    assert "There is no MLflow store" in refused("ui")


def test_the_best_of_a_sweep_without_finished_trials_is_refused(refused, here):
    folder_of(here / "study-results", plan_of("first"))
    assert "study resume first" in refused("best", "first")
    assert "study resume first" in refused("export", "first")
    assert "--top must be at least 1" in refused("best", "first", "--top", 0)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("best", "first"), "study resume first --dir 'two words'"),
        (("export", "first", "--model"), "study resume first --dir 'two words'"),
        (("ui", "first"), "`study sync first --dir 'two words'`"),
        (("ui",), "study run quickstart --dir 'two words'"),
        (("report", "first"), "`study sync first --dir 'two words'`"),
        (("archive", "first"), "`study sync first --dir 'two words'`"),
        (("ui", "first", "--tracking-uri", "sqlite:///own.db"), "--dir 'two words' --tracking-uri sqlite:////"),
        (("report", "elsewhere", "--to", "page"), "study run quickstart --dir 'two words'"),
        ((*QUICK, "--name", "first"), "study resume first --dir 'two words'"),
    ],
)
def test_shown_commands_name_the_folder_in_quotes(refused, here, command, shown):
    folder_of(here / "two words", plan_of("first"))
    assert shown in refused(*command, "--dir", "two words")


def test_an_empty_folder_in_brackets_is_shown_as_it_is(here, run):
    code, out, err = run("list", "--dir", "[bold]it's empty")
    assert (code, err) == (0, "")
    assert """No sweeps in [bold]it's empty yet; start with: study run quickstart --dir '[bold]it'"'"'s empty'""" in out


def test_a_sweep_without_objective_has_no_best(refused, here):
    plan = plan_of("grid", space="paper_grid", overrides={"tasks/count": 3}, trials=1)
    folder = folder_of(here / "study-results", plan)
    strip_objectives(run_all(folder), folder)
    for command in ("best", "export"):
        said = refused(command, "grid")
        assert "no images were held out" in said
        assert "the test set must not be used" in said


def strip_objectives(histories, folder):
    """Removes the objective from records.

    As if no image had been held out.
    """
    for history in histories:
        path = folder.root / "trials" / history.key / "record.jsonl"
        text = path.read_text()
        text = re.sub(r'"(summary/)?(objective|decline|accuracy/validation)": [0-9.]+, ', "", text)
        path.write_text(re.sub(r', "(summary/)?(objective|decline|accuracy_validation_\w+)": [0-9.]+', "", text))
    assert all("objective" not in history.metrics for history in folder.histories())


def test_an_unknown_trial_is_not_exported(refused, here):
    run_all(folder_of(here / "study-results", plan_of("first")))
    lay_database(here / "study-results")  # so that a refusal has nothing to leave behind
    assert "did you mean 'class_pairs-sam-000'" in refused("export", "first", "--trial", "class_pairs-sma-000")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "ray://127.0.0.1:1", "127.0.0.1:99999", ":6379"])
def test_an_unreachable_or_malformed_ray_address_is_refused(refused, address):
    assert f"--address {address}" in refused(*QUICK, "--address", address)


@pytest.mark.sweep
@pytest.mark.parametrize("what", ["CPUs", "GPUs"])
def test_more_than_the_cluster_has_is_refused(tmp_path, what):
    done = study(*QUICK, f"--{what.lower()}-per-trial", 10_000, cwd=tmp_path)
    assert_one_sentence(done.returncode, done.stdout, done.stderr)
    assert f"Each trial asks for 10000 {what}, but this Ray has" in done.stderr
    assert list(tmp_path.iterdir()) == []


COMMANDS = ["run", "resume", "confirm", "sync", "list", "show", "trial", "best", "export", "report", "doctor", "ui"]
COMMANDS += ["compare", "delete", "clean"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example(here, run, command):
    code, out, err = run(command, "--help")
    assert code == 0
    assert err == ""
    assert "Usage:" in out
    assert f"study {command}" in out.partition("Example")[2]


def test_the_help_names_every_command(here, run):
    code, out, _ = run("--help")
    assert code == 0
    assert [word for word in COMMANDS if not re.search(rf"^│ {word} ", out, re.MULTILINE)] == []


def test_python_m_study_is_study(tmp_path):
    program = Path(sys.executable).with_name("study")
    environment = clean_environment(PYTHONPATH=str(REPOSITORY))
    done = subprocess.run([program, "list"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stdout == study("list", cwd=tmp_path).stdout


def test_a_refusal_in_a_process_of_its_own_is_one_sentence_too(tmp_path):
    done = study("run", "quickstart", "--method", "smd", cwd=tmp_path)
    assert_one_sentence(done.returncode, done.stdout, done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_list_shows_the_spaces_and_the_sweeps(here, run):
    code, out, _ = run("list")
    assert code == 0
    assert all(name in out for name in search_spaces.names())
    assert "study run quickstart" in out
    run_all(folder_of(here / "study-results", plan_of("first")))
    _, out, _ = run("list")
    assert re.search(r"^first +quickstart +4/4 +4 finished +finished +\d{4}-\d\d-\d\d \d\d:\d\d$", out, re.MULTILINE)


@pytest.mark.parametrize("name", search_spaces.names())
def test_show_tells_every_method_point_and_range(here, run, name):
    space = search_spaces.load(name)
    code, out, _ = run("show", name, "--no-estimate")
    assert code == 0
    assert space.description in out
    assert space.citation in out
    for scenario in space.scenarios:
        for method, tried in space.methods.items():
            row = next(line for line in out.splitlines() if re.match(rf"{scenario} +{method} ", line))
            for setting, drawn in tried.distributions.items():
                word = setting.rpartition("/")[2]
                assert f"{word} in [{drawn.low:g}, {drawn.high:g}]" in row
            is_grid = len({tuple(point) for point in tried.points}) == 1  # no setting is varied in some points alone
            if len(tried.points) > 6 and is_grid:  # a full grid, told by its values
                assert f"all {len(tried.points)} of " in row
                for setting in tried.points[0]:
                    values = dict.fromkeys(f"{point[setting]:g}" for point in tried.points)
                    assert f"{setting.rpartition('/')[2]} in {{{', '.join(values)}}}" in row
                continue
            if len(tried.points) > 6:  # in a table of their own
                assert f" {len(tried.points)}, see below" in row
                (title,) = re.findall(rf"^Points of {method} in .*\b{scenario}\b.*$", out, re.MULTILINE)
                _, *lines = out.partition(title + "\n")[2].splitlines()[: 1 + len(tried.points)]
                names = dict.fromkeys(name for point in tried.points for name in point)
                assert [re.split(" {2,}", line.strip()) for line in lines] == [
                    [told(point[name]) if name in point else "-" for name in names] for point in tried.points
                ]
                continue
            for point in tried.points:
                assert (
                    " ".join(f"{setting.rpartition('/')[2]}={told(value)}" for setting, value in point.items()) in row
                )


def told(value):
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_best_shows_the_winners(here, run):
    run_all(folder_of(here / "study-results", plan_of("first", trials=3)))
    code, out, _ = run("best", "first", "--top", 2)
    assert code == 0
    assert len(re.findall(r"^class_pairs-sgd-", out, re.MULTILINE)) == 2
    assert len(re.findall(r"^class_pairs-sam-", out, re.MULTILINE)) == 2


def test_a_trial_file_runs_in_this_process(here, run):
    (here / "trial.yaml").write_text(
        "data: {name: mnist5k}\ntasks: {name: class_pairs, count: 2, images_per_task: 32}\n"
        "optimizer: {name: sam, rho: 0.1}\nseeds: [3, 4]\n"
    )
    code, out, err = run("trial", "trial.yaml")
    assert (code, err) == (0, "")
    assert re.findall(r"^task +\d+ +(\S+) ", out, re.MULTILINE) == ["0-1", "0-2"]
    assert "seeds [3, 4]" in out
    assert "summary/accuracy_test" in out


def test_a_setting_on_the_command_line_overrules_the_file(here, run):
    (here / "trial.yaml").write_text("tasks: {name: class_pairs, count: 3, images_per_task: 32}\n")
    code, out, _ = run("trial", "trial.yaml", "--set", "tasks/count=1", "--json")
    assert code == 0
    assert len(out.splitlines()) == 1


QUICK_COMMANDS = {
    "list": ("list",),
    "best": ("best", "first"),
    "show --help": ("show", "--help"),
}


@pytest.mark.parametrize("words", QUICK_COMMANDS.values(), ids=QUICK_COMMANDS)
def test_quick_commands_import_none_of_the_large_packages(here, words):
    """Importing them takes seconds."""
    run_all(folder_of(here / "study-results", plan_of("first", trials=3)))
    program = (
        f"import sys; from study import cli; sys.argv = ['study', *{words!r}]\n"
        "try: cli.main()\n"
        "except SystemExit: print(sorted({'torch', 'ray', 'mlflow', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=here,
        env=clean_environment(PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
