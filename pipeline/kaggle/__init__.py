"""What talks to Kaggle: download, submission, and the board with its scores."""
