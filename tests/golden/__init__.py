"""Checks of a folder of golden vectors against this project, one module per file; each yields what it compared.

They rely on the structure that the folder's README states and on no particular number, so they hold for another
recording too. A check that finds nothing to compare raises.
"""

from typing import NamedTuple


class Result(NamedTuple):
    """One comparison; it holds if `difference` is at most `tolerance`."""

    what: str
    difference: float
    tolerance: float
