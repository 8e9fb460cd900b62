"""Priors of prepared faces, computed or imported offline as columns of the index. NaN is unknown, never a number."""
