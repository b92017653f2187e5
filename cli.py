"""The commands `maskgen`, `pconv` and `evaluate`.

Each package keeps its own in `commands.py`: options in, one function call out. What they share is in
`maskgen/shell.py`. None of these imports anything heavy before it is asked to, so that --help answers at once.
"""

from evaluation.commands import evaluate
from maskgen.commands import maskgen
from pconv_model.commands import pconv

__all__ = ["evaluate", "maskgen", "pconv"]
