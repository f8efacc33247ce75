"""Files, progress and random streams."""
