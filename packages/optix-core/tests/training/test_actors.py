"""What a plan keeps of its actors, and what it takes from a file."""

import pytest

from optix_core import ConfigError, MissingExtraError
from optix_core.training import actors
from optix_core.training.actors import ActorOptions


def test_an_address_is_not_kept():
    options = ActorOptions.asked(transport=None, n_actors=3, address="10.0.0.1:6379")
    assert options.transport == "ray"
    assert ActorOptions.of(options.to_dict()) == ActorOptions(transport="ray", n_actors=3)


@pytest.mark.parametrize(
    "values",
    [
        {"transport": "ray", "address": "evil:1"}, {"transport": 3}, {"n_actors": 0}, {"n_actors": 10**9},
        {"n_actors": "2"}, [], {"more": 1},
    ],
)  # fmt: skip
def test_damaged_files_are_refused(values):
    with pytest.raises(ConfigError):
        ActorOptions.of(values)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(actors, "entry_points", lambda group: [])
    with pytest.raises(MissingExtraError, match="pip install optix-distributed"):
        ActorOptions.asked(transport=None, n_actors=2, address=None).make_pipeline(None, None)


def test_who_names_a_number_wants_processes():
    assert ActorOptions.asked(transport=None, n_actors=None, address=None).transport is None
    assert ActorOptions.asked(transport=None, n_actors=4, address=None).transport == "local"
