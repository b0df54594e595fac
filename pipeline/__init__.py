"""FER2013 from the competition's files to scored submissions, one module a stage (see dvc.yaml)."""

import os

# Read by TensorFlow when it is first imported, wherever that is.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # without its start-up messages
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # on AMD it is off by default, at half the speed: bench/README.md
