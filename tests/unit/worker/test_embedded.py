"""The embedded worker does not come back on a loop that is going down."""

from cq.worker.embedded import EmbeddedWorker


async def test_a_stopped_worker_stays_stopped_on_its_loop(monkeypatch):
    started = []

    async def run(self):
        started.append(self)

    monkeypatch.setattr(EmbeddedWorker, "_run", run)
    embedded = EmbeddedWorker()
    embedded.ensure_started()
    await embedded._task
    await embedded.stop()
    embedded.ensure_started()
    await embedded._task
    assert len(started) == 1
