"""The dispatcher without a server: what is sent, what is merged, what is never raised."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from channels.layers import get_channel_layer

from cq.transport.dispatcher import Dispatcher
from cq.transport.groups import event_message
from cq.transport.messages import MAX_IDS, run_message
from cq.transport.sender import MAX_EVENTS, MAX_WAITING_IDS
from tests.unit.transport.fake_layers import BrokenLayer, FullLayer, RecordingLayer

MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}


def hexes(count: int, start: int = 0) -> list[str]:
    return [f"{number:032x}" for number in range(start, start + count)]


def use(settings: Any, cq: type | None = None, default: type | None = None) -> None:
    aliases = {"cq": cq, "default": default}
    settings.CHANNEL_LAYERS = {
        alias: {"BACKEND": f"{layer.__module__}.{layer.__qualname__}"}
        for alias, layer in aliases.items()
        if layer is not None
    }


def dispatcher_threads() -> int:
    return sum(thread.name == "cq-dispatcher" for thread in threading.enumerate())


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    RecordingLayer.made.clear()
    dispatcher = Dispatcher()
    yield dispatcher
    dispatcher.close(1)


@pytest.fixture
def layer(
    settings: Any, dispatcher: Dispatcher, wait_until: Callable[..., Any]
) -> Iterator[RecordingLayer]:
    """The instance that the dispatcher made, which has sent one message already."""
    use(settings, cq=RecordingLayer)
    dispatcher.ring("first", [])
    assert dispatcher.flush(5)
    (layer,) = RecordingLayer.made
    layer.messages.clear()
    return layer


def close_gate(
    dispatcher: Dispatcher, layer: RecordingLayer, wait_until: Any
) -> Callable[[], None]:
    """Hold the next send back, and start it; the returned function lets it go."""
    loop = dispatcher._thread._loop  # type: ignore[union-attr]
    loop.call_soon_threadsafe(layer.gate.clear)
    tries = layer.tries
    dispatcher.ring("gate", hexes(1))
    wait_until(lambda: layer.tries > tries)
    return lambda: (loop.call_soon_threadsafe(layer.gate.set), None)[1]


def test_a_bell_is_one_message_on_the_channel_of_its_queue(
    dispatcher: Dispatcher, layer: RecordingLayer
) -> None:
    dispatcher.ring("default", hexes(1))
    assert dispatcher.flush(5)
    dispatcher.ring("video", hexes(2))
    assert dispatcher.flush(5)
    assert layer.messages == [
        ("cq-tasks", run_message(hexes(1))),
        ("cq-tasks.video", run_message(hexes(2))),
    ]


def test_what_piles_up_behind_a_send_becomes_one_message_per_queue(
    dispatcher: Dispatcher, layer: RecordingLayer, wait_until: Any
) -> None:
    open_gate = close_gate(dispatcher, layer, wait_until)
    for task_id in hexes(60):
        dispatcher.ring("a", [task_id])
        dispatcher.ring("b", [task_id])
    open_gate()
    assert dispatcher.flush(5)
    assert layer.messages == [
        ("cq-tasks.gate", run_message(hexes(1))),
        ("cq-tasks.a", run_message(hexes(60))),
        ("cq-tasks.b", run_message(hexes(60))),
    ]


def test_many_ids_are_cut_into_messages_and_too_many_are_dropped(
    dispatcher: Dispatcher, layer: RecordingLayer
) -> None:
    dispatcher.ring("default", hexes(10_000))
    assert dispatcher.flush(5)
    assert [len(message["ids"]) for _, message in layer.messages] == [MAX_IDS] * 5
    assert [i for _, message in layer.messages for i in message["ids"]] == hexes(MAX_WAITING_IDS)
    assert dispatcher.stats()["ids_dropped"] == 10_000 - MAX_WAITING_IDS


def test_large_queues_take_turns(
    dispatcher: Dispatcher, layer: RecordingLayer, wait_until: Any
) -> None:
    open_gate = close_gate(dispatcher, layer, wait_until)
    dispatcher.ring("a", hexes(250))
    dispatcher.ring("b", hexes(1))
    open_gate()
    assert dispatcher.flush(5)
    assert [channel.rpartition(".")[2] for channel, _ in layer.messages] == ["gate", *"abaa"]


def test_nothing_configured_is_nothing_done(settings: Any, dispatcher: Dispatcher) -> None:
    settings.CHANNEL_LAYERS = {}
    before = dispatcher_threads()
    dispatcher.ring("default", hexes(1))
    dispatcher.send_group("cq.root.x", {"type": "cq.event"})
    assert dispatcher_threads() == before
    assert dispatcher.flush(0)


def test_an_in_memory_layer_starts_no_thread(settings: Any, dispatcher: Dispatcher) -> None:
    settings.CHANNEL_LAYERS = {"cq": MEMORY, "default": MEMORY}
    before = dispatcher_threads()
    dispatcher.ring("default", hexes(1))
    dispatcher.send_group("cq.root.x", {"type": "cq.event"})
    assert dispatcher_threads() == before


def test_an_unusable_setting_is_said_once_and_raised_never(
    settings: Any, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CQ = {"SLOTS": "many"}
    for _ in range(3):
        dispatcher.ring("default", hexes(1))
    assert len(caplog.messages) == 1
    assert "CQ['SLOTS']" in caplog.text
    assert dispatcher.stats()["failures"] == 3


def test_a_thread_that_cannot_start_means_no_bell(
    settings: Any, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    use(settings, cq=RecordingLayer)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    dispatcher.ring("default", hexes(1))
    assert dispatcher.stats()["failures"] == 1


def test_a_failing_layer_is_logged_once_and_costs_the_caller_nothing(
    settings: Any, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    use(settings, cq=BrokenLayer)
    for task_id in hexes(1000):
        dispatcher.ring("default", [task_id])
    assert not dispatcher.flush(5), "a flush tries once more at once, and says that it failed"
    assert not dispatcher.flush(5)
    assert caplog.text.count("nobody listens") == 1
    assert dispatcher.stats()["layer_failures"] >= 2


def test_bells_of_an_outage_ring_after_it(
    dispatcher: Dispatcher,
    layer: RecordingLayer,
    wait_until: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "cq.transport")
    layer.errors = [ConnectionError("gone"), TimeoutError()]
    dispatcher.ring("default", hexes(3))
    wait_until(lambda: dispatcher.flush(5))
    assert dispatcher.stats()["layer_failures"] == 2
    assert layer.messages == [("cq-tasks", run_message(hexes(3)))]
    assert "works again" in caplog.messages[-1]


def test_a_full_channel_is_counted_and_no_outage(
    settings: Any, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    use(settings, cq=FullLayer)
    dispatcher.ring("default", hexes(250))
    assert dispatcher.flush(5)
    assert dispatcher.stats()["channel_full"] == 3
    assert not caplog.messages


def test_a_queue_that_no_channel_can_bear_harms_no_other(
    dispatcher: Dispatcher, layer: RecordingLayer
) -> None:
    dispatcher.ring("not a queue", hexes(2))
    dispatcher.ring("default", hexes(1))
    assert dispatcher.flush(5)
    assert layer.messages == [("cq-tasks", run_message(hexes(1)))]
    assert dispatcher.stats()["layer_failures"] == 0


def test_a_backend_that_cannot_be_made_is_an_outage(settings: Any, dispatcher: Dispatcher) -> None:
    settings.CHANNEL_LAYERS = {"cq": {"BACKEND": "no.such.Layer"}}
    dispatcher.ring("default", hexes(1))
    assert not dispatcher.flush(5)
    assert dispatcher.stats()["layer_failures"] >= 1


def test_new_settings_mean_new_layers(
    settings: Any, dispatcher: Dispatcher, layer: RecordingLayer, wait_until: Any
) -> None:
    dispatcher.reset()
    dispatcher.ring("default", hexes(1))
    assert dispatcher.flush(5)
    assert len(RecordingLayer.made) == 2
    assert RecordingLayer.made[1].messages == [("cq-tasks", run_message(hexes(1)))]
    settings.CHANNEL_LAYERS = {}
    dispatcher.reset()
    wait_until(lambda: dispatcher_threads() == 0)


def test_a_flush_without_answer_ends_in_time(
    dispatcher: Dispatcher, layer: RecordingLayer, wait_until: Any
) -> None:
    open_gate = close_gate(dispatcher, layer, wait_until)
    assert not dispatcher.flush(0.05)
    open_gate()
    assert dispatcher.flush(5)


# --- events -------------------------------------------------------------------------------------


def test_events_keep_their_order_within_a_group(settings: Any, dispatcher: Dispatcher) -> None:
    use(settings, default=RecordingLayer)
    for number in range(300):
        dispatcher.send_group(f"g{number % 7}", {"type": "cq.event", "n": number})
    assert dispatcher.flush(5)
    (layer,) = RecordingLayer.made
    for group in range(7):
        numbers = [message["n"] for name, message in layer.events if name == f"g{group}"]
        assert numbers == list(range(group, 300, 7))
    assert dispatcher.stats()["events"] == 300


def test_the_first_event_of_a_group_leaves_at_once_and_the_next_together(
    settings: Any, dispatcher: Dispatcher, wait_until: Any
) -> None:
    use(settings, default=RecordingLayer)

    def tell(number: int) -> None:
        lines = [{"seq": number, "message": "x"}]
        dispatcher.send_group("g", event_message("0" * 32, "log", "here", lines=lines))

    tell(1)
    wait_until(lambda: dispatcher.stats()["events"])
    for number in range(2, 100):
        tell(number)
    (layer,) = RecordingLayer.made
    wait_until(lambda: sum(len(message["lines"]) for _, message in layer.events) == 99)
    assert len(layer.events) <= 4
    numbers = [line["seq"] for _, message in layer.events for line in message["lines"]]
    assert numbers == list(range(1, 100))


def test_an_event_that_fails_is_dropped_and_does_not_block_the_rest(
    settings: Any, dispatcher: Dispatcher, wait_until: Any
) -> None:
    use(settings, default=RecordingLayer)
    dispatcher.send_group("g", {"n": 0})
    assert dispatcher.flush(5)
    (layer,) = RecordingLayer.made
    layer.errors = [TypeError("can not serialize 'object' object")]
    dispatcher.send_group("g", {"n": 1})
    dispatcher.send_group("g", {"n": 2})
    wait_until(lambda: dispatcher.flush(5))
    assert [message["n"] for _, message in layer.events] == [0, 2]
    assert dispatcher.stats()["events_dropped"] == 1


def test_too_many_events_push_out_the_oldest(
    settings: Any, dispatcher: Dispatcher, wait_until: Any
) -> None:
    use(settings, default=BrokenLayer)
    for number in range(MAX_EVENTS + 500):
        dispatcher.send_group("g", {"n": number})
    wait_until(lambda: dispatcher.stats()["events_dropped"] >= 500)


# --- the attached loop --------------------------------------------------------------------------


async def test_the_attached_loop_is_rung_once_per_burst_without_any_layer(
    settings: Any, dispatcher: Dispatcher
) -> None:
    settings.CHANNEL_LAYERS = {}
    loop = asyncio.get_running_loop()
    bells: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    dispatcher.attach_loop(loop, bells.put_nowait)

    def burst() -> None:
        for task_id in hexes(250):
            dispatcher.ring("default", [task_id])

    burst()
    assert await bells.get() == run_message(hexes(MAX_IDS))
    assert bells.empty()
    await asyncio.to_thread(burst)
    assert (await bells.get())["type"] == "cq.run"
    assert dispatcher.stats()["local_rings"] < 100
    assert dispatcher_threads() == 0


async def test_a_detached_loop_hears_nothing_more(settings: Any, dispatcher: Dispatcher) -> None:
    settings.CHANNEL_LAYERS = {}
    loop = asyncio.get_running_loop()
    bells: list[dict[str, Any]] = []
    dispatcher.attach_loop(loop, bells.append)
    dispatcher.ring("default", hexes(1))
    dispatcher.detach_loop()
    dispatcher.ring("default", hexes(1))
    turned = asyncio.Event()
    loop.call_soon(turned.set)
    await turned.wait()
    assert bells == []


async def test_only_queues_of_the_attached_worker_ring_it(
    settings: Any, dispatcher: Dispatcher
) -> None:
    settings.CHANNEL_LAYERS = {}
    bells: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    dispatcher.attach_loop(asyncio.get_running_loop(), bells.put_nowait, queues=["video"])
    dispatcher.ring("default", hexes(1))
    dispatcher.ring("video", hexes(1, start=7))
    assert await bells.get() == run_message(hexes(1, start=7))
    assert bells.empty()
    dispatcher.detach_loop()


async def test_a_layer_that_reaches_other_processes_is_rung_too(
    settings: Any, dispatcher: Dispatcher
) -> None:
    use(settings, cq=RecordingLayer)
    bells: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    dispatcher.attach_loop(asyncio.get_running_loop(), bells.put_nowait)
    dispatcher.ring("default", hexes(1))
    assert await bells.get() == run_message(hexes(1))
    assert await asyncio.to_thread(dispatcher.flush, 5)
    (layer,) = RecordingLayer.made
    assert layer.messages == [("cq-tasks", run_message(hexes(1)))]
    dispatcher.detach_loop()


def test_a_loop_that_has_ended_is_forgotten(settings: Any, dispatcher: Dispatcher) -> None:
    settings.CHANNEL_LAYERS = {}
    loop = asyncio.new_event_loop()
    dispatcher.attach_loop(loop, lambda message: None)
    loop.close()
    dispatcher.ring("default", hexes(1))
    assert dispatcher.stats()["failures"] == 0


async def test_events_of_an_in_memory_layer_leave_through_the_attached_loop(
    settings: Any, dispatcher: Dispatcher
) -> None:
    settings.CHANNEL_LAYERS = {"default": MEMORY}
    layer = get_channel_layer()
    await layer.group_add("cq.root.x", "browser")
    dispatcher.attach_loop(asyncio.get_running_loop(), lambda message: None)
    for number in range(50):
        await asyncio.to_thread(
            dispatcher.send_group, "cq.root.x", {"type": "cq.event", "n": number}
        )
    async with asyncio.timeout(5):
        assert [(await layer.receive("browser"))["n"] for _ in range(50)] == list(range(50))
    dispatcher.detach_loop()
