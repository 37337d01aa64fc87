"""Any Keras model that learns from a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from optix_core.agents.model import Means, ModelAgent
from optix_core.agents.model_losses import Sample
from optix_core.data.rows import num_rows_of, numbers_in, parted, shapes_of
from optix_core.errors import AgentError, ConfigError, first_line
from optix_protocol import Array, EpisodeData, StateTree
from optix_tf._runtime import keras, resolve_device, tf

TEMPERATURE = 0.5
"""Of the contrastive loss, as in Chen et al. 2020 for CIFAR-10."""


class MLAgent(ModelAgent):
    """Trains a Keras model on a data set, in the batches of a :class:`optix_core.DatasetPipeline`.

    The model learns with ``training=True`` and is judged with ``training=False``. What dropout draws follows from the
    seed: its seed generators begin anew with each window. Outputs are logits unless the last layer has a softmax or a
    sigmoid.

    Args:
        model: is trained as it is. It need not be compiled.
        loss: as for ``optix_torch.MLAgent``; a function gets tensors.
        optimizer: a Keras optimiser; None takes Adam with decoupled weight decay.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        seed: of dropout and of other random numbers of the model.
        hyperparams: ``learning_rate`` (1e-3), ``weight_decay`` (0), ``max_grad_norm`` (None).
        **more_hyperparams: the same as keywords.

    Raises:
        ConfigError: no Keras model, an unknown loss or hyperparameter.
    """

    kind = "tf/supervised"

    def __init__(
        self,
        model: Any,
        *,
        loss: str | Callable[[Any, Any], Any] = "auto",
        optimizer: Any = None,
        device: str = "cpu",
        seed: int = 0,
        hyperparams: Mapping[str, Any] | None = None,
        **more_hyperparams: Any,
    ) -> None:
        if not isinstance(model, keras.Model):
            raise ConfigError(f"MLAgent trains a keras.Model, not {type(model).__name__}.")
        super().__init__(loss=loss, seed=seed, hyperparams={**(hyperparams or {}), **more_hyperparams})
        self.model = model
        self._device = resolve_device(device)
        self._own = optimizer is not None
        self._mover = optimizer or keras.optimizers.Adam(self.hyperparams["learning_rate"], epsilon=1e-8)
        self._update = tf.function(self._one_update, reduce_retracing=True)
        self._forward = tf.function(lambda inputs: _called(model, inputs, training=False), reduce_retracing=True)
        self._num_input_axes: int | None = None

    def act(self, observation: Array) -> Any:
        """Return what the model says of inputs ``[*x]`` or ``[B, *x]``: classes, or its outputs."""
        inputs = np.asarray(observation)
        single = self._num_input_axes is not None and inputs.ndim < self._num_input_axes
        outputs = self._forward(_tensors(inputs[None] if single else inputs))
        outputs = _numpy(outputs[0] if isinstance(outputs, tuple | list) else outputs)
        if self.loss == "cross_entropy":
            outputs = outputs.argmax(1)
        elif self.loss == "bce":
            outputs = (outputs > self._threshold).astype(np.int64)
        return outputs[0] if single else outputs

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Take a step along the gradient of each batch; see :meth:`ModelAgent.learn`."""
        try:
            return super().learn(episode_data)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            if isinstance(error, ConfigError):
                raise
            raise AgentError(f"The model cannot learn from a batch: {first_line(error)}") from error

    def _one_update(self, inputs: Any, targets: Any, knobs: Any) -> Any:
        """Take a step; ``knobs`` are learning rate, weight decay and largest norm of the gradient."""
        rate, decay, limit = knobs
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = _called(self.model, inputs, training=True)
            loss = self._loss_of(inputs, targets, outputs, training=True)
            if self.model.losses:
                loss += tf.add_n(self.model.losses)
        gradients = tape.gradient(loss, variables)
        moved = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        norm = tf.linalg.global_norm([gradient for gradient, _ in moved])
        share = tf.minimum(1.0, limit / (norm + 1e-6))
        if not self._own:
            for _, variable in moved:
                variable.assign(variable * (1.0 - rate * decay))
        self._mover.apply([gradient * share for gradient, _ in moved], [variable for _, variable in moved])
        return loss

    def _loss_of(self, inputs: Any, targets: Any, outputs: Any, *, training: bool = False) -> Any:
        loss = self.loss
        if callable(loss):
            return loss(outputs, inputs if targets is None else targets)
        if loss == "contrastive":
            return contrastive(outputs, _called(self.model, targets, training=training))
        wanted = inputs if targets is None or loss in ("reconstruction", "vae") else targets
        if loss in ("cross_entropy", "bce"):
            return _LOSSES[loss](outputs, wanted, self._gives_probabilities)
        return _LOSSES[loss](outputs, wanted)

    @property
    def _gives_probabilities(self) -> bool:
        last = self.model.layers[-1] if self.model.layers else None
        activation = getattr(last, "activation", None)
        name = getattr(activation, "__name__", type(last).__name__.lower())
        return name in ("softmax", "sigmoid")

    @property
    def _threshold(self) -> float:
        return 0.5 if self._gives_probabilities else 0.0

    # --- what the framework fills in ----------------------------------------------------------------------------------

    def _sample(self, inputs: Any, targets: Any) -> Sample:
        moved = _tensors(inputs)
        self._num_input_axes = len(moved.shape) if hasattr(moved, "shape") else None
        try:
            with tf.device(self._device):
                outputs = _called(self.model, moved, training=False)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise ConfigError(f"The model cannot be run on inputs {shapes_of(moved)}: {first_line(error)}") from error
        self._mover.build(self.model.trainable_variables)
        return Sample(
            targets=None if targets is None else np.asarray(targets),
            outputs=shapes_of(outputs),
            inputs=shapes_of(moved),
        )

    def _fit(self, batches: Iterable[Any], seed: int) -> float:
        self._reseed(seed)
        limit = self.hyperparams["max_grad_norm"]
        knobs = tuple(
            tf.constant(value, tf.float32)
            for value in (
                self.hyperparams["learning_rate"],
                self.hyperparams["weight_decay"],
                np.inf if limit is None else limit,
            )
        )
        losses, rows = [], []
        with tf.device(self._device):
            for batch in batches:
                inputs, targets = map(_tensors, parted(batch))
                losses.append(self._update(inputs, targets, knobs))
                rows.append(num_rows_of(inputs))
        return float(np.average(np.array([float(loss) for loss in losses]), weights=rows)) if rows else 0.0

    def _judge(self, batches: Iterable[Any], metric: Callable[[Any, Any], float] | None, seed: int) -> dict[str, float]:
        self._reseed(seed)
        means, kept = Means(), []
        with tf.device(self._device):
            for batch in batches:
                inputs, targets = map(_tensors, parted(batch))
                outputs = self._forward(inputs)
                values = {"loss": float(self._loss_of(inputs, targets, outputs))}
                if self.loss in ("cross_entropy", "bce"):
                    values["accuracy"] = self._share(_numpy(outputs), _numpy(targets))
                means.add(num_rows_of(inputs), **values)
                if metric is not None:
                    kept.append((_numpy(outputs), _numpy(inputs if targets is None else targets)))
        found = means.result()
        if metric is not None and kept:
            found["score"] = float(metric(*(np.concatenate(column) for column in zip(*kept, strict=True))))
        return found

    def _share(self, outputs: Array, targets: Array) -> float:
        """Return the share of rows whose class the model knows."""
        if self.loss == "bce":
            return float(((outputs.reshape(targets.shape) > self._threshold) == (targets > 0.5)).mean())
        return float((outputs.argmax(1) == (targets.argmax(1) if targets.dtype.kind == "f" else targets)).mean())

    def _arrays(self) -> dict[str, Array]:
        return {str(number): _numpy(weight) for number, weight in enumerate(self.model.weights)}

    def _take_arrays(self, arrays: Mapping[str, Array]) -> None:
        for number, weight in enumerate(self.model.weights):
            weight.assign(arrays[str(number)])

    def _optimizer_state(self) -> StateTree:
        return {str(number): _numpy(variable) for number, variable in enumerate(self._mover.variables)}

    def _restore_optimizer(self, state: StateTree) -> None:
        for number, variable in enumerate(self._mover.variables):
            variable.assign(state[str(number)])

    def _apply_hyperparams(self) -> None:
        if not self._own:
            self._mover.learning_rate = self.hyperparams["learning_rate"]

    def _reseed(self, seed: int) -> None:
        """Let every seed generator of the model begin from a seed; their state is in no weights."""
        for number, variable in enumerate(self.model.variables):
            if "seed_generator" in variable.path:
                variable.assign(np.array([seed, number]).astype(variable.dtype))


def contrastive(views: Any, others: Any) -> Any:
    """Return NT-Xent of two views ``[B, Z]`` of the same things (Chen et al. 2020, equation 1)."""
    rows = tf.math.l2_normalize(tf.concat([views, others], 0), axis=1)
    number = tf.shape(rows)[0]
    similarity = rows @ tf.transpose(rows) / TEMPERATURE - 1e9 * tf.eye(number)
    partner = tf.roll(tf.range(number), number // 2, 0)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(partner, similarity))


def _vae(outputs: Any, inputs: Any) -> Any:
    """Kingma and Welling 2014, equation 10, with a Gaussian likelihood of unit variance."""
    reconstruction, mean, log_variance = outputs
    error = tf.square(reconstruction - tf.reshape(inputs, tf.shape(reconstruction))) / 2
    divergence = -(1 + log_variance - mean**2 - tf.exp(log_variance)) / 2
    rows = tf.cast(tf.shape(inputs)[0], tf.float32)
    return (tf.reduce_sum(error) + tf.reduce_sum(divergence)) / rows


def _cross_entropy(outputs: Any, targets: Any, probabilities: bool) -> Any:
    if targets.dtype.is_floating:
        return tf.reduce_mean(keras.losses.categorical_crossentropy(targets, outputs, from_logits=not probabilities))
    found = keras.losses.sparse_categorical_crossentropy(targets, outputs, from_logits=not probabilities)
    return tf.reduce_mean(found)


def _bce(outputs: Any, targets: Any, probabilities: bool) -> Any:
    wanted = tf.cast(tf.reshape(targets, tf.shape(outputs)), outputs.dtype)
    return tf.reduce_mean(keras.losses.binary_crossentropy(wanted, outputs, from_logits=not probabilities))


def _apart(outputs: Any, targets: Any) -> Any:
    return tf.reshape(outputs, tf.shape(targets)) - tf.cast(targets, outputs.dtype)


def _huber(outputs: Any, targets: Any) -> Any:
    size = tf.abs(_apart(outputs, targets))
    return tf.reduce_mean(tf.where(size <= 1.0, size**2 / 2, size - 0.5))


_LOSSES: Mapping[str, Callable[..., Any]] = {
    "cross_entropy": _cross_entropy,
    "bce": _bce,
    "mse": lambda outputs, targets: tf.reduce_mean(tf.square(_apart(outputs, targets))),
    "mae": lambda outputs, targets: tf.reduce_mean(tf.abs(_apart(outputs, targets))),
    "huber": _huber,
    "reconstruction": lambda outputs, inputs: tf.reduce_mean(tf.square(outputs - inputs)),
    "vae": _vae,
}


def _called(model: Any, inputs: Any, *, training: bool) -> Any:
    return model(list(inputs) if isinstance(inputs, tuple) else inputs, training=training)


def _tensors(value: Any) -> Any:
    """Return arrays as tensors, real numbers as float32."""
    return None if value is None else tf.nest.map_structure(tf.convert_to_tensor, numbers_in(value))


def _numpy(value: Any) -> Array:
    """Return a copy of a tensor or a variable as an array."""
    return np.array(tf.convert_to_tensor(value).numpy())
