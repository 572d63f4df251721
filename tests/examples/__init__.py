"""Examples of the documentation, as a user would write them."""
