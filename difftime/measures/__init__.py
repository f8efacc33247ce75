"""What is computed from a score (Eqs. 4 to 11): ELBO, likelihood, samples and their quality."""
