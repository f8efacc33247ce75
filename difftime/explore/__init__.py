"""The explorer: one page that opens offline, in which the tables of a study answer when they are touched."""
