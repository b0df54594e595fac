"""Communication with Kaggle: download, submission and leaderboard."""
