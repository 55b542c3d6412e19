"""The local engine: one process that reads ahead and writes behind while the network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from paintback.batch.worker import Chunk, Group, Options, Painter, Record
from paintback.painting.request import Request

__all__ = ["run_local"]

AHEAD = 3  # chunks read before their turn
BEHIND = 4  # groups being written


def run_local(
    request: Request, chunks: Sequence[Chunk], options: Options, stopped: Callable[[], bool]
) -> Iterator[list[Record]]:
    """Paints chunks in this process.

    Args:
        request: names the model, the device, the dtype and the threads.
        chunks: what is to be painted.
        options: of the run.
        stopped: whether to end after the batch in hand.

    Returns:
        Records, a list for each batch, once its pictures are on the disk.

    Raises:
        ValueError: for a model or device that cannot be used.
    """
    painter = Painter(request, options)
    readers = ThreadPoolExecutor(1, "read")
    writers = ThreadPoolExecutor(1, "write")
    waiting = iter(chunks)
    reading: deque[Future[tuple[list[Group], list[Record]]]] = deque()
    writing: deque[Future[list[Record]]] = deque()

    def read_ahead() -> None:
        while len(reading) < AHEAD:
            chunk = next(waiting, None)
            if chunk is None:
                return
            reading.append(readers.submit(painter.read, chunk))

    def written(room: int) -> Iterator[list[Record]]:
        while writing and (len(writing) > room or writing[0].done()):
            yield writing.popleft().result()

    try:
        read_ahead()
        while reading and not stopped():
            groups, records = reading.popleft().result()
            read_ahead()
            yield records
            for group in groups:
                if stopped():
                    break
                painted, records = painter.paint(group)
                writing.append(writers.submit(painter.write, painted))
                yield records
                yield from written(BEHIND)
        yield from written(0)
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
        writers.shutdown(wait=True, cancel_futures=True)
