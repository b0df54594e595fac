"""What trains: arrays and recipes in, predictions and weights out. It prints nothing and reads no params.yaml."""
