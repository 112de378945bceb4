"""Which files of which versions make an environment on a target, by uv's resolver."""
