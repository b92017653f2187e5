"""The commands `maskgen`, `pconv` and `evaluate`.

Each package keeps its own in `commands.py`: options in, one function call out. What they share is in
`maskgen/runtime/command.py`. None of these imports a heavy module before it needs it, so that --help answers at once.
"""

from evaluation.commands import evaluate
from maskgen.commands import maskgen
from pconv_model.commands import pconv

__all__ = ["evaluate", "maskgen", "pconv"]
