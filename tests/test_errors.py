"""Sentences are printable and bounded, whatever they quote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import LONGEST, one_sentence, printable


@given(st.text(max_size=2000))
def test_any_text_becomes_one_printable_line(text):
    line = one_sentence(text)
    assert len(line) <= LONGEST
    assert line.isprintable()


@pytest.mark.parametrize("control", ["\x1b[31m", "\x07", "\r", "\x9b", "\u202e", "\u2028", "\udcff", "\x7f"])
def test_control_characters_are_escaped_as_repr_does(control):
    shown = printable(f"a{control}b")
    assert shown.isprintable()
    assert shown == repr(f"a{control}b")[1:-1]


def test_what_is_printable_is_left_alone():
    for text in ("plain", "ä 漢字 🐍", "two  blanks", "'quoted' \\n", "x" * LONGEST):
        assert one_sentence(text) == text
    assert printable("two\nlines", kept="\n") == "two\nlines"


def test_a_long_value_is_cut_and_what_stands_around_it_stays():
    said = one_sentence(f"--to {'x' * 5000!r} is too long; name another folder.")
    assert len(said) <= LONGEST
    assert said.startswith("--to 'xxx")
    assert "..." in said
    assert said.endswith("xxx' is too long; name another folder.")


def test_of_two_long_values_both_are_cut():
    said = one_sentence(f"--set {'a' * 400}: unknown {'b' * 400}; known: data, tasks.")
    assert len(said) <= LONGEST
    assert said.startswith("--set aaa")
    assert ": unknown bbb" in said
    assert said.endswith("bbb; known: data, tasks.")


def test_many_short_words_are_cut_in_the_middle():
    said = one_sentence("seeds=" + ", ".join(map(str, range(10_000))) + " are too many.")
    assert len(said) <= LONGEST
    assert said.startswith("seeds=0, 1, 2")
    assert said.endswith("9999 are too many.")
