"""Evaluation of predictions: ensemble, metrics, scores, submissions, plots and the report."""
