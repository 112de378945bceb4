"""What the tests share: real prefixes, real wheels, masked folders."""
