"""How likely SGD and Adam are to train a network: features, a fitted model, its constants."""
