"""Standard architectures at their standard start, small, each with a task it can learn."""
