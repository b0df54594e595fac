"""FER2013 from the competition's files to scored submissions, one module a stage (see dvc.yaml)."""

import os

# Read by Keras when it is first imported, wherever that is. KERAS_BACKEND: tensorflow, jax or torch.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # without TensorFlow's start-up messages
