"""Which T: the optimum with its interval, predictions, and cost against quality."""
