"""A training run: sampled while it trains, kept in one file, with alarms in words."""
