"""Benchmarks of the pipeline against common alternatives, on the same pictures and in one run."""
