"""The competition's data: readers, one table of faces, folds, and the test labels put away."""
