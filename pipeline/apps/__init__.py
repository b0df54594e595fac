"""Uses of trained networks: predict, export, release, somebody else's weights, the demo."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime would note each run in the user's home, and report it
