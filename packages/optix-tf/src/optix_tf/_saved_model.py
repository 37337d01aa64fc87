"""Policies as TensorFlow SavedModels: observations in, greedy actions out."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import numpy as np

from optix_core.data import ObsNormalizer
from optix_core.policies import (
    Bernoulli,
    Bits,
    Categorical,
    DiagonalGaussian,
    Encoder,
    EpsilonGreedy,
    Flatten,
    Head,
    Keep,
    MultiCategorical,
    OneHot,
    SquashedGaussian,
)
from optix_core.policies.heads import MaskableHead
from optix_core.policies.ranges import is_whole
from optix_tf._learned import KerasNetworks
from optix_tf._runtime import tf
from optix_tf.distributions import only_allowed


class SavedModelExport:
    """An agent whose greedy policy can be written as a SavedModel."""

    networks: KerasNetworks
    _behaviour: Any
    _acts_masked: bool
    _encoder: Encoder
    _obs_normalizer: ObsNormalizer | None

    @abstractmethod
    def _frozen_head(self) -> Head:
        """Return the head of policies for others."""

    def export_saved_model(self, path: str | os.PathLike[str]) -> None:
        """Write the greedy policy to this directory as a TensorFlow SavedModel.

        Its signature ``serving_default`` takes ``observation`` ``[N, *obs]`` as the environment gives it (encoding and
        normalisation are in the model) and returns ``action`` ``[N, *act]``. A policy that has acted or learned with
        masks takes ``action_mask`` (bool ``[N, A]``), too.
        """
        encoder, normalizer, head = self._encoder, self._obs_normalizer, self._frozen_head()
        acting = self.networks.acting_part
        network = acting.network
        assert network is not None
        module = tf.Module()
        module.params = [tf.Variable(variable) for variable in acting.variables]

        def act(observation: Any, action_mask: Any = None) -> dict[str, Any]:
            if normalizer is None:
                rows = _encode(encoder, observation)
            else:
                exact = tf.float64 if isinstance(encoder, Flatten) else tf.float32
                scale = 1.0 / np.sqrt(normalizer.stats.var + normalizer.epsilon)
                shifted = tf.cast(_encode(encoder, observation, exact), tf.float64) - normalizer.stats.mean
                rows = tf.cast(shifted, tf.float32) * scale.astype(np.float32)
                rows = tf.clip_by_value(rows, -normalizer.clip, normalizer.clip)
                if isinstance(encoder, Flatten) and encoder.pictures:
                    rows = tf.where(encoder.in_pictures, _encode(encoder, observation), rows)
            rows = tf.cast(rows, self.networks.dtype) if rows.dtype.is_floating else rows
            outputs = network([variable.value() for variable in module.params], rows)
            return {"action": _greedy(head, only_allowed(outputs, action_mask))}

        inputs = [tf.TensorSpec([None, *encoder.shape], encoder.dtype, name="observation")]
        if self._acts_masked and isinstance(head, MaskableHead):
            one = self._behaviour.outputs(np.zeros((1, *encoder.shape), encoder.dtype))
            inputs.append(tf.TensorSpec([None, sum(head.parts(one))], tf.bool, name="action_mask"))
        module.act = tf.function(act, input_signature=inputs, autograph=False)
        tf.saved_model.save(module, os.fspath(path), signatures=module.act)


def _encode(encoder: Encoder, observations: Any, dtype: Any = tf.float32) -> Any:
    if isinstance(encoder, Keep):
        return observations
    rows = tf.reshape(observations, [-1, int(np.prod(encoder.shape, dtype=int))])
    if isinstance(encoder, Bits):
        components, bits = np.array(encoder.places).T
        choices = tf.gather(tf.cast(rows, tf.int64) - np.array(encoder.start), components, axis=1)
        return tf.cast(choices // 2**bits % 2, tf.float32)
    if not isinstance(encoder, OneHot):
        return tf.cast(rows, dtype)
    columns = [
        tf.one_hot(tf.cast(rows[:, i], tf.int64) - low, size)
        for i, (size, low) in enumerate(zip(encoder.nvec, encoder.start, strict=True))
    ]
    return tf.concat(columns, 1)


def _greedy(head: Head, outputs: Any) -> Any:
    if isinstance(head, Categorical | EpsilonGreedy):
        return tf.argmax(outputs, 1) + head.start
    if isinstance(head, MultiCategorical):
        parts = tf.split(outputs, head.nvec, axis=1)
        actions = tf.stack([tf.argmax(part, 1) + low for part, low in zip(parts, head.start, strict=True)], axis=1)
        return tf.reshape(actions, [-1, *head.action_shape])
    if isinstance(head, Bernoulli):
        return tf.reshape(tf.cast(outputs > 0, tf.int8), [-1, *head.shape])
    assert isinstance(head, DiagonalGaussian | SquashedGaussian)
    size = len(head.low)
    mean = outputs if isinstance(head, DiagonalGaussian) else tf.tanh(outputs[:, :size])
    centre, scale = head.affine
    actions = tf.cast(mean, tf.float32) * scale + centre
    if is_whole(head.dtype):
        limits = tf.as_dtype(head.dtype)  # a cast of what lies beyond them gives their ends
        low, high = (np.clip(bound, limits.min, limits.max) for bound in (head.low, head.high))
        actions = tf.saturate_cast(tf.clip_by_value(tf.round(tf.cast(actions, tf.float64)), low, high), head.dtype)
    else:
        actions = tf.clip_by_value(actions, head.low, head.high)
    return tf.reshape(actions, [-1, *head.shape])
