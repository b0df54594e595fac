"""Uses of trained networks: predict, export, release, somebody else's weights, the demo."""
