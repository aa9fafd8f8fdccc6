"""Why a task waits: a sentence for every case, and none for a task that waits for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from cq.definition.status import TERMINAL, Status
from cq.web.task_page.waiting import Facts, span, why

Q, Y, P, W, R = (Status(letter) for letter in "QYPWR")
READY = {"workers": 2, "listening": 2, "able": 2, "slots": 16, "running": 3}


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"status": P}, "It is held: it was made with submit=False and waits for submit()."),
        (
            {"status": P, "predecessor": ("shop.tasks.import_csv", R)},
            "It starts after import_csv has succeeded, which is Running now.",
        ),
        ({"status": Q, "due_in": 200.0}, "It is due in 3 m 20 s."),
        (
            {"status": Y, "due_in": 8.2, "attempts": 2},
            "Attempt 2 failed; the next one starts in 8 s.",
        ),
        ({"status": Q}, "No worker is running: start one with manage.py cq_runworker."),
        (
            {"status": Q, "workers": 3, "queue": "video"},
            "None of the 3 workers takes the queue 'video'.",
        ),
        (
            {"status": Q, "workers": 3, "listening": 1, "func_name": "shop.tasks.new"},
            "The one worker on the queue 'default' does not know 'shop.tasks.new': it may run "
            "older code.",
        ),
        (
            {"status": Q, "workers": 3, "listening": 2, "func_name": "shop.tasks.new"},
            "None of the 2 workers on the queue 'default' knows 'shop.tasks.new': they may run "
            "older code.",
        ),
        (
            {"status": Q, "workers": 1, "queue": "video"},
            "The one worker does not take the queue 'video'.",
        ),
        ({"status": Q, **READY, "slots": 1, "running": 1}, "The one slot is busy."),
        (
            {"status": Q, **READY, "running": 16, "ahead": 11},
            "All 16 slots are busy, and 11 tasks are ahead.",
        ),
        ({"status": Q, **READY, "running": 17}, "All 16 slots are busy."),
        (
            {"status": Q, **READY, "ahead": 1},
            "1 task of the queue 'default' comes first; 3 tasks are running.",
        ),
        (
            {"status": Y, **READY, "ahead": 1000, "running": 1},
            "More than 1,000 tasks of the queue 'default' come first; 1 task is running.",
        ),
        ({"status": Q, **READY}, "A worker will take it in a moment."),
        (
            {"status": W, "children": {R: 9, Q: 3, Y: 1}},
            "It waits for 13 subtasks: 3 queued, 9 running, 1 in retry.",
        ),
        ({"status": W, "children": {P: 1}}, "It waits for 1 subtask: 1 pending."),
        ({"status": W}, "Its subtasks are over; its own end follows in a moment."),
        ({"status": R}, ""),
        (
            {"status": R, "silent_for": 40.0},
            "Its worker has not been heard of for 40 s; when it is found dead, the task is put "
            "back.",
        ),
    ],
)
def test_a_sentence_for_every_case(facts: dict[str, Any], sentence: str):
    assert why(Facts(**facts)) == sentence


def test_what_has_ended_waits_for_nothing():
    assert {why(Facts(status=status)) for status in TERMINAL} == {""}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (60, "1 m"),
        (200, "3 m 20 s"),
        (3600, "1 h"),
        (9000, "2 h 30 m"),
        (200_000, "2 d 7 h"),
    ],
)
def test_a_length_of_time_in_words(seconds: float, words: str):
    assert span(seconds) == words
