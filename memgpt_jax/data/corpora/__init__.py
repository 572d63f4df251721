"""Real documents: where they come from, how they are read, and their tokens on disk."""
