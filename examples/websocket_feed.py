"""Learning from a WebSocket that drops its connections and repeats itself.

uv run python examples/websocket_feed.py
"""

from __future__ import annotations

import json

import numpy as np
from gymnasium import spaces
from websocket_server import Wave, running

from optix_core import LivePipeline, Reconnect, RLOptimizer, WebSocketSource, make_agent


def main(length: int = 2_000) -> tuple[LivePipeline, Wave]:
    """Foretell a wave; return what became of the items, and who sent them."""
    wave = Wave(length)
    with running(wave) as url:
        source = WebSocketSource(
            url,
            encode=lambda action: json.dumps(float(action[0])),
            observation_space=spaces.Box(-1, 1, (2,), np.float32),
            action_space=spaces.Box(-1, 1, (1,), np.float32),
        )
        pipeline = LivePipeline(
            source,
            episode_boundary_fn=LivePipeline.every_n_steps(50),
            window_size=100,
            reconnect=Reconnect(wait_initial_s=0.05, jitter_s=0.05),
        )
        agent = make_agent("PPO", source, hidden_sizes=(16,))
        RLOptimizer(agent, pipeline).run()
    return pipeline, wave


if __name__ == "__main__":
    pipeline, wave = main()
    print(f"{wave.sent} items sent over {wave.connections} connections: {pipeline.counts.to_dict()}")
