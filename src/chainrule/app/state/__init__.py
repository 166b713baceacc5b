"""What a page shows: its controls, and the address that holds them."""
