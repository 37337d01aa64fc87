"""What a hand-written kernel can mean, decided in one place; whatever it cannot mean is autograd's.

A kernel reads weights and writes gradients itself. That is what torch does only where calling a layer runs its class's
own ``forward`` (no subclass, no hook, no parametrisation), and where each of its parameters is trained, in one place,
with nobody watching its gradient. Users change all of this while a run goes on, so :class:`Watch` notices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules import module as _torch_module

from optix_core.errors import ConfigError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "relu6": nn.ReLU6,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_silu": nn.Hardswish,
    "hard_tanh": nn.Hardtanh,
    "hard_shrink": nn.Hardshrink,
    "soft_shrink": nn.Softshrink,
    "tanh_shrink": nn.Tanhshrink,
    "log_sigmoid": nn.LogSigmoid,
}
"""Torch's activations by our names; policies in NumPy know them, too (:data:`optix_core.policies.ACTIVATIONS`)."""

_NAMES = {kind: name for name, kind in ACTIVATIONS.items()}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_REQUIRES_GRAD, _TRAINING = attrgetter("requires_grad"), itemgetter("training")
_GRADIENT_HOOKS = attrgetter("_backward_hooks", "_post_accumulate_grad_hooks")
_GLOBAL_HOOKS = [getattr(_torch_module, "_global" + name) for name in _HOOKS]


class DenseLayer(NamedTuple):
    """A linear layer and the name of the activation after it."""

    linear: nn.Linear
    activation: str


def is_plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether calling a module runs the ``forward`` of one of these very classes, and nothing else."""
    own = vars(module)
    return type(module) in kinds and "forward" not in own and not is_hooked(module)


def make_activation(name: str) -> nn.Module:
    """Return a module of an activation.

    Raises:
        ConfigError: torch has none of this name.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"torch has no activation '{name}'. It has: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]()


def is_usual(activation: nn.Module) -> bool:
    """Whether an activation has the constants (slope, limits, exactness) that its name stands for here."""
    usual = vars(type(activation)())
    return all(
        value == usual.get(name)
        for name, value in vars(activation).items()
        if not name.startswith("_") and name not in ("training", "inplace")
    )


def is_hooked(module: nn.Module) -> bool:
    """Whether calling a module, not counting what is inside it, or going back through it also calls a hook."""
    own = vars(module)
    return any(own[name] for name in _HOOKS) or any(_GLOBAL_HOOKS)


def _has_own_parameters(layer: nn.Linear) -> bool:
    """Whether weight and bias are there, and parameters: not computed by a parametrisation."""
    return isinstance(layer.bias, nn.Parameter) and isinstance(layer.weight, nn.Parameter)


def dense_layers(module: nn.Module) -> list[DenseLayer] | None:
    """Return the layers of an ``nn.Sequential`` of linear layers and activations, None if it means anything else."""
    if not isinstance(module, nn.Sequential) or not is_plain(module, nn.Sequential):
        return None
    layers: list[DenseLayer] = []
    for part in module:  # every call of it, where one stands in several places
        if isinstance(part, nn.Linear) and is_plain(part, nn.Linear) and _has_own_parameters(part):
            layers.append(DenseLayer(part, "identity"))
        elif is_plain(part, *_NAMES) and layers and layers[-1].activation == "identity":
            if not is_usual(part):
                return None
            layers[-1] = DenseLayer(layers[-1].linear, _NAMES[type(part)])
        else:
            return None
    return layers or None


def can_write_gradients(parameters: Iterable[Tensor], beside: Iterable[nn.Module]) -> bool:
    """Whether a kernel that writes the gradients of these parameters does what autograd would.

    It does if each of them is trained, stands in one place of all modules that learn together, and has no hook; or if
    none is trained, so that there is nothing to write.

    Args:
        parameters: of the layers that the kernel runs.
        beside: all modules that learn together, these layers' own among them.
    """
    own = list(parameters)
    if not any(parameter.requires_grad for parameter in own):
        return True
    places = Counter(
        id(parameter) for module in beside for _, parameter in module.named_parameters(remove_duplicate=False)
    )
    return all(
        parameter.requires_grad and places[id(parameter)] <= 1 and not has_gradient_hooks(parameter)
        for parameter in own
    ) and len(own) == len(set(map(id, own)))


def has_gradient_hooks(tensor: Tensor) -> bool:
    """Whether somebody watches or changes the gradient of a tensor."""
    return bool(tensor._backward_hooks or tensor._post_accumulate_grad_hooks)


class Watch:
    """Notices what changes the meaning of modules between two looks: hooks, classes, layers, freezing, modes.

    A look costs a few microseconds, because a run takes one with every window and every action.

    Args:
        modules: what to watch, with everything inside them.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._roots = list(modules)
        self._look()

    def has_changed(self) -> bool:
        """Whether anything is another than at the last look; this is the next one."""
        if self._calls() == self._last_calls and self._learning() == self._last_learning:
            return False
        self._look()
        return True

    def calls_differently(self) -> bool:
        """Whether calling the modules means something else than at the last look; it stays that one."""
        return self._calls() != self._last_calls

    def _look(self) -> None:
        self._contents = [vars(part) for part in parts_of(self._roots)]
        self._insides = [own["_modules"] for own in self._contents if own["_modules"]]
        self._owners = [own["_parameters"] for own in self._contents if own["_parameters"]]
        hooks = [own[name] for own in self._contents for name in _HOOKS]
        self._dicts = [*self._contents, *hooks, *_GLOBAL_HOOKS, *self._insides, *self._owners]
        self._parameters = [p for owner in self._owners for p in owner.values() if p is not None]
        self._last_calls, self._last_learning = self._calls(), self._learning()

    def _calls(self) -> tuple[list[object], ...]:
        # A forward of its own, hooks, layers and parametrisations all change the length of some dictionary.
        return list(map(len, self._dicts)), list(chain.from_iterable(map(dict.values, self._insides)))

    def _learning(self) -> tuple[list[object], ...]:
        return (
            list(map(id, chain.from_iterable(map(dict.values, self._owners)))),
            list(map(_REQUIRES_GRAD, self._parameters)),
            list(map(_GRADIENT_HOOKS, self._parameters)),
            list(map(_TRAINING, self._contents)),
        )


def parts_of(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """Yield these modules and everything inside them, each once."""
    seen: set[nn.Module] = set()
    for module in modules:
        for part in module.modules():
            if part not in seen:
                seen.add(part)
                yield part
