"""Work shared out over processes, one thread each, with a word now and then about how long it will take."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context

import cv2

from gazepose.processes import without_main_script


def share_out(function: Callable[..., None], tasks: Sequence[tuple], jobs: int | None, done: int, what: str,
              notify: Callable[[str], None]) -> None:
    """Run function over tasks in several processes, saying how far it is every few seconds."""
    began = spoken = time.monotonic()
    total = done + len(tasks)
    jobs = min(jobs or len(os.sched_getaffinity(0)), len(tasks))
    if jobs <= 1:
        threads = cv2.getNumThreads()
        for fresh, task in enumerate(tasks, start=1):
            function(*task)
            if time.monotonic() - spoken > 5 or fresh == len(tasks):
                spoken = time.monotonic()
                _say_left(notify, done + fresh, total, fresh, began, what)
        cv2.setNumThreads(threads)
        return
    with _single_threads(), ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        with without_main_script():
            futures = [pool.submit(function, *task) for task in tasks]
        try:
            for fresh, future in enumerate(as_completed(futures), start=1):
                future.result()
                if time.monotonic() - spoken > 5 or fresh == len(tasks):
                    spoken = time.monotonic()
                    _say_left(notify, done + fresh, total, fresh, began, what)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _single_threads() -> Iterator[None]:
    """Children started in this block keep to one thread each: the pool is what uses the cores."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: "1" for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _say_left(notify: Callable[[str], None], done: int, total: int, fresh: int, began: float, what: str) -> None:
    left = (time.monotonic() - began) / fresh * (total - done)
    notify(f"embedded world: {done} of {total} {what}" + (f", about {_span(left)} left" if done < total else ""))


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"
