"""A client that looks, before it sends work, whether something was installed, and has it brought to the cluster."""

from __future__ import annotations

from typing import Any

from distributed import Client


class SyncingClient(Client):  # type: ignore[misc]
    """The client of a cluster with ``auto_sync=True``.

    Before `submit`, `map`, `compute`, `persist` and `get` (which ``.compute()`` of a collection calls) it looks at the
    site directories, the loose code and the editables. What sync() raises, they raise.
    """

    def _look(self) -> None:
        self.cluster._live.look()

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """As `distributed.Client.submit`."""
        self._look()
        return super().submit(*args, **kwargs)

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """As `distributed.Client.map`."""
        self._look()
        return super().map(*args, **kwargs)

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """As `distributed.Client.compute`."""
        self._look()
        return super().compute(*args, **kwargs)

    def persist(self, *args: Any, **kwargs: Any) -> Any:
        """As `distributed.Client.persist`."""
        self._look()
        return super().persist(*args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """As `distributed.Client.get`."""
        self._look()
        return super().get(*args, **kwargs)
