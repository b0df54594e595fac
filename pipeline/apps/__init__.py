"""What networks are used for: predict, release, export, other people's networks, and the demo."""
