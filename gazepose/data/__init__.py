"""From videos and annotations to batches.

video -> (annotations, tracks) -> prepare or challenge -> shards + index -> windows -> loader. The index is the data
set; shards are only where its pixels lie. Nothing here knows a model: a batch is all that leaves.
"""
