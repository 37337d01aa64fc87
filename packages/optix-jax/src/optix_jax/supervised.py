"""Any ``flax.nnx.Module`` that learns from a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from optix_core.agents.model import Means, ModelAgent
from optix_core.agents.model_losses import Sample
from optix_core.data.rows import num_rows_of, numbers_in, parted, shapes_of
from optix_core.errors import AgentError, ConfigError, first_line
from optix_jax._devices import resolve_device
from optix_protocol import Array, EpisodeData, StateTree

TEMPERATURE = 0.5
"""Of the contrastive loss, as in Chen et al. 2020 for CIFAR-10."""


class MLAgent(ModelAgent):
    """Trains a ``flax.nnx.Module`` on a data set, in the batches of a :class:`optix_core.DatasetPipeline`.

    The model learns in train mode and is judged in eval mode (``model.train()``, ``model.eval()``). What dropout draws
    follows from the seed: its streams of random numbers begin anew with each window.

    Args:
        model: is trained as it is, in place.
        loss: as for ``optix_torch.MLAgent``; a function gets JAX arrays.
        optimizer: an ``optax.GradientTransformation``; None takes Adam with decoupled weight decay.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        seed: of dropout and of other random numbers of the model.
        hyperparams: ``learning_rate`` (1e-3), ``weight_decay`` (0), ``max_grad_norm`` (None).
        **more_hyperparams: the same as keywords.

    Raises:
        ConfigError: no ``nnx.Module``, an unknown loss or hyperparameter.
    """

    kind = "jax/supervised"

    def __init__(
        self,
        model: nnx.Module,
        *,
        loss: str | Callable[[Any, Any], Any] = "auto",
        optimizer: optax.GradientTransformation | None = None,
        device: str = "cpu",
        seed: int = 0,
        hyperparams: Mapping[str, Any] | None = None,
        **more_hyperparams: Any,
    ) -> None:
        if not isinstance(model, nnx.Module):
            raise ConfigError(f"MLAgent trains a flax.nnx.Module, not {type(model).__name__}.")
        super().__init__(loss=loss, seed=seed, hyperparams={**(hyperparams or {}), **more_hyperparams})
        self.model = model
        self._device = resolve_device(device)
        nnx.update(model, jax.device_put(nnx.state(model), self._device))
        self._own = optimizer is not None
        self._optimizer = nnx.Optimizer(model, optimizer or optax.scale_by_adam(), wrt=nnx.Param)
        self._update = nnx.jit(self._one_update)
        self._forward = nnx.jit(lambda model, inputs: _called(model, inputs))
        self._num_input_axes: int | None = None

    def act(self, observation: Array) -> Any:
        """Return what the model says of inputs ``[*x]`` or ``[B, *x]``: classes, or its outputs."""
        inputs = np.asarray(observation)
        single = self._num_input_axes is not None and inputs.ndim < self._num_input_axes
        self.model.eval()  # type: ignore[no-untyped-call]
        outputs = self._forward(self.model, numbers_in(inputs[None] if single else inputs))
        outputs = outputs[0] if isinstance(outputs, tuple | list) else outputs
        if self.loss == "cross_entropy":
            outputs = outputs.argmax(1)
        found = np.asarray((outputs > 0).astype(np.int32) if self.loss == "bce" else outputs)
        return found[0] if single else found

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Take a step along the gradient of each batch; see :meth:`ModelAgent.learn`."""
        try:
            return super().learn(episode_data)
        except (TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise AgentError(f"The model cannot learn from a batch: {first_line(error)}") from error

    def _one_update(self, model: Any, optimizer: Any, inputs: Any, targets: Any, knobs: Any) -> Any:
        """Take a step; ``knobs`` are learning rate, weight decay and largest norm of the gradient."""

        def loss_of(model: Any) -> Any:
            return self._loss_of(model, inputs, targets)

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        rate, decay, limit = knobs
        arrays, parameters = nnx.as_pure(gradients), nnx.as_pure(nnx.state(model, nnx.Param))
        norm = jnp.sqrt(sum(jnp.square(gradient).sum() for gradient in jax.tree.leaves(arrays)))
        share = jnp.minimum(1.0, limit / (norm + 1e-6))
        arrays = jax.tree.map(lambda gradient: gradient * share, arrays)
        steps, memory = optimizer.tx.update(arrays, nnx.as_pure(optimizer.opt_state), parameters)
        if self._own:
            moved = optax.apply_updates(parameters, steps)
        else:
            moved = jax.tree.map(lambda p, step: p * (1 - rate * decay) - rate * step, parameters, steps)
        nnx.update(model, moved)
        nnx.update(optimizer.opt_state, nnx.state(memory))
        return loss

    def _loss_of(self, model: Any, inputs: Any, targets: Any, outputs: Any = None) -> Any:
        outputs = _called(model, inputs) if outputs is None else outputs
        loss = self.loss
        if callable(loss):
            return loss(outputs, inputs if targets is None else targets)
        if loss == "contrastive":
            return contrastive(outputs, _called(model, targets))
        return _LOSSES[loss](outputs, inputs if targets is None or loss in ("reconstruction", "vae") else targets)

    # --- what the framework fills in ----------------------------------------------------------------------------------

    def _sample(self, inputs: Any, targets: Any) -> Sample:
        moved = numbers_in(inputs)
        self._num_input_axes = getattr(moved, "ndim", None)
        self.model.eval()  # type: ignore[no-untyped-call]
        try:
            outputs = _called(self.model, moved)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The model cannot be run on inputs {shapes_of(moved)}: {first_line(error)}") from error
        return Sample(
            targets=None if targets is None else np.asarray(targets),
            outputs=shapes_of(outputs),
            inputs=shapes_of(moved),
        )

    def _fit(self, batches: Iterable[Any], seed: int) -> float:
        _reseed(self.model, seed)
        self.model.train()  # type: ignore[no-untyped-call]
        limit = self.hyperparams["max_grad_norm"]
        knobs = (
            self.hyperparams["learning_rate"],
            self.hyperparams["weight_decay"],
            np.float32(np.inf if limit is None else limit),
        )
        losses, rows = [], []
        for batch in batches:
            inputs, targets = map(numbers_in, parted(batch))
            losses.append(self._update(self.model, self._optimizer, inputs, targets, knobs))
            rows.append(num_rows_of(inputs))
        return float(np.average(np.array(losses, np.float64), weights=rows)) if rows else 0.0

    def _judge(self, batches: Iterable[Any], metric: Callable[[Any, Any], float] | None, seed: int) -> dict[str, float]:
        _reseed(self.model, seed)
        self.model.eval()  # type: ignore[no-untyped-call]
        means, kept = Means(), []
        for batch in batches:
            inputs, targets = map(numbers_in, parted(batch))
            outputs = self._forward(self.model, inputs)
            values = {"loss": float(self._loss_of(self.model, inputs, targets, outputs))}
            if self.loss == "cross_entropy":
                known = targets.argmax(1) if targets.dtype.kind == "f" else targets
                values["accuracy"] = float((outputs.argmax(1) == known).mean())
            elif self.loss == "bce":
                values["accuracy"] = float(((outputs.reshape(targets.shape) > 0) == (targets > 0.5)).mean())
            means.add(num_rows_of(inputs), **values)
            if metric is not None:
                kept.append((np.asarray(outputs), np.asarray(inputs if targets is None else targets)))
        found = means.result()
        if metric is not None and kept:
            found["score"] = float(metric(*(np.concatenate(column) for column in zip(*kept, strict=True))))
        return found

    def _arrays(self) -> dict[str, Array]:
        return _flat(nnx.state(self.model, nnx.Not(nnx.RngState)))

    def _take_arrays(self, arrays: Mapping[str, Array]) -> None:
        _fill(nnx.state(self.model, nnx.Not(nnx.RngState)), arrays, self._device)

    def _optimizer_state(self) -> StateTree:
        return _flat(nnx.state(self._optimizer))

    def _restore_optimizer(self, state: StateTree) -> None:
        _fill(nnx.state(self._optimizer), state, self._device)

    def _apply_hyperparams(self) -> None:
        """Nothing is kept of them: each step is given its own."""


def contrastive(views: Any, others: Any) -> Any:
    """Return NT-Xent of two views ``[B, Z]`` of the same things (Chen et al. 2020, equation 1)."""
    rows = jnp.concatenate([views, others])
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    similarity = jnp.where(jnp.eye(len(rows), dtype=bool), -jnp.inf, rows @ rows.T / TEMPERATURE)
    partner = jnp.roll(jnp.arange(len(rows)), len(views))
    return optax.softmax_cross_entropy_with_integer_labels(similarity, partner).mean()


def _vae(outputs: Any, inputs: Any) -> Any:
    """Kingma and Welling 2014, equation 10, with a Gaussian likelihood of unit variance."""
    reconstruction, mean, log_variance = outputs
    error = jnp.square(reconstruction - inputs.reshape(reconstruction.shape)).reshape(len(inputs), -1).sum(1) / 2
    divergence = -(1 + log_variance - mean**2 - jnp.exp(log_variance)).reshape(len(inputs), -1).sum(1) / 2
    return (error + divergence).mean()


def _cross_entropy(outputs: Any, targets: Any) -> Any:
    if targets.dtype.kind == "f":
        return optax.softmax_cross_entropy(outputs, targets).mean()
    return optax.softmax_cross_entropy_with_integer_labels(jnp.moveaxis(outputs, 1, -1), targets).mean()


def _apart(outputs: Any, targets: Any) -> Any:
    return outputs.reshape(targets.shape) - targets


_LOSSES: Mapping[str, Callable[[Any, Any], Any]] = {
    "cross_entropy": _cross_entropy,
    "bce": lambda o, t: optax.sigmoid_binary_cross_entropy(o.reshape(t.shape), t.astype(o.dtype)).mean(),
    "mse": lambda o, t: jnp.square(_apart(o, t)).mean(),
    "mae": lambda o, t: jnp.abs(_apart(o, t)).mean(),
    "huber": lambda o, t: optax.huber_loss(_apart(o, t)).mean(),
    "reconstruction": lambda o, x: jnp.square(o - x).mean(),
    "vae": _vae,
}


def _called(model: Any, inputs: Any) -> Any:
    if isinstance(inputs, tuple):
        return model(*inputs)
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(inputs)


def _reseed(model: Any, seed: int) -> None:
    """Let every stream of random numbers of a model begin from a seed."""
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.RngState)):
        del path
        value = variable.get_value()
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            variable.set_value(jax.random.key(seed, impl=jax.random.key_impl(value)))
        else:
            variable.set_value(jnp.zeros_like(value))


def _flat(state: Any) -> dict[str, Array]:
    return {".".join(map(str, path)): np.asarray(variable.get_value()) for path, variable in nnx.to_flat_state(state)}


def _fill(state: Any, arrays: Mapping[str, Any], device: jax.Device) -> None:
    """Give the variables of a live state their values; copies, because JAX may share an aligned array's memory."""
    for path, variable in nnx.to_flat_state(state):
        variable.set_value(jax.device_put(jnp.array(arrays[".".join(map(str, path))]), device))
