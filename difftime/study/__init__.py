"""A study: its settings, its cells and what is done to one, the code's fingerprint, runs and devices."""
