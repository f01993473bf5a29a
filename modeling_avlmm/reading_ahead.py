"""Work ahead of the reader: the next item of an iterator is made in a thread while the last one is used."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """
    Yield the items of an iterable, each made in a thread while the one before is used.

    Decoding, finding faces and a network's pass leave Python's lock alone most of the time, so that two of them share two
    cores. One item is made ahead, not more. An exception comes where its item would have been; whoever stops early
    waits for the item that is being made.

    Example:

    ```python
    >>> for clip in ahead(reader.read(start, end) for start, end in reader.windows(4.0)):
    ...     score(clip)  # the next clip is decoded meanwhile
    ```
    """
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, source, end)
            yield item


__all__ = ["ahead"]
