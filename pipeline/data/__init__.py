"""Data of the competition: readers, the table of faces, the folds, and the separate test labels."""
