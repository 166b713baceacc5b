"""Work that takes long: one bounded queue for all of it, given up when nobody waits."""
