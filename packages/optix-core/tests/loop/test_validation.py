"""Validation: only when it is due, and never for more than its share of the steps."""

from types import SimpleNamespace

from optix_core.loop.validation import MAX_VALIDATION_WINDOWS, Validation


class Windows:
    """Windows of so many steps; an episode ends in every ``every``-th one, never with None."""

    def __init__(self, num_env_steps, every=1):
        self.taken, self.num_env_steps, self.every = 0, num_env_steps, every

    def windows(self):
        while True:
            self.taken += 1
            yield SimpleNamespace(num_env_steps=self.num_env_steps, number=self.taken)

    def score(self, window, _diagnostics):
        return window if self.every and window.number % self.every == 0 else None


def measure(validation, source, trained, interval=1, said=None):
    said = [] if said is None else said
    return validation.measure(trained_env_steps=trained, interval=interval, evaluator=source, on_failure=said.append)


def test_it_stays_within_a_tenth_of_the_training_steps():
    source = Windows(60, every=2)
    validation = Validation(pipeline=source)
    for window in range(1, 201):
        measure(validation, source, trained=100 * window)
        assert validation.num_env_steps <= max(120, 0.1 * 100 * window)
    assert 0.05 * 20_000 < validation.num_env_steps <= 0.1 * 20_000


def test_it_waits_for_the_interval_and_for_the_end_of_an_episode():
    source = Windows(1, every=3)
    validation = Validation(pipeline=source)
    found = [measure(validation, source, trained=10_000, interval=4) for _ in range(8)]
    assert [metrics is not None for metrics in found] == 2 * [False, False, False, True]
    assert source.taken == 6


def test_windows_without_an_end_are_given_up_and_reported():
    source, said = Windows(1, every=0), []
    validation = Validation(pipeline=source)
    assert measure(validation, source, trained=1000, said=said) is None
    assert len(said) == 1 and source.taken == MAX_VALIDATION_WINDOWS == validation.num_env_steps


def test_restored_counters_go_on_alike():
    source = Windows(30)
    first, second = Validation(pipeline=source), Validation(pipeline=source)
    for window in range(1, 30):
        measure(first, source, trained=50 * window, interval=3)
    second.restore_counters(first.counters())
    for window in range(30, 60):
        assert (measure(first, source, 50 * window, 3) is None) == (measure(second, source, 50 * window, 3) is None)
