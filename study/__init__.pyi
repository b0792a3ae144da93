# The types of the names that `study/__init__.py` imports when they are first used.

from search_spaces import Method as Method
from search_spaces import SearchSpace as SearchSpace
from study.cli.api import Sweep as Sweep
from study.cli.api import compare as compare
from study.cli.api import confirm as confirm
from study.cli.api import load as load
from study.cli.api import report as report
from study.cli.api import resume as resume
from study.cli.api import run as run
from study.cli.api import trial as trial
from study.errors import Halted as Halted
from study.errors import Interrupted as Interrupted
from study.errors import StudyError as StudyError

__version__: str
