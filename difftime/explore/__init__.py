"""The explorer: one page that opens offline, in which the tables of a study answer when they are touched."""

NEEDS = ("summary", "optimum", "tradeoff")
"""The tables without which a data set is not in it."""
WANTS = ("histogram", "modes", "images")
"""The tables of which it shows pictures, where a data set has them."""
