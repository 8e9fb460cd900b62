"""The plain reference way of doing everything that is timed: what one writes from the description of the method.

Pictures and faces are files of their own, rows are Python objects, a window is seven copies of pixels made on the CPU,
every frame of every window goes through the backbone, the metric walks down the ranking. Written from descriptions
of the published method and its quirks, none of it copied; where there was a choice the faster one is taken.
"""
