"""Malformed input for the commands, made from a seed.

Every case is wrong in one way that its maker knows: the command must refuse it. `KINDS` has one maker for each kind of input.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from malformed_files import archive, space_file, space_in_yaml, trial_file
from malformed_words import (
    Case,
    address,
    command_line,
    environment,
    name,
    name_of_a_setting,
    number_of_an_option,
    path,
    size,
    value_of_a_setting,
)

KINDS: Mapping[str, Callable[[random.Random], Case]] = {
    maker.__name__: maker
    for maker in (
        number_of_an_option,
        value_of_a_setting,
        name_of_a_setting,
        name,
        path,
        address,
        environment,
        trial_file,
        space_file,
        space_in_yaml,
        archive,
        size,
        command_line,
    )
}
"""The makers of cases, by kind."""


def cases(seed: int, count: int) -> Iterator[Case]:
    """`count` cases, the kinds taking turns; each depends on the seed, its kind and its turn alone."""
    kinds = list(KINDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        draw = random.Random(f"{seed}/{kind}/{number // len(kinds)}")
        made = KINDS[kind](draw)
        yield Case(made.words, made.files, made.environment, kind)
