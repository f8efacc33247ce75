"""How fast difftime is: commands that print tables. `python -m benchmarks` runs them all."""
