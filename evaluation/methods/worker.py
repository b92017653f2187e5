"""The program that a `WorkerProcess` starts: it loads one method and fills images until its stdin closes.

It reads pickles from stdin: first the method, then lists of (pair id, image, hole). It writes pickles to stdout: first
{"batched": True if it takes several images together}, or a message that says why the method cannot start, then a list
of results or error messages for each list.
"""

import os
import pickle
import sys

import numpy as np

from evaluation.methods import registry
from evaluation.methods.external import die_with
from evaluation.methods.results import fill_all
from maskgen.errors import BadInput
from maskgen.runtime.memory import keep_memory


def main() -> None:
    """Serve one method."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a method prints must not mix with the answers
    method, raw, threads, size, parent = pickle.load(stdin)
    die_with(parent)
    import cv2

    cv2.setNumThreads(threads)
    keep_memory()

    def answer(message):
        pickle.dump(message, stdout, protocol=5)
        stdout.flush()

    try:
        function = registry.load(method, raw=raw, threads=threads, size=size)
    except BadInput as error:
        answer(str(error))
        return
    answer({"batched": hasattr(function, "fill_all")})
    while True:
        try:
            pairs = pickle.load(stdin)
        except EOFError:
            return
        # A method may write on its input; an array that was read-only stays so in a pickle.
        writable = [(pair, *(np.require(array, requirements="W") for array in arrays)) for pair, *arrays in pairs]
        answer(fill_all(function, writable))
