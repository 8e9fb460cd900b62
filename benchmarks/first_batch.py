"""Seconds from asking a new loader to its first batch, printed: python -m benchmarks.first_batch INDEX spawn

A script of its own, because a worker that is not forked imports the main module again. Under spawn it imports the
data's modules alone; under forkserver it does what train.py does: the process that workers are forked from starts
first, and imports while this one imports, makes the loader and builds the model.
"""

import sys
import time

if __name__ == "__main__":
    folder, context = sys.argv[1:]
    if context == "forkserver":
        from gazepose.processes import shield_workers
        shield_workers()
        from gazepose.config import ModelConfig, OptimConfig
        from gazepose.models import build_model
        from gazepose.training.engine import train_steps  # noqa: F401
        from gazepose.training.optim import make_optimizer
    from gazepose.data.index import Index
    from gazepose.data.loader import make_loader
    from gazepose.data.windows import WindowRule, centre_rows
    index = Index.open(folder)
    rule = WindowRule(stride=3, windows_per_segment=8, train=True)
    loader = make_loader(index, rule, centre_rows(index, 3), batch_size=64, crop_size=224, num_workers=2)
    loader.multiprocessing_context = context
    if context == "forkserver":
        make_optimizer(build_model(ModelConfig()), OptimConfig())
    began = time.perf_counter()
    batches = iter(loader)
    next(batches)
    print(time.perf_counter() - began)
