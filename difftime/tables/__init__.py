"""Tables: their columns, how they are written, checked and printed, and what is derived from them."""
