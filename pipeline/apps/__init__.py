"""Applications of trained networks: prediction, web page, release, export, scoring of external models; the demo."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it would write to the user's home and send usage data
