"""Version 7 ids: their layout, their order, and that no thread or fork repeats one."""

import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from uuid import RFC_4122, UUID

import pytest

from cq.definition import ids
from cq.definition.ids import uuid7


def milliseconds(value: UUID) -> int:
    return value.int >> 80


def test_layout() -> None:
    before = time.time_ns() // 1_000_000
    made = ids._Source().uuid7()
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == RFC_4122
    assert before <= milliseconds(made) <= after


def test_each_is_larger_than_the_one_before() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert all(one < two for one, two in pairwise(made))


def test_they_grow_while_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ids._Source()
    first = source.uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
    later = [source.uuid7() for _ in range(1_000)]
    assert all(one < two for one, two in pairwise([first, *later]))
    assert milliseconds(later[-1]) - milliseconds(first) <= 1


def test_a_full_millisecond_runs_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ids._Source()
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_000)
    source._last = (5 << 74) | (1 << 74) - 1
    assert milliseconds(source.uuid7()) == 6


def test_threads_never_make_the_same_one() -> None:
    start = threading.Barrier(8)

    def make(_: int) -> list[UUID]:
        start.wait()
        return [uuid7() for _ in range(2_000)]

    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(make, range(8)))
    assert len({one for batch in batches for one in batch}) == 16_000
    assert all(one < two for batch in batches for one, two in pairwise(batch))


def test_a_forked_child_starts_afresh_even_while_the_lock_is_held() -> None:
    reader, writer = os.pipe()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ids._source._lock:
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with warnings.catch_warnings():
        # A fork beside threads is just what is tested; Python 3.12 warns of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.write(writer, ids._source.uuid7().bytes)
        os._exit(0)
    done.set()
    holder.join()
    os.waitpid(child, 0)
    assert UUID(bytes=os.read(reader, 16)) != ids._source.uuid7()
    os.close(reader)
    os.close(writer)
