"""Trainings outside the graph: claims of the sources, further seeds, and the speedrun."""
