"""Files that say what is installed, or what shall be: read into a Snapshot, and written from a Plan."""
