"""The commands `maskgen`, `pconv` and `evaluate`.

Each package has its own in `commands.py`: options in, one function call out. What they share is in
`maskgen/runtime/command.py`. Slow imports are inside the functions, so that --help is fast.
"""

from evaluation.commands import evaluate
from maskgen.commands import maskgen
from pconv_model.commands import pconv

__all__ = ["evaluate", "maskgen", "pconv"]
