"""Pure values. Nothing in here reads a file, asks the running interpreter or knows a network."""
