"""Evaluation: metrics, submissions, predictions."""
