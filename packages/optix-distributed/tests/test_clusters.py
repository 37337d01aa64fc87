"""Actors on a Ray cluster, where Ray is installed: training, lost machines, clusters that do not answer."""

import importlib.util
import time
from functools import partial

import numpy as np
import pytest

from optix_core import ConfigError, EnvSpec, MissingExtraError
from optix_distributed import ActorPipeline, AsyncActorLearner
from optix_distributed.codec import decode
from optix_distributed.local.setup import pack_env
from optix_distributed.node_pool import NodePool
from optix_distributed.transport import ActorJob
from optix_distributed.weights import Layout

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: optix-distributed[ray]"
)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_says_what_to_install(agent):
    with pytest.raises(MissingExtraError, match=r"pip install 'optix-distributed\[ray\]'"):
        AsyncActorLearner(agent, "CartPole-v1", transport="ray").run(1_000)


def test_the_pool_of_a_machine(agent, awkward):
    policy = agent.host_policy()
    job = ActorJob(env=EnvSpec(), policy=policy, n_envs=2, trajectory_len=10, max_message_bytes=100_000)
    pool = NodePool(job, pack_env(EnvSpec.of(awkward)), n_actors=2, first_actor=4, most=3)
    weights = np.frombuffer(bytes(Layout.of(policy).pack(policy)), np.uint8)
    try:
        taken = []
        while {origin.actor for _, origin in taken} != {4, 5}:
            reply = pool.pull(weights, number=1, policy_version=7, hyperparam_version=1, epoch=0, wait_s=1.0)
            assert not reply.error and len(reply.messages) <= 3
            taken += [decode(memoryview(message)) for message in reply.messages]
        assert all(window.policy_version == 7 and window.rewards.shape == (10, 2) for window, _ in taken)
        assert [actor.actor for actor in reply.health] == [4, 5]
    finally:
        pool.close()


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.other = cluster.add_node(num_cpus=1)
    yield cluster
    import ray

    ray.shutdown()
    cluster.shutdown()


@needs_ray
@pytest.mark.slow
def test_learning_on_a_cluster(agent, cluster):
    learner = AsyncActorLearner(agent, "CartPole-v1", n_actors=2, envs_per_actor=4, transport="ray")
    stats = learner.run(20_000, confirm_episodes=5)
    assert stats["env_steps"] > 19_000
    assert stats["restarts"] == 0, stats["actors"]
    assert stats["confirmed_return"]["mean"] > 40


@needs_ray
@pytest.mark.slow
def test_training_on_two_machines_one_of_which_is_lost(agent, awkward, cluster):
    from optix_distributed.ray_transport import RayTransport

    transport = RayTransport(2)
    pipeline = ActorPipeline(
        partial(awkward, sleep_s=0.001), transport, agent, trajectory_len=20, trajectories_per_window=1
    )
    try:
        end = time.monotonic() + 60
        while not all(actor.env_steps for actor in transport.health()) or not transport.health():
            pipeline.collect()
            assert time.monotonic() < end
        import ray

        assert sum(node["Alive"] for node in ray.nodes()) == 2, "Ray has given up a node that nobody has taken away"
        cluster.remove_node(cluster.other, allow_graceful=False)
        began, longest = time.monotonic(), 0.0
        while not any(
            actor.incarnation and actor.env_steps and actor.state != "starting" for actor in transport.health()
        ):
            before = time.monotonic()
            pipeline.collect()
            longest = max(longest, time.monotonic() - before)
            assert time.monotonic() - began < 60
        print(f"\nlongest wait {longest:.1f} s, back elsewhere after {time.monotonic() - began:.1f} s")
    finally:
        pipeline.close()


@needs_ray
@pytest.mark.slow
def test_a_pool_that_is_killed_comes_back(agent, awkward, cluster):
    import ray

    from optix_distributed.ray_transport import RayTransport

    transport = RayTransport(1)
    pipeline = ActorPipeline(awkward, transport, agent, trajectory_len=20)
    try:
        pipeline.collect()
        ray.kill(transport._machines[0].handle, no_restart=False)
        began = time.monotonic()
        while not transport.health()[0].incarnation:
            pipeline.collect()
            assert time.monotonic() - began < 60
        pipeline.collect()
        assert transport.health()[0].failures
    finally:
        pipeline.close()


@needs_ray
def test_a_cluster_that_does_not_answer(agent):
    began = time.monotonic()
    for address, told in (("127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1"), ("nowhere", "is no address")):
        with pytest.raises(ConfigError, match=told) as caught:
            AsyncActorLearner(agent, "CartPole-v1", transport="ray", address=address).run(1_000)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 10
