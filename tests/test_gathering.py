"""Answers on their way home: what becomes of those whose worker ends first."""

import asyncio
import pickle
import threading
from concurrent.futures import Future
from types import SimpleNamespace

from ensemblerl.cluster.gathering import Gathering
from ensemblerl.executors.base import Lost
from ensemblerl.records import Answer


class Client:
    """Of Dask's only what is used: one of two results is gone with its worker."""

    status = "running"

    def __init__(self, loop):
        self.loop = SimpleNamespace(add_callback=lambda call: loop.call_soon_threadsafe(call))
        self.cancelled = []

    async def gather(self, futures, errors, asynchronous):
        answer = pickle.dumps(Answer([], {}))
        return {key: answer if key == "here" else None for key in futures}

    async def cancel(self, futures, asynchronous):
        self.cancelled += [future.key for future in futures]


def test_a_result_that_went_with_its_worker_is_a_loss_and_is_not_computed_again():
    loop = asyncio.new_event_loop()
    client = Client(loop)
    gathering = Gathering.__new__(Gathering)
    gathering._client, gathering._explain = client, None
    ours = {"here": Future(), "gone": Future()}
    gathering._ours = dict(ours)
    batch = [SimpleNamespace(key=key, status="finished") for key in ours]
    thread = threading.Thread(target=lambda: loop.run_until_complete(gathering._settle(batch)))
    thread.start()
    thread.join(10)
    loop.close()
    assert ours["here"].result(0) == Answer([], {})
    lost = ours["gone"].exception(0)
    assert isinstance(lost, Lost)
    assert lost.blameless
    assert client.cancelled == ["gone"]
