"""Work that takes long: measured once, one after another, given up when nobody waits."""
