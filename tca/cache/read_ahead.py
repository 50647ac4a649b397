"""Work done by one thread ahead of whoever needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TypeVar

T = TypeVar("T")


def read_ahead(
    tasks: Iterable[Callable[[], T]], depth: int, stopping: Event | None = None
) -> Generator[T, None, None]:
    """Yield what each of `tasks` returns, in order, with at most `depth` results lying ready.

    What a task raises is raised in its place. When the iterator is closed or dropped, the task
    under way is waited for and the others are not begun; `stopping` is set first, so that a long
    one can look at it.
    """
    ahead: deque[Future[T]] = deque()
    reader = ThreadPoolExecutor(1, thread_name_prefix="tca-loader")
    try:
        for task in tasks:
            ahead.append(reader.submit(task))
            if len(ahead) > depth:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        if stopping is not None:
            stopping.set()
        reader.shutdown(cancel_futures=True)
