"""The Flax modules that this package builds networks of."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "silu": nn.silu,
    "sigmoid": nn.sigmoid,
    "identity": lambda x: x,
    "celu": nn.celu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "leaky_relu": nn.leaky_relu,
    "mish": jax.nn.mish,
    "selu": nn.selu,
    "softplus": nn.softplus,
    "softsign": nn.soft_sign,
    "relu6": nn.relu6,
    "hard_sigmoid": nn.hard_sigmoid,
    "hard_silu": nn.hard_silu,
    "hard_tanh": nn.hard_tanh,
    "log_sigmoid": nn.log_sigmoid,
    "sparse_plus": jax.nn.sparse_plus,
    "sparse_sigmoid": jax.nn.sparse_sigmoid,
    "squareplus": jax.nn.squareplus,
}
"""JAX's activations by our names; policies in NumPy know them, too (:data:`optix_core.policies.ACTIVATIONS`)."""


@jax.custom_vjp
def _columns(rows: jax.Array) -> jax.Array:
    """Turn ``[B, D]`` into ``[D, B]`` for good: folded into the products that follow, it would be paid in each."""
    columns: jax.Array = jax.lax.optimization_barrier(rows.T)  # type: ignore[no-untyped-call]
    return columns


_columns.defvjp(lambda rows: (_columns(rows), None), lambda _, columns: (columns.T,))


@jax.custom_vjp
def _affine(columns: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Return ``[out, B]`` for ``[in, B]``, a kernel ``[in, out]`` and a bias ``[out]``."""
    return jax.lax.dot_general(kernel, columns, (((0,), (0,)), ((), ()))) + bias[:, None]


def _affine_gradients(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, ...]:
    columns, kernel = kept
    for_kernel = jax.lax.dot_general(columns, gradient, (((1,), (1,)), ((), ())))
    # A sum over a batch as a product with ones costs half.
    return kernel @ gradient, for_kernel, gradient @ jnp.ones(gradient.shape[1], gradient.dtype)


_affine.defvjp(lambda columns, kernel, bias: (_affine(columns, kernel, bias), (columns, kernel)), _affine_gradients)


class Dense(nn.Module):
    """A dense layer on columns, with the parameters of ``nn.Dense``.

    With the batch as the second axis the gradient of the kernel is a product along rows, for which XLA's code for CPUs
    is up to a third faster than for one along columns.

    Attributes:
        features: width of the output.
    """

    features: int

    @nn.compact
    def __call__(self, columns: jax.Array) -> jax.Array:
        """Return ``[features, B]`` for ``[in, B]``."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (len(columns), self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        outputs: jax.Array = _affine(columns, kernel, bias)
        return outputs


class MLP(nn.Module):
    """Dense layers with an activation between them.

    Attributes:
        hidden_sizes: widths of the hidden layers.
        num_outputs: width of the last layer.
        activation: a key of :data:`ACTIVATIONS`.
        output_gain: gain of the last layer's orthogonal weights; the others have sqrt 2.
        output_activation: after the last layer.
    """

    hidden_sizes: tuple[int, ...]
    num_outputs: int
    activation: str = "tanh"
    output_gain: float = 1.0
    output_activation: str = "identity"

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Return ``[B, num_outputs]`` for rows ``[B, D]``; several inputs are taken side by side."""
        x = _columns(inputs[0] if len(inputs) == 1 else jnp.concatenate(inputs, axis=1))
        for size in self.hidden_sizes:
            x = ACTIVATIONS[self.activation](Dense(size)(x))
        return ACTIVATIONS[self.output_activation](Dense(self.num_outputs)(x)).T


class CNN(nn.Module):
    """The network of Mnih et al. 2015 for uint8 images of at least 36 x 36.

    Attributes:
        num_outputs: width of the last layer.
        channels_last: images are ``[H, W, C]``, not ``[C, H, W]``.
        output_gain: gain of the last layer's orthogonal weights; the others have sqrt 2.
        output_activation: after the last layer.
    """

    num_outputs: int
    channels_last: bool = False
    output_gain: float = 1.0
    output_activation: str = "identity"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return ``[B, num_outputs]`` for images ``[B, ...]``."""
        x = images.astype(jnp.float32) / 255.0
        x = x if self.channels_last else jnp.moveaxis(x, 1, -1)
        for filters, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.relu(nn.Conv(filters, (kernel, kernel), (stride, stride), padding="VALID")(x))
        x = nn.relu(nn.Dense(512)(x.reshape(len(x), -1)))
        return ACTIVATIONS[self.output_activation](nn.Dense(self.num_outputs)(x))


class ImageCritic(nn.Module):
    """The value of an action in view of an image: the network of Mnih et al. 2015, then an MLP over both.

    Attributes:
        hidden_sizes: of the MLP.
        activation: of the MLP.
        channels_last: images are ``[H, W, C]``, not ``[C, H, W]``.
    """

    hidden_sizes: tuple[int, ...]
    activation: str = "relu"
    channels_last: bool = False

    @nn.nowrap
    def parts(self) -> tuple[CNN, MLP]:
        """Return what sees and what judges."""
        features = self.hidden_sizes[0] if self.hidden_sizes else 256
        see = CNN(
            num_outputs=features, channels_last=self.channels_last, output_gain=math.sqrt(2), output_activation="relu"
        )
        return see, MLP(hidden_sizes=self.hidden_sizes, num_outputs=1, activation=self.activation)

    def setup(self) -> None:
        """Name the parts."""
        self.see, self.judge = self.parts()

    def __call__(self, images: jax.Array, actions: jax.Array) -> jax.Array:
        """Return values ``[B, 1]`` for images ``[B, ...]`` and actions ``[B, D]``."""
        values: jax.Array = self.judge(self.see(images), actions)
        return values


class Joined(nn.Module):
    """Convolutions for the pictures in flat rows, and an MLP over what they see and all other numbers.

    Attributes:
        pictures: where each picture begins in a row, and its shape.
        width: of a row.
        hidden_sizes: of the MLP; the first is also what is kept of each picture (256 without any).
        num_outputs: width of the last layer.
        activation: of the MLP.
        output_gain: of the last layer's weights.
        output_activation: after the last layer.
    """

    pictures: tuple[tuple[int, tuple[int, ...]], ...]
    width: int
    hidden_sizes: tuple[int, ...]
    num_outputs: int
    activation: str = "tanh"
    output_gain: float = 1.0
    output_activation: str = "identity"

    @nn.nowrap
    def parts(self) -> tuple[list[CNN], MLP]:
        """Return what sees each picture, and what joins."""
        features = self.hidden_sizes[0] if self.hidden_sizes else 256
        see = [
            CNN(
                num_outputs=features,
                channels_last=is_channels_last(shape),
                output_gain=math.sqrt(2),
                output_activation="relu",
            )
            for _, shape in self.pictures
        ]
        join = MLP(
            hidden_sizes=self.hidden_sizes,
            num_outputs=self.num_outputs,
            activation=self.activation,
            output_gain=self.output_gain,
            output_activation=self.output_activation,
        )
        return see, join

    @nn.nowrap
    def num_joined(self) -> int:
        """Return how many numbers are joined, without those of further inputs."""
        see, _ = self.parts()
        pixels = sum(math.prod(shape) for _, shape in self.pictures)
        return self.width - pixels + sum(network.num_outputs for network in see)

    def setup(self) -> None:
        """Name the parts."""
        self.see, self.join = self.parts()

    def __call__(self, rows: jax.Array, *others: jax.Array) -> jax.Array:
        """Return ``[B, num_outputs]`` for rows ``[B, width]``; further inputs (actions) are joined, too."""
        seen, rest, end = [], [], 0
        for see, (begin, shape) in zip(self.see, self.pictures, strict=True):
            rest.append(rows[:, end:begin])
            end = begin + math.prod(shape)
            seen.append(see(rows[:, begin:end].reshape(-1, *shape)))
        outputs: jax.Array = self.join(*seen, *rest, rows[:, end:], *others)
        return outputs


OWN = (MLP, CNN, Joined)
"""Networks of this package, which take what :func:`optix_core.policies.encoder_for` makes."""


class NoCritic(nn.Module):
    """Values that are always 0, for learning without a critic."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return ``[B, 1]`` zeros."""
        return jnp.zeros((len(x), 1))


def is_channels_last(image_shape: tuple[int, ...]) -> bool:
    """Whether images are ``[H, W, C]``, not ``[C, H, W]``."""
    return image_shape[2] < image_shape[0]
