"""Networks for pictures among other parts of an observation: convolutions see them, dense layers join the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from optix_core.policies import Flatten
from optix_torch.networks import build_cnn, build_mlp


def build_joined(
    encoder: Flatten,
    num_outputs: int,
    *,
    hidden_sizes: Sequence[int],
    activation: str,
    output_gain: float,
    generator: torch.Generator,
    num_more: int = 0,
) -> nn.Sequential:
    """Build convolutions for the pictures of flat rows, and dense layers over what they see and all other numbers.

    Args:
        encoder: makes the rows ``[B, D]``.
        num_outputs: width of the last layer.
        hidden_sizes: of the dense layers; the first is also what is kept of each picture (256 without any).
        activation: of the dense layers.
        output_gain: of the last layer.
        generator: draws the weights.
        num_more: how many numbers follow each row: actions, for a critic.
    """
    num_features = hidden_sizes[0] if hidden_sizes else 256
    see = [
        nn.Sequential(build_cnn(shape, num_features, output_gain=math.sqrt(2), generator=generator), nn.ReLU())
        for _, shape in encoder.pictures
    ]
    width = num_features * len(see) + int((~encoder.in_pictures).sum()) + num_more
    dense = build_mlp(
        width,
        num_outputs,
        hidden_sizes=hidden_sizes,
        activation=activation,
        output_gain=output_gain,
        generator=generator,
    )
    return nn.Sequential(Pictures(see, encoder.pictures), *dense)


class Pictures(nn.Module):
    """Rows in which pictures lie, to rows in which features of theirs stand first and all other numbers follow.

    Args:
        see: module for each picture, from ``[B, *shape]`` to features ``[B, F]``.
        places: where each picture begins in a row, and its shape.
    """

    never_modal = True

    def __init__(self, see: Sequence[nn.Module], places: Sequence[tuple[int, tuple[int, ...]]]) -> None:
        super().__init__()
        self.see = nn.ModuleList(see)
        self.places = tuple(places)

    def spans(self, width: int) -> list[tuple[int, int]]:
        """Return where the other numbers of a row of this width begin and end, between the pictures."""
        ends = [begin + math.prod(shape) for begin, shape in self.places]
        borders = zip([0, *ends], [*(begin for begin, _ in self.places), width], strict=True)
        return [(low, high) for low, high in borders if low < high]

    def forward(self, rows: Tensor) -> Tensor:
        """Return ``[B, num_pictures * F + others]`` for ``[B, D]``, or for wider rows, whose further numbers stay."""
        seen = [
            see(rows[:, begin : begin + math.prod(shape)].reshape(-1, *shape))
            for see, (begin, shape) in zip(self.see, self.places, strict=True)
        ]
        return torch.cat([*seen, *(rows[:, low:high] for low, high in self.spans(rows.shape[1]))], 1)
