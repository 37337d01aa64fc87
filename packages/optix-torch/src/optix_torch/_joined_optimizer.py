"""An optimiser for each network, as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn

from optix_core.errors import ConfigError
from optix_torch._module_optimizer import check_steps


class JoinedOptimizer:
    """Several ``torch.optim`` optimisers that step together, each with groups and settings of its own.

    It answers as far as the agents ask an optimiser. Groups that are added go to the first one.

    Args:
        members: over parameters of their own.
    """

    def __init__(self, members: Iterable[torch.optim.Optimizer]) -> None:
        self._members = list(members)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all, the members' own."""
        return [group for member in self._members for group in member.param_groups]

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group to the first member."""
        self._members[0].add_param_group(group)

    def step(self) -> None:
        """Let every member step."""
        for member in self._members:
            member.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what all remember, by the position of the parameters among those of all."""
        memory: dict[int, Any] = {}
        for first, state in self._placed():
            memory |= {first + position: entry for position, entry in state["state"].items()}
        return {"state": memory, "param_groups": self.param_groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned; the settings of the groups stay the members'."""
        for (first, state), member in zip(self._placed(), self._members, strict=True):
            positions = range(_size(member))
            memory = {p: state_dict["state"][first + p] for p in positions if first + p in state_dict["state"]}
            member.load_state_dict({"state": memory, "param_groups": state["param_groups"]})

    def _placed(self) -> list[tuple[int, dict[str, Any]]]:
        """Return each member's state, and how many parameters come before its own."""
        placed, first = [], 0
        for member in self._members:
            placed.append((first, member.state_dict()))
            first += _size(member)
        return placed


def _size(optimizer: torch.optim.Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


def join_optimizers(
    optimizer: torch.optim.Optimizer | None,
    own: Mapping[str, torch.optim.Optimizer | None],
    networks: Mapping[str, Iterable[nn.Module]],
) -> torch.optim.Optimizer | None:
    """Return one optimiser from one for all networks or from one for each; None if none is given.

    A network whose own is missing where others have one gets Adam at the learning rate of the first that is there.

    Args:
        optimizer: for all networks.
        own: for each network, by the name of the argument.
        networks: what each of these shall move, by the same names.

    Raises:
        ConfigError: both kinds are given, or one moves nothing of its network.
    """
    given = {name: member for name, member in own.items() if member is not None}
    if not given:
        return optimizer
    if optimizer is not None:
        raise ConfigError(f"optimizer is for all networks and {next(iter(given))} for one: give one kind.")
    for one in given.values():
        check_steps(one)
    members: dict[str, torch.optim.Optimizer] = {}
    rate = next(iter(given.values())).param_groups[0]["lr"]
    for name, modules in networks.items():
        parameters = [parameter for module in modules for parameter in module.parameters()]
        member = given.get(name)
        if member is None:
            member = torch.optim.Adam(parameters, lr=rate, eps=1e-5)
        held = {id(parameter) for group in member.param_groups for parameter in group["params"]}
        if held.isdisjoint(map(id, parameters)):
            network = name.removesuffix("_optimizer")
            raise ConfigError(f"{name} holds none of the {network}'s parameters: make it from {network}.parameters().")
        members[name] = member
    members |= {name: member for name, member in given.items() if name not in members}
    return cast(torch.optim.Optimizer, JoinedOptimizer(members.values()))


def temperature_of(optimizer: torch.optim.Optimizer | None) -> nn.Parameter | None:
    """Return the one number that an optimiser of the temperature moves, the logarithm of it, as ``[1]``.

    Raises:
        ConfigError: it holds anything else.
    """
    if optimizer is None:
        return None
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if len(held) != 1 or held[0].numel() != 1:
        raise ConfigError("alpha_optimizer moves log alpha: make it from [torch.zeros(1, requires_grad=True)].")
    (parameter,) = held
    parameter.data = parameter.data.reshape(1)
    return cast(nn.Parameter, parameter)
