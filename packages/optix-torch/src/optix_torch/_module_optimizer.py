"""A user's own optimiser: its groups and rates, whom it moves, and what it remembers."""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.errors import AgentError, ConfigError, in_one_line
from optix_protocol import StateTree

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ModuleOptimizer:
    """A user's own ``torch.optim.Optimizer``, with its groups and their own rates.

    What a step does to a parameter is what it does after ``loss.backward()`` in plain torch: frozen parameters, and
    those that the loss has never reached, have no gradient, so neither momentum nor weight decay moves them.

    Args:
        optimizer: over parameters of the user's modules.
        extra: further parameters to optimise, added to it in a group with its first rate unless they are in it.
        only: parameters that :meth:`step` moves, where an algorithm takes turns with parts of them; None moves all.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        extra: Iterable[nn.Parameter],
        only: Iterable[nn.Parameter] | None = None,
    ) -> None:
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        missing = [parameter for parameter in extra if id(parameter) not in known]
        self._optimizer = optimizer
        if missing:
            optimizer.add_param_group({"params": missing, "lr": self.learning_rate})
        self._only = None if only is None else {id(parameter) for parameter in only}
        self._shares = [1.0]
        self._noticed = self.learning_rate
        self._reached: set[int] = set()

    @property
    def learning_rate(self) -> float:
        """That of the first group that has one above 0; setting it scales those of all groups by the same factor."""
        return leading_rate(self._optimizer)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        groups: list[dict[str, Any]] = self._optimizer.param_groups
        before = self.learning_rate
        if value == before:
            return
        if before > 0:
            self._shares = [float(group["lr"]) / before for group in groups]
        shares = self._shares[: len(groups)]
        for group, share in zip(groups, shares + [1.0] * (len(groups) - len(shares)), strict=True):
            rate = value if share == 1.0 else share * value
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._noticed = self.learning_rate

    def notice_learning_rate(self) -> float | None:
        """Return the learning rate if a scheduler of the user's has changed it since the last call, else None."""
        rate = self.learning_rate
        if rate == self._noticed:
            return None
        self._noticed = rate
        return rate

    def step(self) -> None:
        """Move the parameters along their gradients.

        Raises:
            AgentError: it cannot, or not without a closure.
        """
        hidden = [(position, p) for position, p in enumerate(self._parameters()) if not self._moves(position, p)]
        gradients = [parameter.grad for _, parameter in hidden]
        for _, parameter in hidden:
            parameter.grad = None  # torch's optimisers pass over parameters without a gradient
        try:
            self._optimizer.step()
        except (TypeError, AssertionError) as error:
            name = type(self._optimizer).__name__
            raise AgentError(f"{name}.step() without a closure fails, so it cannot be used here: {error}") from error
        except RuntimeError as error:
            text = " ".join(str(error).split())
            raise AgentError(f"{type(self._optimizer).__name__}.step() fails: {text}") from error
        finally:
            for (_, parameter), gradient in zip(hidden, gradients, strict=True):
                parameter.grad = gradient

    def forget_gradients(self, own: Container[nn.Parameter]) -> None:
        """Drop the gradients of parameters that are none of the agent's own: those of a part of the user's own loss."""
        for parameter in self._parameters():
            if parameter not in own:
                parameter.grad = None

    def state(self) -> dict[str, Any]:
        """Return a copy of its memory of each parameter, by position, and the learning rate of each group."""
        memory = self._optimizer.state_dict()["state"].items()
        return {
            "entries": {str(index): {name: _to_leaf(leaf) for name, leaf in entry.items()} for index, entry in memory},
            "learning_rates": np.array([float(group["lr"]) for group in self._optimizer.param_groups]),
            "reached": np.array(sorted(self._reached), np.int64),
        }

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned; settings other than the learning rates stay the optimiser's."""
        memory = state["entries"].items()
        entries = {int(index): {name: _from_leaf(leaf) for name, leaf in entry.items()} for index, entry in memory}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": entries, "param_groups": groups})
        rates = np.broadcast_to(np.asarray(state.get("learning_rates", state.get("learning_rate"))), len(groups))
        for group, rate in zip(self._optimizer.param_groups, rates.tolist(), strict=True):
            group["lr"] = torch.full_like(group["lr"], rate) if isinstance(group["lr"], Tensor) else rate
        self._reached = set(np.asarray(state.get("reached", ()), np.int64).tolist())
        self._noticed = self.learning_rate

    def _moves(self, position: int, parameter: nn.Parameter) -> bool:
        if not parameter.requires_grad or (self._only is not None and id(parameter) not in self._only):
            return False
        if position not in self._reached and parameter.grad is not None and bool(parameter.grad.any()):
            self._reached.add(position)
        return position in self._reached

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self._optimizer.param_groups:
            yield from group["params"]


def own_optimizer(optimizer: torch.optim.Optimizer, modules: Mapping[str, nn.Module]) -> ModuleOptimizer:
    """Return a user's optimiser of these modules; errors as in :func:`check_optimizer`."""
    check_optimizer(optimizer, modules)
    return ModuleOptimizer(optimizer, ())


def add_like(optimizer: torch.optim.Optimizer, originals: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """Add copies to an optimiser, each with the settings of its original's group; none whose original is in none.

    Args:
        optimizer: the user's.
        originals: of each copy, what it is a copy of.
    """
    for group in list(optimizer.param_groups):
        members = set(group["params"])
        copies = [copy for copy, original in originals.items() if original in members]
        if copies:
            group["params"].extend(copies)


def leading_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the first learning rate above 0 of an optimiser's groups, 0 if there is none."""
    return next((rate for group in optimizer.param_groups if (rate := float(group["lr"])) > 0), 0.0)


def check_steps(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimiser that cannot take a step of a given size along gradients that are there.

    Raises:
        ConfigError: it has no learning rates, or its step needs a closure.
    """
    if not hasattr(optimizer, "param_groups") or isinstance(optimizer, type) or not callable(optimizer.step):
        given = in_one_line(repr(optimizer))
        raise ConfigError(f"An optimiser is an object such as torch.optim.Adam(network.parameters()), not {given}.")
    name, arguments = type(optimizer).__name__, inspect.signature(type(optimizer).step).parameters.values()
    if any(a.default is a.empty and a.kind in _BY_POSITION for a in list(arguments)[1:]):
        raise ConfigError(f"{name} needs a closure that computes the loss anew; choose one such as Adam or SGD.")
    if not all("lr" in group for group in optimizer.param_groups):
        raise ConfigError(f"{name} has no learning rate 'lr' in its groups; choose one such as Adam or SGD.")


def check_optimizer(optimizer: torch.optim.Optimizer, modules: Mapping[str, nn.Module]) -> None:
    """Refuse an optimiser that was made for other modules; one over some of the parameters leaves the others alone.

    Args:
        optimizer: the user's.
        modules: what is to be learned, by name.

    Raises:
        ConfigError: it holds none of their trained parameters, or misses some and holds others that are not theirs.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    own = {id(p): f"{part}.{name}" for part, module in modules.items() for name, p in module.named_parameters()}
    trained = {id(p) for module in modules.values() for p in module.parameters() if p.requires_grad}
    missed = [name for key, name in own.items() if key in trained and key not in held]
    if not trained or not missed or (trained & held and held <= own.keys()):
        return
    raise ConfigError(
        f"The optimiser misses {missed[0]} and holds parameters that are in none of the modules; make it from the "
        "parameters that the modules have when they are given to the agent."
    )


def _to_leaf(value: Any) -> Any:
    return value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else value


def _from_leaf(value: Any) -> Any:
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
