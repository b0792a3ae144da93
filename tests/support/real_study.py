"""One small study by Ray and MLflow for all tests that read one: a sweep, and two confirmations of it beside each other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from shared import once
from sweep_fixtures import study

NAME = "quickstart"
CONFIRMATIONS = ("first", "second")
SEEDS = tuple(range(1000, 1008))
"""Of the confirmations: with fewer, no difference between their three winners could be significant, which is complained of."""

SMALL = ("--set", "tasks/images_per_task=320", "--set", "tasks/count=3", "--seeds", 2)


class RealStudy(NamedTuple):
    """The folder it was run in, and what each of its commands printed."""

    place: Path
    said: dict[str, str]
    complained: dict[str, str]


def real_study() -> RealStudy:
    """The study, run by the first who asks. Its sweeps are only read; a report may be added."""
    made = once("real", _run)
    said, complained = (
        {path.stem: path.read_text(encoding="utf-8") for path in made.glob(f"*{kind}")} for kind in (".out", ".err")
    )
    return RealStudy(made / "place", said, complained)


def _run(made: Path) -> None:
    place = made / "place"
    place.mkdir()

    def run(name: str, *words: object) -> None:
        done = study(*words, "--name", name, cwd=place)
        assert done.returncode == 0, done.stderr
        (made / f"{name}.out").write_text(done.stdout, encoding="utf-8")
        (made / f"{name}.err").write_text(done.stderr, encoding="utf-8")

    run(NAME, "run", "quickstart", "--trials", 2, *SMALL)
    words = ("confirm", NAME, "--scenario", "class_pairs", "--seeds", len(SEEDS), "--workers", 1)
    with ThreadPoolExecutor() as pool:
        for beside in [pool.submit(run, name, *words) for name in CONFIRMATIONS]:
            beside.result()
