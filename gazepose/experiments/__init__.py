"""Experiments: sweeps over configurations, and ensembles of runs."""
