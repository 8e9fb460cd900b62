"""Sweeps: an experiment file becomes training runs, their predictions, and a table that can be trusted.

run.py does all of it: plan.py reads the file; work.py runs what has not been run; table.py sets the predictions side by
side, drawing.py draws them, write.py keeps them; page.py writes docs/results.md of all tables. What a single run does
is train.py's and infer.py's affair.
"""
