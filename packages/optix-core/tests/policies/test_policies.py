import numpy as np
import pytest
from gymnasium import spaces

from optix_core.data import ObsNormalizer
from optix_core.policies import (
    MLP,
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    Flatten,
    Keep,
    MultiCategorical,
    NetworkPolicy,
    OneHot,
    SquashedGaussian,
    encoder_for,
    policy_from_tree,
    policy_tree,
)
from optix_core.policies.heads import head_from_tree


def small_mlp(num_inputs, num_outputs, rng, activation="tanh"):
    return MLP(
        weights=[rng.normal(size=(num_inputs, 5)).astype(np.float32), rng.normal(size=(5, num_outputs)).astype("f4")],
        biases=[rng.normal(size=5).astype(np.float32), rng.normal(size=num_outputs).astype(np.float32)],
        activations=[activation, "identity"],
    )


# ---- networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("tanh", np.tanh),
        ("relu", lambda x: np.where(x > 0, x, 0)),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("elu", lambda x: np.where(x > 0, x, np.exp(x) - 1)),
        ("silu", lambda x: x / (1 + np.exp(-x))),
        ("identity", lambda x: x),
    ],
)
def test_mlp_computes_its_formula_and_leaves_its_input_alone(activation, formula):
    rng = np.random.default_rng(0)
    mlp = small_mlp(3, 2, rng, activation)
    x = rng.normal(size=(7, 3)).astype(np.float32)
    before = x.copy()
    hidden = formula(x.astype(np.float64) @ mlp.weights[0] + mlp.biases[0])
    np.testing.assert_allclose(mlp(x), hidden @ mlp.weights[1] + mlp.biases[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(x, before)


def test_mlp_refuses_layers_that_do_not_fit():
    tree = small_mlp(3, 2, np.random.default_rng(0)).tree()
    tree["1"]["weight"] = np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        MLP.from_tree(tree)


# ---- heads ------------------------------------------------------------------------------------------------------


def test_categorical_samples_with_its_probabilities_and_is_greedy_on_request():
    logits = np.log(np.array([[0.1, 0.6, 0.3]], np.float32)).repeat(20000, axis=0)
    head = Categorical(start=10)
    drawn = head.sample(logits, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn - 10) / 20000, [0.1, 0.6, 0.3], atol=0.015)
    assert (head.greedy(logits) == 11).all()
    np.testing.assert_allclose(np.exp(head.distribution(logits + 7).log_probs[0]), [0.1, 0.6, 0.3], rtol=1e-5)


def test_multi_categorical_draws_each_component_by_itself():
    probs = [np.array([0.8, 0.2]), np.array([0.1, 0.2, 0.7])]
    logits = np.log(np.concatenate(probs)).astype(np.float32)[None].repeat(20000, axis=0)
    head = MultiCategorical(nvec=(2, 3), start=(0, 5))
    drawn = head.sample(logits, np.random.default_rng(0))
    assert drawn.shape == (20000, 2)
    np.testing.assert_allclose(np.bincount(drawn[:, 0]) / 20000, probs[0], atol=0.015)
    np.testing.assert_allclose(np.bincount(drawn[:, 1] - 5) / 20000, probs[1], atol=0.015)
    assert head.greedy(logits[:1]).tolist() == [[0, 7]]
    np.testing.assert_allclose(np.exp(head.distribution(logits[:1]).log_probs[0]), np.concatenate(probs), rtol=1e-5)


def gaussian(**changes):
    options = {
        "low": np.array([-2.0, 0.0, -np.inf], np.float32),
        "high": np.array([2.0, 10.0, np.inf], np.float32),
        "shape": (3,),
        "log_std": np.log(np.array([0.5, 0.1, 2.0], np.float32)),
    }
    return DiagonalGaussian(**options | changes)


def test_gaussian_outputs_of_one_reach_the_ends_of_the_range():
    head = gaussian()
    np.testing.assert_allclose(head.greedy(np.ones((1, 3), np.float32)), [[2.0, 10.0, 1.0]])
    np.testing.assert_allclose(head.greedy(-np.ones((1, 3), np.float32)), [[-2.0, 0.0, -1.0]])


def test_gaussian_draws_with_its_spread_in_units_of_the_range_and_clips_only_when_told():
    mean = np.full((20000, 3), 0.2, np.float32)
    drawn = gaussian(clip=False).sample(mean, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(0), [0.4, 6.0, 0.2], atol=0.06)
    np.testing.assert_allclose(drawn.std(0), [1.0, 0.5, 2.0], rtol=0.03)
    assert drawn[:, 0].max() > 2.0
    clipped = gaussian().sample(mean, np.random.default_rng(0))
    np.testing.assert_array_equal(clipped, np.clip(drawn, gaussian().low, gaussian().high))
    described = gaussian().distribution(mean[:1])
    np.testing.assert_allclose(described.mean, [[0.4, 6.0, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(described.std, [[1.0, 0.5, 2.0]], rtol=1e-6)


def test_squashed_gaussian_covers_the_range_and_never_leaves_it():
    head = SquashedGaussian(low=np.array([-2.0, 10.0], "f4"), high=np.array([2.0, 10.3], "f4"), shape=(2, 1))
    outputs = np.array([[0.3, -0.2, np.log(0.5), np.log(0.1)]], np.float32)
    centre, scale = np.array([0.0, 10.15]), np.array([2.0, 0.15])
    np.testing.assert_allclose(head.greedy(outputs)[0, :, 0], centre + scale * np.tanh([0.3, -0.2]), rtol=1e-5)
    drawn = head.sample(outputs.repeat(20000, axis=0), np.random.default_rng(0))
    assert drawn.shape == (20000, 2, 1)
    before_tanh = np.arctanh((drawn[:, :, 0] - centre) / scale)
    np.testing.assert_allclose(before_tanh.mean(0), [0.3, -0.2], atol=0.02)
    np.testing.assert_allclose(before_tanh.std(0), [0.5, 0.1], rtol=0.03)
    described = head.distribution(outputs)
    np.testing.assert_allclose(described.mean, [centre + scale * [0.3, -0.2]], rtol=1e-5)
    np.testing.assert_allclose(described.std, [scale * [0.5, 0.1]], rtol=1e-5)
    wild = np.array([[50.0, -50.0, 1e4, 1e4]], np.float32).repeat(1000, axis=0)
    for actions in (head.sample(wild, np.random.default_rng(0)), head.greedy(wild)):
        assert np.isfinite(actions).all()
        assert ((actions[:, :, 0] >= head.low) & (actions[:, :, 0] <= head.high)).all()


# ---- encoders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "kind", "encoded_shape"),
    [
        (spaces.Box(-1, 1, (4,)), Flatten, (4,)),
        (spaces.Box(-1, 1, (2, 3), np.float64), Flatten, (6,)),
        (spaces.Box(-1, 1, ()), Flatten, (1,)),
        (spaces.MultiBinary(5), Flatten, (5,)),
        (spaces.Discrete(7, start=-3), OneHot, (7,)),
        (spaces.MultiDiscrete([2, 3], start=[0, 4]), OneHot, (5,)),
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), Keep, (84, 84, 3)),
        (spaces.Box(0, 255, (10,), np.uint8), Flatten, (10,)),
    ],
)
def test_every_space_has_an_encoder_whose_output_has_the_promised_shape(space, kind, encoded_shape):
    encoder = encoder_for(space)
    assert type(encoder) is kind
    space.seed(0)
    batch = np.stack([space.sample() for _ in range(6)])
    encoded = encoder(batch)
    assert encoded.shape == (6, *encoded_shape)
    assert encoder.encoded_shape == encoded_shape
    if kind is not Keep:
        assert encoded.dtype == np.float32


def test_one_hot_marks_the_right_places():
    encoder = encoder_for(spaces.MultiDiscrete([2, 3], start=[0, 4]))
    assert encoder(np.array([[1, 4], [0, 6]])).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]


def test_a_space_without_array_form_is_refused_with_advice():
    with pytest.raises(ValueError, match="Text is not supported: wrap the environment"):
        encoder_for(spaces.Text(3))
    with pytest.raises(ValueError, match="Dict is not supported: wrap the environment"):
        encoder_for(spaces.Dict({"words": spaces.Sequence(spaces.Discrete(3))}))


def test_parts_are_expected_flat():
    parts = {"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2, 2), np.float32)}
    assert encoder_for(spaces.Dict(parts)).shape == (7,)
    assert encoder_for(spaces.Tuple(parts.values())).shape == (7,)


# ---- whole policies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "head", "outputs"),
    [
        (spaces.Box(-1, 1, (3,)), Categorical(start=1), 4),
        (spaces.Discrete(6), MultiCategorical(nvec=(2, 2), start=(0, 0)), 4),
        (spaces.Box(-1, 1, (2, 2)), gaussian(), 3),
        (spaces.Box(-1, 1, (2,)), SquashedGaussian(low=np.zeros(2, "f4"), high=np.ones(2, "f4"), shape=(2,)), 4),
    ],
)
@pytest.mark.parametrize("mode", ["greedy", "sample"])
def test_a_policy_acts_the_same_after_export_and_import(space, head, outputs, mode):
    rng = np.random.default_rng(0)
    encoder = encoder_for(space)
    mlp = small_mlp(encoder.encoded_shape[0], outputs, rng)
    normalizer = ObsNormalizer(encoder.encoded_shape)
    normalizer.update(rng.normal(3.0, 2.0, size=(100, *encoder.encoded_shape)))
    policy = NetworkPolicy(
        encoder=encoder, network=mlp, head=head, normalizer=normalizer, mode=mode, rng=np.random.default_rng(9)
    )
    restored = policy_from_tree(policy_tree(encoder, mlp, head, normalizer), mode=mode, seed=9)
    space.seed(0)
    observations = np.stack([space.sample() for _ in range(50)])
    actions = policy.act(observations)
    np.testing.assert_array_equal(restored.act(observations), actions)
    if mode == "sample":
        assert (restored.act(observations) != actions).any()


def test_an_exported_policy_is_a_copy():
    rng = np.random.default_rng(0)
    mlp = small_mlp(3, 2, rng)
    tree = policy_tree(Flatten(shape=(3,)), mlp, Categorical(), None)
    before = policy_from_tree(tree).outputs(np.ones((1, 3), np.float32))
    for weight in mlp.weights:
        weight *= -1
    np.testing.assert_array_equal(policy_from_tree(tree).outputs(np.ones((1, 3), np.float32)), before)


def test_a_policy_of_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="update optix-core"):
        policy_from_tree({"format": 99})


def test_epsilon_greedy_explores_as_often_as_it_says_and_evenly():
    head = EpsilonGreedy(epsilon=0.4, start=3)
    values = np.tile([0.0, 2.0, 1.0, -1.0], (40_000, 1))
    actions = head.sample(values, np.random.default_rng(0))
    shares = np.bincount(actions, minlength=7)[3:] / len(actions)
    np.testing.assert_allclose(shares, [0.1, 0.7, 0.1, 0.1], atol=0.01)
    np.testing.assert_allclose(np.exp(head.distribution(values[:1]).log_probs), [[0.1, 0.7, 0.1, 0.1]], rtol=1e-6)
    assert (head.greedy(values) == 4).all()
    never = EpsilonGreedy(epsilon=0.0)
    assert (never.sample(values, np.random.default_rng(0)) == 1).all()
    assert never.distribution(values[:1]).log_probs.tolist() == [[-np.inf, 0.0, -np.inf, -np.inf]]


def test_values_of_distributional_outputs_are_expectations_over_the_atoms():
    rng = np.random.default_rng(0)
    logits, support = rng.normal(0, 30, (50, 3, 5)).astype(np.float32), np.linspace(-2, 2, 5, dtype=np.float32)
    head = EpsilonGreedy(epsilon=0.5, support=support)
    weights = np.exp(logits.astype(np.float64) - logits.max(2, keepdims=True))
    expected = (weights / weights.sum(2, keepdims=True) * support).sum(2)
    outputs = logits.reshape(50, -1)
    np.testing.assert_allclose(head.values(outputs), expected, rtol=1e-4, atol=1e-5)
    assert set(head.sample(np.repeat(outputs, 20, axis=0), rng)) == {0, 1, 2}
    again = head_from_tree(head.tree())
    np.testing.assert_array_equal(again.values(outputs), head.values(outputs))
