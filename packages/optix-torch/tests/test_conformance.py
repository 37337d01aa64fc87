"""The agents keep the contract of optix-protocol."""

from optix_protocol.conformance import check_backend
from optix_torch.backend import TorchBackend


class SmallNetworks(TorchBackend):
    """The backend with networks that learn in seconds; everything else as users get it."""

    def make_agent(self, algorithm, *, hyperparams=None, **options):
        small = {"hidden_sizes": [16, 16]} if algorithm in ("sac", "td3") else {}
        return super().make_agent(algorithm, hyperparams=small | dict(hyperparams or {}), **options)


def test_every_algorithm_keeps_the_contract_on_every_kind_of_action():
    check_backend(SmallNetworks()).raise_if_not_ok()
