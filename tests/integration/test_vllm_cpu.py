"""The CPU patches of vLLM's own processes."""

from __future__ import annotations

import threading
import time

import pytest

pytestmark = pytest.mark.integration


@pytest.fixture
def queue():
    """A queue in shared memory: its writer and its reader."""
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

    from recipe.spo.compat.vllm_cpu import wait_without_spinning

    wait_without_spinning()
    writer = MessageQueue(n_reader=1, n_local_reader=1)
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    ready = threading.Thread(target=writer.wait_until_ready)
    ready.start()
    reader.wait_until_ready()
    ready.join()
    writer.enqueue("first")
    assert reader.dequeue() == "first"  # from here on vLLM's own busy loop would run for a second
    return writer, reader


def test_a_waiting_reader_sleeps_and_is_woken_at_once(queue):
    writer, reader = queue
    threading.Timer(0.8, writer.enqueue, ["second"]).start()
    wall, cpu = time.monotonic(), time.process_time()
    assert reader.dequeue() == "second"
    assert time.monotonic() - wall < 2.0
    assert time.process_time() - cpu < 0.4


@pytest.mark.parametrize("pause", [0.1, 1.5])
def test_a_lost_notification_costs_milliseconds(queue, pause):
    """vLLM would look again after five seconds."""
    writer, reader = queue
    writer._spin_condition.notify = lambda: None
    threading.Timer(pause, writer.enqueue, ["second"]).start()
    wall = time.monotonic()
    assert reader.dequeue() == "second"
    assert time.monotonic() - wall < pause + 1.0
