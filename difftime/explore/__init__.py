"""The explorer: one interactive page of the tables of a study, which opens offline."""

NEEDS = ("summary", "optimum", "tradeoff")
"""The tables without which a data set is not in it."""
WANTS = ("histogram", "modes", "images")
"""The tables of which it shows pictures, where a data set has them."""
