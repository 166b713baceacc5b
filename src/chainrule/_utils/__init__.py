"""Small helpers that know nothing of networks: numbers as text, whole files, the version."""
