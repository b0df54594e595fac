"""A network of the smallest kind, for tests of what lies around networks: built, compiled and asked in a moment."""

import shutil
from pathlib import Path

import keras
import pytest
from keras import layers

NAME = "tiny"


def build(name: str = NAME) -> keras.Model:
    """For pictures of any size; not the same for names of different length."""
    inner = [layers.Conv2D(8 + len(name), 5, strides=4, activation="relu"), layers.BatchNormalization()]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(7, activation="softmax")]
    return keras.Sequential([layers.Input((None, None, 1)), *inner, *head], name=name)


def write(pipeline: Path, name: str = NAME) -> None:
    """Put it into a copy of the folder pipeline/, as an architecture."""
    shutil.copyfile(__file__, pipeline / f"architectures/{name}.py")


def instead(patch: pytest.MonkeyPatch) -> None:
    """Let every architecture of this process be as small."""
    from pipeline import architectures

    patch.setattr(architectures, "build", build)
