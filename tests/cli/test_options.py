"""Values of options: what YAML takes, what a path can be, what a number can be."""

from pathlib import Path

import pytest

from study.cli.options import data_folder, new_folder, number, parse_setting, path, place, word
from study.config import DEEPEST, TrialConfig, is_too_nested, parse_yaml
from study.errors import StudyError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".1", 0.1),
        ("1.", 1.0),
        ("1e-3", 1e-3),
        ("+5", 5),
        ("[100,100,]", [100, 100]),
        ("[.1]", [0.1]),
        ("[hessian/trace]", ["hessian/trace"]),
        ("0.1", 0.1),
        ("null", None),
        ("true", True),
        ('"1"', "1"),
        ("mnist", "mnist"),
        ("2001-01-01", "2001-01-01"),
        ("#x", "#x"),
        ("", ""),
        ("*x", "*x"),
        ("!!python/name:os.system x", "!!python/name:os.system x"),
        ("\x1b[31m", "\x1b[31m"),
    ],
)
def test_a_setting_takes_the_values_of_json_and_yaml_and_else_is_a_word(text, value):
    assert parse_setting(f"optimizer/lr={text}") == ("optimizer/lr", value)
    assert type(parse_setting(f"optimizer/lr={text}")[1]) is type(value)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 50 + "]" * 50, '{"a":' * 30 + "1" + "}" * 30])
def test_a_value_that_is_nested_too_deep_is_refused(text):
    with pytest.raises(StudyError, match="nested too deep"):
        parse_setting(f"model/widths={text}")


def test_what_contains_itself_or_grows_without_end_is_too_nested():
    circle: list = []
    circle.append(circle)
    assert is_too_nested(circle)
    doubled: list = []
    for _ in range(DEEPEST - 2):
        doubled = [doubled] * 10
    assert is_too_nested(doubled)
    assert not is_too_nested({"a": [1, (2, {"b": 3})]})
    with pytest.raises(ValueError, match="nested"):
        parse_yaml("a: &a [*a]")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_does_not_become_a_default(value):
    assert TrialConfig.from_plain({"tasks": {"count": value}}).flat()["tasks/count"] is not None


@pytest.mark.parametrize("given", ["", "x" * 256, "ä" * 128, "a/" * 3000, "\udcff"])
def test_no_file_system_holds_such_a_path(given):
    for parse in (path("--dir"), new_folder("--to"), place("--storage")):
        with pytest.raises(StudyError, match=r"^--"):
            parse(given)


@pytest.mark.parametrize("given", ["x" * 255, "a b", "?%#'", "ä/漢字", "~x", "-", "a/" * 1900])
def test_any_other_path_is_taken_as_it_is(given):
    assert path("--dir")(given) == Path(given)


@pytest.mark.parametrize("given", [".", "/", "//", "..", "a/..", "./"])
def test_a_new_folder_needs_a_name(given):
    with pytest.raises(StudyError, match="must name a new folder"):
        new_folder("--to")(given)


def test_addresses_are_no_paths():
    assert place("--storage")("s3://bucket/" + "x" * 300) == "s3://bucket/" + "x" * 300
    with pytest.raises(StudyError, match=r"must not be empty"):
        word("--address")("")


@pytest.mark.parametrize("given", ["nan", "inf", "-inf", "-0.1", "1e999", "x", "", "101", float("nan")])
def test_numbers_are_finite_and_within_their_bounds(given):
    with pytest.raises(StudyError, match="a number, at least 0 and at most 100"):
        number("--price", 0, 100)(given)
    assert number("--price", 0, 100)("1e2") == 100


def test_a_user_without_a_home_names_the_folder_of_data(monkeypatch, tmp_path):
    monkeypatch.delenv("STUDY_DATA", raising=False)

    def homeless(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(StudyError, match="no home folder"):
        data_folder(None)
    with pytest.raises(StudyError, match="no home folder"):
        data_folder(Path("~/data"))
    assert data_folder(tmp_path) == tmp_path.resolve()
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path.resolve()


def test_a_tilde_before_nobodys_name_is_part_of_the_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert data_folder(Path("~nobody-of-that-name/x")) == tmp_path.resolve() / "~nobody-of-that-name" / "x"
