"""Trainings outside the graph: claims of the sources, seeds, the speedrun."""
