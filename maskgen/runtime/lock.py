"""One run at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from maskgen.errors import BadInput

LOCK = ".lock"  # in the folder while a run uses it; a file left by a killed run does not block anyone


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder until the block ends. Raises BadInput at once if another run, of any command, holds it.

    The operating system releases the lock when the process ends, also after a kill or on another machine of a shared
    disk. A missing folder is created, and removed again if the block leaves it empty. One thread may lock a folder
    twice.
    """
    folder = folder.resolve()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"another run is using {folder}: wait until it ends, or stop it") from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # Windows keeps the open file, and removes it on release
                (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):  # not empty: the usual case
            for path in missing:
                path.rmdir()
