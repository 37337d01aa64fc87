"""What the entry point returns; written for optix-protocol 1.0 and not to be changed."""

from optix_protocol import AlgorithmInfo


class PlainBackend:
    name = "plain"
    protocol_version = "1.0"
    conformance_exemptions = {  # noqa: RUF012
        "reinforce": dict.fromkeys(
            ("truncation_is_not_termination", "truncation_uses_final_observation", "window_end_bootstraps"),
            "no value function: Monte Carlo returns only",
        )
    }

    def algorithms(self):
        info = AlgorithmInfo(
            name="reinforce",
            description="Monte Carlo policy gradient with linear features",
            action_kinds=frozenset({"discrete"}),
            on_policy=True,
            default_hyperparams={"learning_rate": 0.2, "gamma": 0.99},
        )
        return {info.name: info}

    def make_agent(self, algorithm, *, observation_space, action_space, seed, device="cpu", hyperparams=None):
        from optix_plain.agent import PlainAgent

        if algorithm not in self.algorithms():
            raise ValueError(f"unknown algorithm {algorithm!r}; known is reinforce.")
        if getattr(action_space, "start", 0) != 0 or not hasattr(action_space, "n") or action_space.shape != ():
            raise ValueError(f"reinforce needs a Discrete action space that starts at 0, not {action_space}.")
        if len(observation_space.shape) != 1:
            raise ValueError(f"reinforce needs vector observations, not {observation_space}.")
        return PlainAgent(observation_space.shape[0], int(action_space.n), seed=seed, hyperparams=hyperparams)


def create():
    return PlainBackend()
