"""Keras networks, whose they may be: how they are built, called as pure functions, and exported to NumPy."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from optix_core import policies
from optix_core.agents.initial_weights import orthogonal
from optix_core.errors import ConfigError
from optix_core.policies import Encoder, Flatten, Keep, encoder_for
from optix_core.policies.activations import LEAKY_SLOPE
from optix_protocol import Array
from optix_tf._runtime import keras, tf

DenseLayers: TypeAlias = tuple[tuple[int, str], ...]
"""Width of each dense layer, and the name of the activation after it."""


@keras.saving.register_keras_serializable("optix")  # type: ignore[untyped-decorator]
def leaky_relu(x: Any) -> Any:
    """Return ``x`` above 0 and its hundredth below; Keras' own has a slope of 0.2."""
    return keras.activations.leaky_relu(x, negative_slope=LEAKY_SLOPE)


_IN_KERAS: Mapping[str, Callable[[Any], Any]] = {
    name: getattr(keras.activations, {"identity": "linear"}.get(name, name))
    for name in policies.ACTIVATIONS
    if name != "leaky_relu"
} | {"leaky_relu": leaky_relu}
_NAMES: Mapping[Any, str] = {function: name for name, function in _IN_KERAS.items()}
_ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    **_IN_KERAS,
    "tanh": tf.tanh,
    "relu": tf.nn.relu,
    "elu": tf.nn.elu,
    "silu": tf.nn.silu,
    "sigmoid": tf.sigmoid,
    "identity": tf.identity,
}


def name_of_activation(layer: Any) -> str | None:
    """Return our name of the activation of a layer, ``"identity"`` where it has none; None for an unknown one."""
    return _NAMES.get(getattr(layer, "activation", keras.activations.linear))


# ---- building -------------------------------------------------------------------------------------------------------


def build_mlp(
    num_inputs: int,
    num_outputs: int,
    *,
    hidden_sizes: Sequence[int],
    activation: str,
    output_gain: float,
    rng: np.random.Generator,
    output_activation: str | None = None,
) -> Any:
    """Build dense layers with orthogonal weights (gain sqrt 2; ``output_gain`` in the last) and zero biases."""
    hidden = [_dense(size, activation) for size in hidden_sizes]
    model = keras.Sequential([keras.Input((num_inputs,)), *hidden, _dense(num_outputs, output_activation)])
    return _drawn(model, output_gain, rng)


def build_cnn(
    image_shape: tuple[int, ...],
    num_outputs: int,
    *,
    output_gain: float,
    rng: np.random.Generator,
    output_activation: str | None = None,
    dtype: str = "uint8",
) -> Any:
    """Build the network of Mnih et al. 2015 for uint8 images ``[C, H, W]`` or ``[H, W, C]`` of at least 36 x 36."""
    channels_last = image_shape[2] < image_shape[0]
    layers = [keras.Input(image_shape, dtype=dtype), keras.layers.Rescaling(1 / 255)]
    layers += [] if channels_last else [keras.layers.Permute((2, 3, 1))]
    for filters, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
        convolution = keras.layers.Conv2D(filters, kernel, stride, activation="relu", kernel_initializer="zeros")
        layers.append(convolution)
    layers += [keras.layers.Flatten(), _dense(512, "relu"), _dense(num_outputs, output_activation)]
    return _drawn(keras.Sequential(layers), output_gain, rng)


@dataclass(frozen=True, kw_only=True)
class SeesPictures:
    """What a model is made of that sees pictures in flat rows.

    Attributes:
        pictures: where each picture begins in a row, and its shape.
        cnns: the ``keras.Sequential`` that sees each.
        join: the one over what they see and, after that, all other numbers.
    """

    pictures: tuple[tuple[int, tuple[int, ...]], ...]
    cnns: tuple[Any, ...]
    join: Any


def build_joined(
    encoder: Flatten,
    num_outputs: int,
    *,
    hidden_sizes: Sequence[int],
    activation: str,
    output_gain: float,
    rng: np.random.Generator,
    output_activation: str | None = None,
    num_more: int = 0,
) -> Any:
    """Build convolutions for the pictures in flat rows, and dense layers over what they see and all other numbers.

    Args:
        encoder: makes the rows ``[B, D]``.
        num_outputs: width of the last layer.
        hidden_sizes: of the dense layers; the first is also what is kept of each picture (256 without any).
        activation: of the dense layers.
        output_gain: of the last layer.
        rng: draws the weights.
        output_activation: after the last layer.
        num_more: width of a second input, the actions, if it is not 0.
    """
    features = hidden_sizes[0] if hidden_sizes else 256
    see: dict[str, Any] = {"output_gain": math.sqrt(2), "output_activation": "relu", "rng": rng}
    rows = keras.Input(encoder.encoded_shape)
    cnns, parts, rest, end = [], [], [], 0
    for begin, shape in encoder.pictures:
        rest += [rows[:, end:begin]] if end < begin else []
        end = begin + math.prod(shape)
        pixels = keras.layers.Reshape(shape)(rows[:, begin:end])
        cnns.append(build_cnn(shape, features, dtype="float32", **see))
        parts.append(cnns[-1](pixels))
    rest += [rows[:, end:]] if end < encoder.encoded_shape[0] else []
    more = [keras.Input((num_more,))] if num_more else []
    joined = keras.layers.Concatenate()(parts + rest + more) if len(parts + rest + more) > 1 else parts[0]
    join = build_mlp(
        int(joined.shape[1]),
        num_outputs,
        hidden_sizes=hidden_sizes,
        activation=activation,
        output_gain=output_gain,
        output_activation=output_activation,
        rng=rng,
    )
    model = keras.Model([rows, *more] if more else rows, join(joined))
    model.sees_pictures = SeesPictures(pictures=encoder.pictures, cnns=tuple(cnns), join=join)
    return model


def build_image_critic(
    image_shape: tuple[int, ...],
    num_actions: int,
    *,
    hidden_sizes: Sequence[int],
    activation: str,
    rng: np.random.Generator,
) -> Any:
    """Build the value of an action in view of an image: the network of Mnih et al. 2015, then an MLP over both."""
    features = hidden_sizes[0] if hidden_sizes else 256
    see = build_cnn(image_shape, features, output_gain=math.sqrt(2), output_activation="relu", rng=rng)
    judge = build_mlp(
        features + num_actions, 1, hidden_sizes=hidden_sizes, activation=activation, output_gain=1.0, rng=rng
    )
    images, actions = keras.Input(image_shape, dtype="uint8"), keras.Input((num_actions,))
    return keras.Model([images, actions], judge(keras.layers.Concatenate()([see(images), actions])))


def build_network(
    encoder: Encoder, num_outputs: int, layers: Mapping[str, Any], *, rng: np.random.Generator, **output: Any
) -> Any:
    """Build a network that fits an encoder: that of Mnih et al. 2015 for images, an MLP for all other observations.

    Where pictures are among other parts, the network of the former sees them, and the MLP is over that and the rest.

    Args:
        encoder: makes the input.
        num_outputs: width of the last layer.
        layers: ``hidden_sizes`` and ``activation`` of an MLP.
        rng: draws the weights.
        output: ``output_gain``, and ``output_activation`` if there is one.
    """
    if isinstance(encoder, Keep):
        return build_cnn(encoder.shape, num_outputs, rng=rng, **output)
    if isinstance(encoder, Flatten) and encoder.pictures:
        return build_joined(encoder, num_outputs, rng=rng, **layers, **output)
    return build_mlp(encoder.encoded_shape[0], num_outputs, rng=rng, **layers, **output)


def twin_of(model: Any, seed: int) -> Any:
    """Return a copy with weights drawn anew, by the model's own initialisers.

    Raises:
        ConfigError: it cannot be copied, or its initialisers draw the same weights again.
    """
    state = random.getstate()
    random.seed(seed)  # Keras takes the seeds of initialisers from Python's random numbers
    try:
        twin = keras.models.clone_model(model)
    except (ValueError, NotImplementedError, TypeError):
        raise ConfigError(f"{type(model).__name__} cannot be copied: pass a pair of critics.") from None
    finally:
        random.setstate(state)
    pairs = zip(model.trainable_variables, twin.trainable_variables, strict=True)
    if all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs):
        raise ConfigError(
            "The initialisers have fixed seeds, so the critic's twin is the same: pass a pair of critics."
        )
    return twin


def _dense(units: int, activation: str | None) -> Any:
    # "zeros": an initialiser that draws would take its seed from Python's global random numbers.
    return keras.layers.Dense(units, activation=_IN_KERAS[activation or "identity"], kernel_initializer="zeros")


def _drawn(model: Any, output_gain: float, rng: np.random.Generator) -> Any:
    """Draw the weights of a model of dense and convolutional layers."""
    layers = [layer for layer in model.layers if layer.weights]
    for layer in layers:
        gain = output_gain if layer is layers[-1] else math.sqrt(2)
        layer.kernel.assign(orthogonal(tuple(layer.kernel.shape), gain, rng))
    return model


# ---- running --------------------------------------------------------------------------------------------------------


class Network:
    """A Keras model as a pure function of its trainable variables, in inference mode (no dropout).

    Chains of dense layers of the same widths are equal, whatever their weights, so that they share compiled code. Any
    other model equals only itself.

    Args:
        model: built.
    """

    def __init__(self, model: Any) -> None:
        self.layers = dense_layers(model)
        self._key: Any = self.layers or id(model)
        self._model = None if self.layers else model  # shared code must not keep somebody's weights alive
        self._has_one_input = len(getattr(model, "inputs", None) or [None, None]) == 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __call__(self, parameters: Sequence[Any], *inputs: Any) -> Any:
        """Return ``[B, out]`` for inputs ``[B, ...]``.

        A model with one input gets several side by side, any other model as a list.
        """
        if len(inputs) > 1:
            inputs = (tf.concat(inputs, 1),) if self._has_one_input else (list(inputs),)
        if self._model is None:
            return _chain(self.layers or (), parameters, inputs[0])
        fixed = [variable.value for variable in self._model.non_trainable_variables]
        return self._model.stateless_call(list(parameters), fixed, *inputs)[0]


def _chain(layers: DenseLayers, parameters: Sequence[Any], x: Any) -> Any:
    for i, (_, activation) in enumerate(layers):
        x = _ACTIVATIONS[activation](tf.matmul(x, parameters[2 * i]) + parameters[2 * i + 1])
    return x


def dense_layers(model: Any) -> DenseLayers | None:
    """Return the layers of a ``keras.Sequential`` of dense layers and activations, None if it is anything else."""
    if type(model) is not keras.Sequential:
        return None
    layers: list[tuple[int, str]] = []
    for layer in model.layers:
        is_dense = type(layer) is keras.layers.Dense and layer.use_bias and layer.quantization_mode is None
        is_activation = type(layer) is keras.layers.Activation and layers and layers[-1][1] == "identity"
        if not (is_dense or is_activation) or not layer.trainable:
            return None
        name = name_of_activation(layer)
        if name is None:
            return None
        if is_activation:
            layers[-1] = (layers[-1][0], name)
        else:
            layers.append((layer.units, name))
    simple = len(model.trainable_variables) == 2 * len(layers) and not model.losses
    return tuple(layers) if layers and simple else None


def host_mlp(layers: DenseLayers | None, arrays: Sequence[Array]) -> policies.MLP | None:
    """Return a dense network as NumPy, given its parameters; None if there are no layers."""
    if layers is None:
        return None
    return policies.MLP(
        weights=list(arrays[0::2]), biases=list(arrays[1::2]), activations=[activation for _, activation in layers]
    )


# ---- users' models --------------------------------------------------------------------------------------------------


def encoder_for_model(model: Any, observation_space: Any) -> Encoder:
    """Choose the encoder for a user's own model: flat rows if it takes rows, else arrays as they come.

    A model says what it takes by its input shape or by a dense layer at its beginning.

    Raises:
        ConfigError: neither the model nor a space tells the shape of an observation.
    """
    shape = _input_shape(model)
    if observation_space is None:
        if shape is None:
            raise ConfigError("Pass observation_space=env.observation_space: the model does not tell its input shape.")
        return Flatten(shape=shape) if len(shape) == 1 else Keep(shape=shape)
    encoder = encoder_for(observation_space)
    first = next(iter(getattr(model, "layers", ())), None)
    takes_rows = len(shape) == 1 if shape else isinstance(first, keras.layers.Dense)
    if isinstance(encoder, Flatten) and not getattr(model, "sees_pictures", False):
        encoder = replace(encoder, pictures=())
    if takes_rows:
        return Flatten(shape=encoder.shape) if isinstance(encoder, Keep) else encoder
    several_axes = isinstance(encoder, Flatten) and len(encoder.shape) > 1
    return Keep(shape=encoder.shape) if several_axes else encoder


def built(model: Any, *shapes: tuple[int, ...], dtype: Any = np.float32) -> tuple[Any, int]:
    """Run a model once on zeros, which builds it, and return it with the width of its outputs.

    Args:
        model: Keras model.
        shapes: of one row of each input; several are put side by side for a model with one input.
        dtype: of the first input.

    Raises:
        ConfigError: it is no Keras model, or does not return ``[B, out]`` for these inputs.
    """
    if not isinstance(model, keras.Model):
        raise ConfigError(f"{type(model).__name__} is no Keras model: pass a keras.Sequential or another keras.Model.")
    inputs = [tf.zeros([2, *shape], dtype if i == 0 else tf.float32) for i, shape in enumerate(shapes)]
    has_one_input = len(getattr(model, "inputs", None) or [None, None]) == 1 or isinstance(model, keras.Sequential)
    if len(inputs) > 1 and has_one_input:
        inputs = [tf.concat(inputs, 1)]
    try:
        outputs = model(inputs[0] if len(inputs) == 1 else inputs)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"The model does not take inputs of shape {list(map(list, shapes))}: {reason}") from None
    if len(outputs.shape) != 2:
        raise ConfigError(f"A network must return [B, out]; this one returns {list(outputs.shape)} for B = 2.")
    return model, int(outputs.shape[1])


def _input_shape(model: Any) -> tuple[int, ...] | None:
    inputs = getattr(model, "inputs", None)
    if not inputs or None in inputs[0].shape[1:]:
        return None
    return tuple(inputs[0].shape[1:])


def as_input(rows: Array, dtype: Any) -> Array:
    """Return encoded observations as networks take them: floats in the networks' precision, bytes as they are."""
    return rows.astype(dtype, copy=False) if rows.dtype.kind == "f" else rows
