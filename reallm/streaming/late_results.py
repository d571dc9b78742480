"""Results of futures, which are given once the thread that gives them holds no lock.

A future calls whoever waits for it as soon as it has its result, in the thread that gives it. What is called may use the engine, and would
wait for ever for a lock that its own thread holds.
"""

import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from typing import Any

from reallm.errors import InputError


class _Own(threading.local):
    """A thread's own."""

    def __init__(self) -> None:
        self.depth = 0
        self.given: deque[tuple[Future[Any], Any, InputError | None]] = deque()


class LateResults:
    """A context manager to be entered before any lock: what is given inside is told when a thread leaves the outermost one."""

    def __init__(self) -> None:
        self._own = _Own()
        self._owed: set[Future[Any]] = set()  # of all threads

    def give(self, future: "Future[Any]", result: Any = None, error: InputError | None = None) -> None:
        """``future`` has this result, or this error, unless somebody has cancelled it. Only inside."""
        assert self._own.depth
        self._owed.add(future)
        self._own.given.append((future, result, error))

    def owes(self, future: "Future[Any]") -> bool:
        """Whether it is about to have what it was given."""
        return future in self._owed

    def __enter__(self) -> None:
        self._own.depth += 1

    def __exit__(self, *exception: object) -> None:
        own = self._own
        own.depth -= 1
        while own.given and not own.depth:
            future, result, error = own.given.popleft()
            try:
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
            except InvalidStateError:
                pass  # cancelled
            finally:
                self._owed.discard(future)
