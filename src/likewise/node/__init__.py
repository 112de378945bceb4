"""What runs on the machines: bootstrap, materialise, verify. Imports nothing heavier than msgspec and zstd."""
