"""The cells of a run: which are stale, how they are trained, where they lie, and how they are read."""
