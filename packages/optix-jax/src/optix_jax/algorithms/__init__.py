"""One file per algorithm, each readable from top to bottom."""
