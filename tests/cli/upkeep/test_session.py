"""A launch ends in time, and tells of its end, without keeping whom it tells."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from report_fixtures import Blank
from shared import lay_database
from store_faults import played
from sweep_fixtures import assert_one_sentence, records_of

from study.cli.upkeep.session import Session, seconds_of, target_of
from study.errors import Halted, StudyError

RUN = ("run", "quickstart", "--scenario", "class_pairs", "--method", "sgd", "--trials", 2, "--seeds", 2)
SECRET = "hush-3141592653"


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d2h3m4s", 93_784), ("366d", 31_622_400), (0.5, 0.5)],
)
def test_a_time_limit_is_a_time(limit, seconds):
    assert seconds_of(limit) == seconds


@pytest.mark.parametrize(
    "limit", ["", "90", "0s", "-1s", "1.5h", "2 h", "1s1m", "soon", "367d", "9" * 50 + "s", "nan", 0.0, float("nan")]
)
def test_what_is_no_time_is_refused(limit):
    with pytest.raises(StudyError, match=r"^--time-limit must be a time such as 90s, 30m, 2h or 1h30m"):
        seconds_of(limit)


@pytest.mark.parametrize(
    "target", ["true", "true | cat", "X=1 true", "cd / && true", f"http://localhost:1/{SECRET}", "https://[::1]"]
)
def test_a_command_or_an_address_can_be_told(target):
    assert target_of(target) == target


@pytest.mark.parametrize(
    "target",
    [
        "",
        "  ",
        f"nosuchcommand {SECRET}",
        f"echo '{SECRET}",
        f"true && ( {SECRET}",
        f"ftp://x/{SECRET}",
        f"http:///{SECRET}",
        f"http://x:port/{SECRET}",
        f"true \0{SECRET}",
        f"http://[::1/{SECRET}",
    ],
)
def test_what_nobody_can_be_told_by_is_refused_without_its_secrets(target):
    with pytest.raises(StudyError, match=r"^--notify must be") as refusal:
        target_of(target)
    assert SECRET not in str(refusal.value)
    assert SECRET not in repr(Session(notify=SECRET))


def test_bad_options_are_refused_before_any_work(refused):
    assert "--time-limit must be" in refused(*RUN, "--time-limit", "soon")
    assert "--notify must be" in refused(*RUN, "--notify", "nosuchcommand")


def test_the_time_of_a_session_passes():
    assert not Session(limit=3600.0).is_over
    assert Session(limit=3600.0, began=time.monotonic() - 3601).is_over
    assert not Session().is_over


@pytest.fixture
def store(here, monkeypatch):
    """An empty store, and no figures in it."""
    monkeypatch.setattr("study.cli.pictures.Pictures", Blank)
    return lay_database(here / "study-results")


def test_a_time_limit_ends_in_good_order_and_a_resume_goes_on(store, here, run, monkeypatch):
    words = (*RUN, "--set", "tasks/count=3", "--trials", 4, "--time-limit", "1h")
    tell = ("--notify", 'echo "$STUDY_SWEEP|$STUDY_STATE|$STUDY_TEXT" > told')
    with monkeypatch.context() as first:
        played(first, lambda _: first.setattr(Session, "is_over", True))
        code, out, err = run(*words, *tell)
    said = "quickstart: the time limit has passed; 3 of 4 trials are done; continue with: study resume quickstart"
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == said
    assert (here / "told").read_text() == f"quickstart|time limit|{said}\n"
    before = records_of(here / "study-results" / "quickstart")
    played(monkeypatch)
    code, out, _ = run("resume", "quickstart", *tell)
    assert code == 0
    assert "Next steps" in out
    assert (here / "told").read_text() == "quickstart|done|quickstart: 4 of 4 trials are done\n"
    assert len(before) == 3
    assert before.items() <= records_of(here / "study-results" / "quickstart").items()


class Listener(HTTPServer):
    """Keeps what is posted to it."""

    def __init__(self, status):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.posted = posted = []
        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def listening(monkeypatch):
    """Starts a server that answers with a status."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def listen(status):
        server = Listener(status)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_port}/{SECRET}"

    yield listen
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_address_gets_the_end_as_json(listening):
    server, address = listening(200)
    with Session(notify=address).told("first") as ending:
        ending.text = "2 of 2 trials are done"
    assert server.posted == [{"sweep": "first", "state": "done", "text": "first: 2 of 2 trials are done"}]


def test_a_failing_address_loses_nothing_and_is_kept_nowhere(store, here, run, listening, monkeypatch):
    played(monkeypatch)
    server, address = listening(500)
    monkeypatch.setenv("STUDY_NOTIFY", address)
    code, _, err = run(*RUN)
    assert code == 0
    assert [posted["state"] for posted in server.posted] == ["done"]
    assert (
        err == "note: the notification failed (127.0.0.1 answers with error 500); the sweep has lost nothing by it.\n"
    )
    assert [path for path in here.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []


def test_a_halted_sweep_is_told_as_failed(store, here, run, monkeypatch):
    def halt(_):
        raise Halted("the disk is full")

    played(monkeypatch, halt)
    code, _, err = run(*RUN, "--notify", 'echo "$STUDY_STATE|$STUDY_TEXT" > told')
    assert code == 1
    assert err == "study: the disk is full\n"
    assert (here / "told").read_text() == "failed|quickstart: the disk is full\n"


def test_a_request_that_is_refused_is_told_to_nobody(here, run):
    code, out, err = run("resume", "nothing", "--notify", "echo > told")
    assert_one_sentence(code, out, err)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("exit 3", "exit code 3"),
        ("sleep 9", "more than 0.05 s"),
        (f"http://127.0.0.1:9/{SECRET}", "127.0.0.1 cannot be reached"),
    ],
)
def test_a_notification_that_fails_is_said_without_secrets(capfd, monkeypatch, target, reason):
    monkeypatch.setattr("study.cli.upkeep.session.PATIENCE", 0.05)
    with Session(notify=target).told("first"):
        pass
    said = capfd.readouterr().err
    assert reason in said
    assert SECRET not in said


def test_an_interruption_is_told_to_nobody(tmp_path):
    target = tmp_path / "told"
    with pytest.raises(KeyboardInterrupt), Session(notify=f"touch {target}").told("first"):
        raise KeyboardInterrupt
    assert not target.exists()
