"""How fast the pipeline is, beside what others use for the same work, on the same pictures, in one run."""
