"""What can be asked of the server: pages, and the routes that their scripts call."""
