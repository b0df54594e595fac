"""Cells of a run: planning, training and storage. A cell is the training of one model with one held-out fold."""
