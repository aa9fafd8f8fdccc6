"""The meter counts in files of each process, and the reader adds them up."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import meter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(meter.FOLDER, str(tmp_path))
    monkeypatch.setattr(meter, "_counter", None)
    yield tmp_path
    if meter._counter is not None:
        meter._counter.close()


def bump_often(count: int) -> None:
    for _ in range(count):
        meter.bump()


def test_it_counts_what_this_process_did(folder: Path):
    assert meter.counted(folder) == 0
    bump_often(3 * meter.EVERY + 1)
    assert meter.counted(folder) == 3 * meter.EVERY + 1
    (run,) = meter.runs(folder)
    assert run.count == 3 * meter.EVERY + 1
    assert run.first <= run.marks[0] <= run.marks[1] <= run.marks[2] <= run.last


def test_it_knows_how_many_were_done_by_a_moment(folder: Path):
    bump_often(3 * meter.EVERY)
    (run,) = meter.runs(folder)
    assert run.done_by(run.first - 1) == 0
    assert run.done_by(run.marks[1]) == 2 * meter.EVERY
    assert run.done_by(run.last) == run.count


def test_each_process_has_a_file_of_its_own(folder: Path):
    meter.bump()
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=bump_often, args=(20,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert meter.counted(folder) == 41
    assert sorted(run.count for run in meter.runs(folder)) == [1, 20, 20]


def test_threads_that_begin_together_share_one_file(folder: Path):
    together = threading.Barrier(8)

    def begin() -> None:
        together.wait()
        bump_often(50)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.count for run in meter.runs(folder)] == [400]


def test_stamps_are_kept_in_the_order_in_which_they_were_sent(folder: Path):
    meter.stamp(2)
    meter.stamp(1)
    kept = meter.stamps(folder)
    assert [sent for sent, _ in kept] == [1, 2]
    assert all(began > sent for sent, began in kept)
