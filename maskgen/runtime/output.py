"""One run at a time in an output folder: two that write the same files would spoil each other's."""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from maskgen.errors import BadInput

LOCK = ".lock"  # in the folder while a run works in it; what a kill leaves there hinders nobody


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends. Raises BadInput at once where another run, of any command, is at work in it.

    The system frees the lock with the process, also after a kill or on another machine of a shared disk. A folder that
    is missing is made, and goes again if the block leaves it empty. The same thread may hold a folder twice.
    """
    folder = folder.resolve()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"another run is at work in {folder}: wait for it, or stop it first") from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # Windows keeps an open file, and removes it on release
                (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):  # not empty: the usual case
            for path in missing:
                path.rmdir()


def alone(argument: str):
    """Decorate a function so that it holds the folder in one of its arguments, a Path or None, while it runs."""

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*args, **named):
            folder = signature.bind(*args, **named).arguments.get(argument)
            if folder is None:
                return function(*args, **named)
            with alone_in(folder):
                return function(*args, **named)

        return wrapper

    return decorate


def occupied(folder: Path) -> bool:
    """Whether a folder is there and holds anything besides a lock."""
    return folder.exists() and any(path.name != LOCK for path in folder.iterdir())
