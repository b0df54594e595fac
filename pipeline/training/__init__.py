"""Training: from arrays and recipes to predictions and weights. Prints nothing and does not read params.yaml."""
