"""For our tests and other people's: environments whose solution is known."""
