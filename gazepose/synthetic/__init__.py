"""The embedded world: rendered conversations whose eye contact is known by geometry, in the layout of the benchmark."""
