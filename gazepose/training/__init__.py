"""Training: one epoch, its losses and optimiser, checkpoints, the run log."""
