"""The order of batches: every row exactly once, whatever divides, on any number of processes."""

import pickle

import numpy as np
import pytest
import torch
import warm
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st

from gazepose.data import shared_buffers
from gazepose.data.loader import WindowBatches, make_loader, order_of
from gazepose.data.order import BatchOrder, _segments_in_order
from gazepose.data.windows import WindowRule, segments


def dealt(order: BatchOrder) -> list[list[int]]:
    return [[row for _, row in batch] for batch in order]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 9) | st.just(64), st.integers(1, 4),
       st.integers(1, 8), st.booleans())
def test_every_row_counts_once_on_any_number_of_processes(index_of, lengths, batch_size, world, count, train):
    index = index_of([range(length) for length in lengths])
    rows = np.arange(len(index))
    order = BatchOrder(index, WindowRule(train=train, windows_per_segment=count), rows, batch_size, world)
    batches = dealt(order)
    assert len(batches) == len(order) and {len(batch) for batch in batches} == {order.batch_size}
    shares = [list(BatchSamplerShard(order, world, rank)) if world > 1 else list(order) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1                  # no process waits for another
    counted = [row for share in shares for batch in share for _, row in batch if row >= 0]
    assert sorted(counted) == rows.tolist()


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 3), st.integers(0, 20), st.integers(1, 4))
def test_the_rest_of_an_epoch_is_what_has_not_been_dealt(index_of, rows, batch_size, world, batches, other):
    index, rule = index_of([range(40)]), WindowRule(train=True, windows_per_segment=3)
    def order_of(world: int) -> BatchOrder:
        return BatchOrder(index, rule, np.arange(rows), batch_size, world)
    whole = dealt(order_of(world))
    rest, elsewhere = order_of(world), order_of(other)
    rest.start = elsewhere.start = rest.after(batches)
    assert dealt(rest) == whole[batches * world:] and len(rest) == len(dealt(rest))
    dealt_rows = [row for batch in whole[:batches * world] + dealt(elsewhere) for row in batch if row >= 0]
    assert sorted(dealt_rows) == list(range(rows)) and len(elsewhere) % other == 0


def test_order_is_a_function_of_seed_and_epoch(index_of):
    index = index_of([range(40), range(30)])
    def order(seed: int, epoch: int):
        order_of = BatchOrder(index, WindowRule(train=True, windows_per_segment=4, seed=seed), np.arange(70), 8)
        order_of.epoch = epoch
        return dealt(order_of)
    assert order(1, 2) == order(1, 2) and order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)


def test_training_batches_keep_segments_together_and_mix_tracks(index_of):
    index = index_of([range(64)] * 8)
    rule = WindowRule(train=True, windows_per_segment=8)
    order = BatchOrder(index, rule, np.arange(512), 64)
    for batch in dealt(order):
        names = segments(index, rule, np.array([row for row in batch if row >= 0]), 0)
        assert (np.diff(names) != 0).sum() + 1 == len(np.unique(names)) and len(np.unique(names)) >= 8


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_segments_come_in_their_order_and_rows_within_them_in_theirs(lengths, random):
    order = random.sample(range(len(lengths)), len(lengths))
    rows = np.arange(100, 100 + sum(lengths))
    parts = np.split(rows, np.cumsum(lengths)[:-1])
    ordered = _segments_in_order(rows, np.array(lengths), np.array(order))
    assert (ordered == np.concatenate([parts[number] for number in order])).all()


def test_segments_of_all_rows_are_those_of_some(index_of):
    index, rule = index_of([range(64)] * 8), WindowRule(train=True, windows_per_segment=8)
    some = np.arange(30, 36)                               # fewer than the index has tracks
    assert (segments(index, rule, np.arange(512), 1)[some] == segments(index, rule, some, 1)).all()


def test_a_worker_gets_neither_the_rows_of_an_epoch_nor_a_column_that_is_absent(index_of):
    windows = WindowBatches(index_of([range(40)] * 3), WindowRule(train=True, windows_per_segment=4),
                            np.tile(np.arange(120), 1000), 16)
    sent = pickle.dumps(windows)
    worker = pickle.loads(sent)
    assert len(sent) < 5000 and len(worker) == len(windows) == 120_000
    torch.testing.assert_close(worker[0, 50], windows[0, 50], equal_nan=True)
    assert "position" not in vars(worker.index) and worker.index.position[50] == 10


def test_evaluation_goes_in_order(index_of):
    assert dealt(BatchOrder(index_of([range(5)]), WindowRule(), np.arange(5), 2)) == [[0, 1], [2, 3], [4, ~0]]


def test_no_rows_is_an_error_that_names_the_folder(index_of):
    index = index_of([range(5)])
    with pytest.raises(ValueError, match=f"{index.folder}: no rows to load, 5 of its 5 faces have a label -> give a"):
        make_loader(index, WindowRule(), np.zeros(0, np.int64), batch_size=4, crop_size=16)


STUCK = """
import sys, time
from pathlib import Path
import numpy as np
from gazepose.data import loader
from gazepose.data.index import Index
from gazepose.data.windows import WindowRule
loader.get_worker_info, loader.STUCK_SECONDS = lambda: True, 0.1
loader.make_batch = lambda *args, **options: sys.exit(time.sleep(1) or 3)
loader.WindowBatches(Index.open(Path(sys.argv[1])), WindowRule(), np.arange(5), 16)[0, 0]
"""


def test_a_worker_that_is_stuck_shows_its_traceback_and_may_go_on(index_of, tmp_path):
    code, output = warm.python("-c", STUCK, str(index_of([range(5)]).folder), cwd=tmp_path)
    assert code == 3 and "Timeout (0:00:00.100000)!" in output and "__getitems__" in output


def test_a_buffer_is_used_again_once_no_tensor_is_left_on_it():
    buffers = shared_buffers.SharedBuffers()

    def sent(value: int, count: int = 3) -> torch.Tensor:
        buffers.empty((count, 4, 4, 3), np.uint8)[:] = value
        make, arguments = buffers.sent().__reduce__()
        return make(*arguments)
    first, second = sent(1), sent(2)
    part, place = first[1:, 0], first.data_ptr()
    del first
    third = sent(3)
    assert third.data_ptr() != place and (part == 1).all() and (second == 2).all()
    del part
    fourth, many = sent(4), [sent(number) for number in range(5, 15)]        # more than there are buffers
    assert fourth.data_ptr() == place and [int(tensor.max()) for tensor in many] == list(range(5, 15))
    del many, fourth
    assert (sent(20, 50) == 20).all() and len(buffers._buffers) <= shared_buffers.BUFFERS      # none is large enough


@pytest.mark.parametrize("stride", [1, 3])
def test_batches_of_workers_are_those_of_the_process_itself(index_of, stride):
    index, rule = index_of([range(60), range(30)]), WindowRule(train=True, stride=stride, windows_per_segment=3)
    worked, here = (make_loader(index, rule, np.arange(90), batch_size=4, crop_size=16, num_workers=workers)
                    for workers in (1, 0))
    order_of(worked).full_pools = order_of(here).full_pools = stride == 1
    for batch, expected in zip(worked, here, strict=True):
        assert batch.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(batch[name], value, rtol=0, atol=0, equal_nan=True)
