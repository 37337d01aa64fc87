"""Any ``nn.Module`` that learns from a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.agents.model import Means, ModelAgent
from optix_core.agents.model_losses import Sample
from optix_core.data.rows import num_rows_of, parted, shapes_of
from optix_core.errors import AgentError, ConfigError, first_line
from optix_protocol import Array, EpisodeData, StateTree
from optix_torch._arrays import resolve_device
from optix_torch._loading import all_seeded, load_batches, on_device
from optix_torch._losses import correct, loss_function
from optix_torch._modes import in_eval_mode, in_learning_modes, seeded
from optix_torch._module_optimizer import ModuleOptimizer, check_optimizer
from optix_torch._optimizers import FlatParameters, FusedAdam

_SMALL_MODEL = 1_000_000
"""Below this many parameters a second thread costs more than it brings."""


class MLAgent(ModelAgent):
    """Trains an ``nn.Module`` on a data set, in the batches of a :class:`optix_core.DatasetPipeline`.

    The model learns in train mode and is judged in eval mode, and is left in the modes in which it came. What dropout
    draws follows from the seed. On a CPU, models of less than a million parameters set torch to one thread.

    ``act`` gives what the model says of inputs: classes where it was trained by ``cross_entropy`` or ``bce``, its
    outputs otherwise.

    Args:
        model: is trained as it is. It is called with the inputs of a batch: one tensor, several, or keywords where the
            batch is a mapping of several.
        loss: ``"auto"`` (see :func:`optix_core.agents.model_losses.choose_loss`), ``"cross_entropy"``, ``"bce"``,
            ``"mse"``, ``"mae"``, ``"huber"``, ``"reconstruction"``, ``"vae"`` (the model returns reconstruction, mean
            and log-variance), ``"contrastive"`` (rows are two views of one thing), or ``loss(outputs, targets)``, which
            gets the inputs where there are no targets.
        optimizer: a ``torch.optim.Optimizer`` over the model's parameters; None takes Adam with decoupled weight decay.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        seed: of dropout and of other random numbers of model and data.
        hyperparams: ``learning_rate`` (1e-3), ``weight_decay`` (0), ``max_grad_norm`` (None).
        **more_hyperparams: the same as keywords.

    Raises:
        ConfigError: no module, no parameters, an unknown loss or hyperparameter.
    """

    kind = "torch/supervised"

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: str | Callable[[Any, Any], Tensor] = "auto",
        optimizer: torch.optim.Optimizer | None = None,
        device: str = "cpu",
        seed: int = 0,
        hyperparams: Mapping[str, Any] | None = None,
        **more_hyperparams: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigError(f"MLAgent trains an nn.Module, not {type(model).__name__}.")
        super().__init__(loss=loss, seed=seed, hyperparams={**(hyperparams or {}), **more_hyperparams})
        self._device = resolve_device(device)
        self.model = model.to(self._device)
        if optimizer is not None:
            check_optimizer(optimizer, {"model": model})
            if self.hyperparams["weight_decay"]:
                raise ConfigError("weight_decay belongs to the optimiser that is passed: set it there.")
        self._own_optimizer = optimizer
        self._movers: _Movers | None = None
        self._num_input_axes: int | None = None

    def load_batches(
        self,
        data: Any,
        order: Sequence[Array],
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> Iterator[Any]:
        """Load rows as tensors; see :class:`optix_protocol.SupportsBatches`."""
        return load_batches(data, order, collate=collate, num_workers=num_workers, seed=seed)

    def iterate_loader(self, begin: Callable[[], Iterator[Any]], *, seed: int) -> Iterator[Any]:
        """Go through a loader whose first steps draw from torch's global random numbers, as samplers do."""
        with all_seeded(seed):
            batches = iter(begin())
            first = next(batches, None)
        if first is not None:
            yield first
            yield from batches

    def act(self, observation: Array) -> Any:
        """Return what the model says of inputs, ``[*x]`` or ``[B, *x]``."""
        inputs = np.asarray(observation)
        single = self._num_input_axes is not None and inputs.ndim < self._num_input_axes
        with torch.no_grad(), in_eval_mode(self.model):
            outputs = self._run(self._moved(inputs[None] if single else inputs))
        if isinstance(outputs, tuple | list):
            outputs = outputs[0]
        if self.loss == "cross_entropy":
            outputs = outputs.argmax(1)
        found = outputs.cpu().numpy()
        if self.loss == "bce":
            found = (found > (0.5 if found.min() >= 0 and self._gives_probabilities else 0.0)).astype(np.int64)
        return found[0] if single else found

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Take a step along the gradient of each batch; see :meth:`ModelAgent.learn`."""
        try:
            return super().learn(episode_data)
        except (RuntimeError, IndexError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise AgentError(f"The model cannot learn from a batch: {first_line(error)}") from error

    # --- what the framework fills in ----------------------------------------------------------------------------------

    def _sample(self, inputs: Any, targets: Any) -> Sample:
        moved = self._moved(inputs)
        if isinstance(moved, Tensor):
            self._num_input_axes = moved.ndim
        try:
            with torch.no_grad(), seeded(0, self._device), in_eval_mode(self.model):
                outputs = self._run(moved)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            shapes = shapes_of(moved)
            raise ConfigError(f"The model cannot be run on inputs {shapes}: {first_line(error)}") from error
        return Sample(
            targets=None if targets is None else _as_array(targets), outputs=shapes_of(outputs), inputs=shapes_of(moved)
        )

    def _fit(self, batches: Iterable[Any], seed: int) -> float:
        loss_of, movers, limit = self._loss_function(), self._optimizer(), self.hyperparams["max_grad_norm"]
        total, rows = torch.zeros((), device=self._device), 0
        with seeded(seed, self._device), in_learning_modes(self.model):
            for batch in batches:
                inputs, targets = self._parted(batch)
                movers.zero()
                loss = self._loss_of(loss_of, inputs, targets)
                loss.backward()  # type: ignore[no-untyped-call]
                movers.step(limit)
                number = num_rows_of(inputs)
                total += number * loss.detach()
                rows += number
        return float(total) / max(rows, 1)

    def _judge(self, batches: Iterable[Any], metric: Callable[[Any, Any], float] | None, seed: int) -> dict[str, float]:
        loss_of, means = self._loss_function(), Means()
        kept: list[tuple[Any, Any]] = []
        with torch.no_grad(), seeded(seed, self._device), in_eval_mode(self.model):
            for batch in batches:
                inputs, targets = self._parted(batch)
                outputs = self._run(inputs)
                values = {"loss": float(self._loss_of(loss_of, inputs, targets, outputs))}
                if isinstance(self.loss, str) and isinstance(outputs, Tensor) and targets is not None:
                    share = correct(self.loss, self.model, outputs, targets)
                    values |= {} if share is None else {"accuracy": share}
                means.add(num_rows_of(inputs), **values)
                if metric is not None:
                    kept.append((outputs, inputs if targets is None else targets))
        found = means.result()
        if metric is not None and kept:
            found["score"] = float(metric(*(torch.cat(column) for column in zip(*kept, strict=True))))
        return found

    def _arrays(self) -> dict[str, Array]:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.model.state_dict().items()}

    def _take_arrays(self, arrays: Mapping[str, Array]) -> None:
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(torch.from_numpy(np.array(arrays[name])))

    def _optimizer_state(self) -> StateTree:
        return self._optimizer().state()

    def _restore_optimizer(self, state: StateTree) -> None:
        self._optimizer().restore(state)

    def _apply_hyperparams(self) -> None:
        if self._movers is not None:
            self._movers.follow(self.hyperparams)

    # --- parts --------------------------------------------------------------------------------------------------------

    @property
    def _gives_probabilities(self) -> bool:
        from optix_torch._losses import last_layer

        return isinstance(last_layer(self.model), nn.Sigmoid)

    def _loss_function(self) -> Callable[[Any, Any], Tensor]:
        own: Callable[[Any, Any], Tensor] | str = self.loss
        if callable(own):
            return own
        return loss_function(own, self.model)

    def _loss_of(self, loss_of: Callable[[Any, Any], Tensor], inputs: Any, targets: Any, outputs: Any = None) -> Tensor:
        outputs = self._run(inputs) if outputs is None else outputs
        if self.loss == "contrastive":
            return loss_of(outputs, self._run(targets))
        return loss_of(outputs, inputs if targets is None or self.loss in ("reconstruction", "vae") else targets)

    def _run(self, inputs: Any) -> Any:
        if isinstance(inputs, tuple):
            return self.model(*inputs)
        if isinstance(inputs, dict):
            return self.model(**inputs)
        return self.model(inputs)

    def _parted(self, batch: Any) -> tuple[Any, Any]:
        return parted(self._moved(batch))

    def _moved(self, batch: Any) -> Any:
        return on_device(batch, self._device, self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)

    def _optimizer(self) -> _Movers:
        """Return what moves the parameters; made when it is first needed, because lazy layers have none before."""
        if self._movers is None:
            parameters = list(self.model.parameters())
            if not any(parameter.requires_grad for parameter in parameters):
                raise ConfigError("The model has no parameters to train.")
            if self._device.type == "cpu" and sum(parameter.numel() for parameter in parameters) < _SMALL_MODEL:
                torch.set_num_threads(1)
            rate, decay = self.hyperparams["learning_rate"], self.hyperparams["weight_decay"]
            if self._own_optimizer is not None:
                self._movers = _Movers(parameters, ModuleOptimizer(self._own_optimizer, ()))
                self.hyperparams.update({"learning_rate": self._movers.learning_rate})
            elif all(parameter.dtype is torch.float32 for parameter in parameters):
                self._movers = _FlatMovers(FlatParameters(parameters), rate, decay)
            else:
                adam = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
                self._movers = _Movers(parameters, ModuleOptimizer(adam, ()))
        return self._movers


class _Movers:
    """An optimiser of torch's, and the parameters that it moves."""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: Any) -> None:
        self._parameters, self._optimizer = parameters, optimizer

    @property
    def learning_rate(self) -> float:
        return float(self._optimizer.learning_rate)

    def zero(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, max_grad_norm: float | None) -> None:
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, max_grad_norm)
        self._optimizer.step()

    def follow(self, hyperparams: Mapping[str, Any]) -> None:
        self._optimizer.learning_rate = hyperparams["learning_rate"]

    def state(self) -> StateTree:
        return dict(self._optimizer.state())

    def restore(self, state: StateTree) -> None:
        self._optimizer.restore(state)


class _FlatMovers(_Movers):
    """Adam on all parameters in one vector, with decoupled weight decay (Loshchilov and Hutter 2019)."""

    def __init__(self, flat: FlatParameters, learning_rate: float, weight_decay: float) -> None:
        super().__init__(flat.parameters, FusedAdam(flat, learning_rate=learning_rate))
        self._flat, self._decay = flat, weight_decay

    def zero(self) -> None:
        self._flat.hold()
        self._flat.gradient.zero_()

    def step(self, max_grad_norm: float | None) -> None:
        if max_grad_norm is not None:
            self._flat.clip_gradient_(max_grad_norm)
        if self._decay:
            self._flat.vector.mul_(1 - self._optimizer.learning_rate * self._decay)
        self._optimizer.step()

    def follow(self, hyperparams: Mapping[str, Any]) -> None:
        super().follow(hyperparams)
        self._decay = hyperparams["weight_decay"]


def _as_array(value: Any) -> Array:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
