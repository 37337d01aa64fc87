"""Agents that break exactly one rule each: what they do with hyperparameters and weight files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from optix_protocol import HyperparamSet
from optix_protocol.conformance.reference import ReferenceAgent

from .registry import breaks

# --- hyperparameters --------------------------------------------------------------------------------------------------


@breaks("hyperparams_are_plain")
class ReturnsNumPyScalars(ReferenceAgent):
    def get_hyperparams(self):
        return HyperparamSet(params={name: np.float32(value) for name, value in self._hyperparams.items()})


@breaks("hyperparams_are_plain")
class ReturnsADict(ReferenceAgent):
    def get_hyperparams(self):
        return dict(self._hyperparams)


@breaks("hyperparams_round_trip")
class ReturnsTheDefaults(ReferenceAgent):
    def get_hyperparams(self):
        return HyperparamSet(params={"learning_rate": 0.1, "gamma": 0.99, "gae_lambda": 0.95})


@breaks("hyperparams_missing_keep")
class ResetsWhatIsMissing(ReferenceAgent):
    def set_hyperparams(self, hyperparams):
        reset = {"gamma": 0.5} if hyperparams.params else {}
        super().set_hyperparams(HyperparamSet(params={**reset, **hyperparams.params}))


@breaks("hyperparams_unknown_refused")
class RaisesKeyError(ReferenceAgent):
    def set_hyperparams(self, hyperparams):
        for name in hyperparams.params:
            self._hyperparams[name]
        super().set_hyperparams(hyperparams)


@breaks("hyperparams_unknown_refused")
class IgnoresUnknownNames(ReferenceAgent):
    def set_hyperparams(self, hyperparams):
        known = {name: value for name, value in hyperparams.params.items() if name in self._hyperparams}
        super().set_hyperparams(HyperparamSet(params=known))


@breaks("hyperparams_unknown_refused")
class RefusesHalfWay(ReferenceAgent):
    def set_hyperparams(self, hyperparams):
        for name, value in hyperparams.params.items():
            super().set_hyperparams(HyperparamSet(params={name: value}))


@breaks("hyperparams_are_copies")
class HandsOutItsDict(ReferenceAgent):
    def get_hyperparams(self):
        return HyperparamSet(params=self._hyperparams)


@breaks("hyperparams_accept_numpy_scalars")
class StoresWhatItIsGiven(ReferenceAgent):
    def set_hyperparams(self, hyperparams):
        super().set_hyperparams(hyperparams)
        self._hyperparams |= hyperparams.params


@breaks("hyperparams_take_effect")
class FixesItsLearningRate(ReferenceAgent):
    def learn(self, episode_data):
        kept = self._hyperparams
        self._hyperparams = {**kept, "learning_rate": 0.1}
        diagnostics = super().learn(episode_data)
        self._hyperparams = kept
        return diagnostics


# --- weights ----------------------------------------------------------------------------------------------------------


@breaks("save_writes_exact_path")
class AppendsASuffix(ReferenceAgent):
    def save_weights(self, path):
        np.savez(path, **self._weights)


@breaks("save_writes_exact_path")
class LeavesASecondFile(ReferenceAgent):
    def save_weights(self, path):
        super().save_weights(path)
        Path(f"{path}.json").write_text("{}")


@breaks("save_is_no_pickle")
class Pickles(ReferenceAgent):
    def save_weights(self, path):
        Path(path).write_bytes(pickle.dumps(self._weights))

    def load_weights(self, path):
        self._weights = pickle.loads(Path(path).read_bytes())


@breaks("save_is_no_pickle")
class SavesAnObjectArray(ReferenceAgent):
    def save_weights(self, path):
        with open(path, "wb") as file:
            np.savez(file, everything=np.array(self._weights, dtype=object))


@breaks("save_keeps_agent")
class RoundsWhenSaving(ReferenceAgent):
    def save_weights(self, path):
        super().save_weights(path)
        self._weights = {name: array.astype(np.float16).astype(float) for name, array in self._weights.items()}


@breaks("load_restores")
class ForgetsTheNormaliser(ReferenceAgent):
    def load_weights(self, path):
        mean, var = self._weights["mean"], self._weights["var"]
        super().load_weights(path)
        self._weights |= {"mean": mean, "var": var}


@breaks("load_restores")
class LoadsNothing(ReferenceAgent):
    def load_weights(self, path):
        kept = self._weights
        super().load_weights(path)
        self._weights = kept


@breaks("load_refuses_damage")
class LoadsAnything(ReferenceAgent):
    def load_weights(self, path):
        try:
            super().load_weights(path)
        except ValueError:
            return


@breaks("load_refuses_damage")
class LetsTheLibraryRaise(ReferenceAgent):
    def load_weights(self, path):
        try:
            super().load_weights(path)
        except ValueError as error:
            raise RuntimeError("bad magic number") from error


@breaks("load_refuses_damage")
class LoadsHalfOfADamagedFile(ReferenceAgent):
    def load_weights(self, path):
        try:
            super().load_weights(path)
        except ValueError:
            self._weights["actor"] = np.zeros_like(self._weights["actor"])
            raise


@breaks("load_refuses_other_network")
class LoadsAnyShape(ReferenceAgent):
    def load_weights(self, path):
        with np.load(path) as archive:
            self._weights = {name: archive[name] for name in self._weights}
