"""How a score is trained (Eq. 3): data, networks, optimiser, states to resume from."""
