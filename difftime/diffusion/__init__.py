"""The forward diffusion, its exact densities, scores, and where the reverse process starts (Eqs. 1, 2, 8)."""
