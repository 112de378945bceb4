"""What a manifest asks a node to lay out. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from likewise.model.digest import Digest
from likewise.model.manifest import LayerRef


class Part(msgspec.Struct, frozen=True):
    """A layer to lay out: that of `ref`, or its bytecode."""

    ref: LayerRef
    digest: Digest

    @property
    def is_bytecode(self) -> bool:
        """Which of the two."""
        return self.digest == self.ref.bytecode


def parts_of(refs: Iterable[LayerRef]) -> list[Part]:
    """The layers and their bytecode, each once."""
    refs = list(refs)
    parts = {ref.digest: Part(ref, ref.digest) for ref in refs}
    parts.update({ref.bytecode: Part(ref, ref.bytecode) for ref in refs if ref.bytecode})
    return list(parts.values())
