"""Prefix -> Snapshot: distributions, editables, loose code and the interpreter, as they are on this machine."""

from likewise.scan.prefix import Scanned, scan_prefix

__all__ = ["Scanned", "scan_prefix"]
