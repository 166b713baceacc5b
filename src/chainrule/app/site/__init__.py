"""The pages themselves, and the scripts and styles that they load."""
