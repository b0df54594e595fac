"""Comparison of the networks with their sources, layer by layer.

tests/golden/ contains one table per network, written from the descriptions and not from the code. Parameter counts do
not suffice, as strides, pooling, dropout and activations have no parameters.
"""

from functools import cache

import keras
import numpy as np
import pytest
from settings import ROOT

from pipeline import architectures, config
from pipeline.training import backend

GOLDEN = ROOT / "tests/golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.txt"))
NETWORKS = pytest.mark.parametrize("name", NAMES)

ROW = "{:>3}  {:<22}  {:<9}  {:>10}  {:<6}  {}"
SETTINGS = {  # config key: how the table shows it
    "kernel_size": "kernel {0[0]}x{0[1]}".format, "pool_size": "pool {0[0]}x{0[1]}".format,
    "strides": "strides {0[0]}x{0[1]}".format, "padding": "padding {}".format,
    "use_bias": lambda used: f"bias {'yes' if used else 'no'}", "activation": str,
    "rate": "rate {}".format, "momentum": "momentum {}".format, "epsilon": "epsilon {}".format,
    "num_heads": "{} heads".format, "key_dim": "of {} channels".format, "dropout": "dropout {}".format,
    "target_shape": "to {}".format,
}  # fmt: skip
# Required arguments of layers, whose other settings are compared with Keras's defaults.
REQUIRED = {"Conv2D": (1, 1), "SeparableConv2D": (1, 1), "Dense": (1,), "Dropout": (0.5,), "Activation": ("relu",),
            "AveragePooling2D": (2,), "MultiHeadAttention": (1, 1), "Reshape": ((1,),)}  # fmt: skip

# Settings that Keras sets when it builds a layer.
FILLED = {"LayerNormalization": {"axis"}, "MultiHeadAttention": {"value_dim", "attention_axes"}}


@cache
def network(name):
    backend.prepare(seed=0, precision="float32")
    return architectures.build(name)


def sources(layer):
    """Return the layers whose outputs are inputs of `layer`."""
    if isinstance(layer, keras.layers.InputLayer):
        return []
    return [tensor._keras_history.operation for tensor in keras.tree.flatten(layer.input)]


def chain(layer):
    """Return `layer` and all layers before it; the branch of the first input comes first."""
    order = []
    for source in sources(layer):
        order += [before for before in chain(source) if before not in order]
    return [*order, layer]


def settings(layer):
    config = layer.get_config()
    shown = [show(config[key]) for key, show in SETTINGS.items() if key in config]
    for key in config:
        if key.endswith("_regularizer") and config[key]:
            kind, values = config[key]["class_name"], config[key]["config"]
            factor = ", ".join(f"{value:.6g}" for value in values.values())
            shown.append(f"{key.removesuffix('_regularizer')} {kind} {factor}")
    return ", ".join(shown)


def table(model):
    """Return a text with one line per layer, as in tests/golden/, with the shapes for 48x48 pictures."""
    model = keras.models.clone_model(model, input_tensors=keras.Input((48, 48, 1)))
    layers = chain(model.outputs[0]._keras_history.operation)
    lines = [ROW.format("row", "layer", "output", "parameters", "from", "settings")]
    for i, layer in enumerate(layers):
        output = "x".join(map(str, layer.output.shape[1:]))
        inputs = ", ".join(str(layers.index(source)) for source in sources(layer))
        row = ROW.format(i, type(layer).__name__, output, f"{layer.count_params():,}", inputs, settings(layer))
        lines.append(row.rstrip())
    return "\n".join([*lines, ""])


def test_every_network_has_a_golden_file():
    assert architectures.names() == NAMES


@NETWORKS
def test_no_1x1_convolution_of_few_channels_has_strides(name):
    """In oneDNN (its issue 6035) its gradient writes out of bounds if threads do not divide the batch."""
    for layer in network(name)._flatten_layers():
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1):
            assert layer.strides == (1, 1) or layer.input.shape[-1] % 16 == 0, layer.name  # 16: a vector of AVX-512


@NETWORKS
def test_input_size_and_layers_are_known_without_building_a_network(name):
    assert architectures.fixed_size(name) == (network(name).input_shape[1:3] == (48, 48))
    kinds = {type(layer).__name__ for layer in network(name).layers}
    assert architectures.separable(name) == bool(kinds & {"SeparableConv2D", "DepthwiseConv2D"})


@NETWORKS
def test_layers_equal_those_of_the_source(name):
    assert table(network(name)) == (GOLDEN / f"{name}.txt").read_text()
    moving = {"moving_mean", "moving_variance"}
    assert {weight.name for weight in network(name).non_trainable_weights} <= moving, "nothing else is frozen"


@NETWORKS
def test_settings_outside_the_tables_are_keras_defaults(name):
    for layer in network(name).layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        default = type(layer)(*REQUIRED.get(type(layer).__name__, ())).get_config()
        left_out = {key for key in default if not key.endswith("_regularizer")}
        left_out -= {"name", "filters", "units", *SETTINGS, *FILLED.get(type(layer).__name__, ())}
        config = layer.get_config()
        assert {key: config[key] for key in left_out} == {key: default[key] for key in left_out}, layer.name


@NETWORKS
def test_pictures_of_every_supported_side_give_seven_probabilities(name):
    for side in (48,) if architectures.fixed_size(name) else (42, 24):
        pictures = np.random.default_rng(0).random((3, side, side, 1), dtype="float32")
        outputs = keras.ops.convert_to_numpy(network(name)(pictures, training=False))
        assert outputs.shape == (3, 7)
        assert ((outputs >= 0) & (outputs <= 1)).all()
        assert (outputs[0] != outputs[1]).any()
        if head(name) == "softmax":
            np.testing.assert_allclose(outputs.sum(1), 1, rtol=1e-5)


def head(name):
    """Return the last activation of a network, from its golden file."""
    return (GOLDEN / f"{name}.txt").read_text().split()[-1]


def test_loss_of_every_recipe_matches_the_head(monkeypatch):
    monkeypatch.chdir(ROOT)
    models = map(config.load().model, config.load().names)
    heads = {"categorical": "softmax", "binary": "sigmoid"}
    assert [model for model in models if heads[model.loss] != head(model.architecture)] == []
