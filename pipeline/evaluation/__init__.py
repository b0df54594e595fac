"""What is made of predictions: ensemble, metrics, scores, submissions, plots, report."""
