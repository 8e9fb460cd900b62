"""Seconds from asking a new loader to its first batch, printed: python -m benchmarks.first_batch INDEX spawn

A script of its own, because a worker that is not forked imports the main module again; this one imports the data's
modules alone.
"""

import sys
import time

from gazepose.data.index import Index
from gazepose.data.loader import make_loader
from gazepose.data.windows import WindowRule, centre_rows

if __name__ == "__main__":
    index = Index.open(sys.argv[1])
    rule = WindowRule(stride=3, windows_per_segment=8, train=True)
    loader = make_loader(index, rule, centre_rows(index, 3), batch_size=64, crop_size=224, num_workers=2)
    loader.multiprocessing_context = sys.argv[2]
    began = time.perf_counter()
    batches = iter(loader)
    next(batches)
    print(time.perf_counter() - began)
