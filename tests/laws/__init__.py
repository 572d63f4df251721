"""Laws that every mechanism and model obeys, as functions."""
