"""A measurement in words: cards, tables, the terminal, and files to save."""
