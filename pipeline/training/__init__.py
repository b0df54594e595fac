"""Training: from arrays and recipes to predictions and weights. Prints only warnings and does not read params.yaml."""
