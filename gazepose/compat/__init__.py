"""What exists because of the published code: its flags, checkpoints and folders."""
