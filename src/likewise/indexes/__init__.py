"""Package indexes as pip and uv know them: which are asked, in what order, and with whose credentials."""

from likewise.indexes.find import find_indexes
from likewise.indexes.values import Index, Indexes

__all__ = ["Index", "Indexes", "find_indexes"]
