"""What the server answers about a flow or a training, ready to be drawn."""
