"""Measurements outside the graph: the speedrun, the sources' claims, and other seeds."""
