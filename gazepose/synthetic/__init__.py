"""The embedded world. Other packages use world.render_world, stills.render_stills and presets.PRESETS only."""
