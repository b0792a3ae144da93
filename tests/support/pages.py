"""The README and the pages of the documentation as text: their blocks, commands and anchors."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from sweep_fixtures import REPOSITORY

PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in (
        REPOSITORY / "README.md",
        *sorted((REPOSITORY / "study" / "docs").glob("*.md")),
        REPOSITORY / "analysis" / "results" / "README.md",
    )
}
README = PAGES["README.md"]
TUTORIAL = "study/docs/tutorial.md"
CHANGELOG = {"CHANGELOG.md": (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")}

COMMENT = r"file: \S+|exit code \d|test command|not run by the test: .{10,}"
"""What may be said of a block, in a comment above it."""

FOLDERS = ("study", "tests", "analysis", "search_spaces")
PARTS = ("data", "tasks", "models", "optimizers", "interventions", "operations")


@dataclass(frozen=True)
class Block:
    """A fenced block: the comment above it, its language, and its text."""

    comment: str
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """Where it is to be written."""
        return self.comment.removeprefix("file: ") if self.comment.startswith("file: ") else None

    @property
    def is_run(self) -> bool:
        """Whether a test runs it."""
        return not self.file and (not self.comment or self.comment.startswith("exit code"))

    @property
    def commands(self) -> list[list[str]]:
        """Those that it shows, each as words."""
        if self.language != "bash":
            return []
        return [shlex.split(part) for line in self.text.splitlines() for part in line.split(" && ")]


def blocks_of(page: str) -> list[Block]:
    found = re.findall(r"(?:<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE)
    return [Block(*block) for block in found]


BLOCKS = [(page, block) for page in PAGES for block in blocks_of(page)]
FILES = {block.file: block.text for _, block in BLOCKS if block.file}


def prose_of(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def inline_commands(text: str) -> list[list[str]]:
    """The commands of the study in a page's running text."""
    return [shlex.split(words.replace("...", "")) for words in re.findall(r"`(study \w+[^`]*)`", prose_of(text))]


def anchors_of(path: Path) -> set[str]:
    """Those that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def study_commands() -> list[list[str]]:
    """Every command of the study on every page, without the program's name."""
    shown = [words for _, block in BLOCKS for words in block.commands]
    shown += [words for page in PAGES.values() for words in inline_commands(page)]
    return sorted({tuple(words[1:]) for words in shown if words and words[0].rpartition("/")[2] == "study"})
