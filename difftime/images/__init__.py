"""Images of 8 bits: how they are read, and how they become densities."""
