"""The bytecode of an environment: what the store has of it, and what has to be made.

Making it is begun as soon as the first layers are known, since it is most of what a first launch computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from likewise.forms import in_any_form
from likewise.layers.bytecode import Bytecode, Compilation
from likewise.model.digest import EMPTY, Digest
from likewise.model.keys import note_key
from likewise.model.layer import LayerSource
from likewise.model.snapshot import Interpreter
from likewise.settings import Settings
from likewise.stages import Stages, counted
from likewise.store.local import LocalStore

_NO_BYTECODE = b"none"  # what the store remembers of a layer that has nothing to compile


class Compiling:
    """Finds or makes the bytecode layers of one environment.

    Parameters
    ----------
    settings : Settings
    store : LocalStore
        Where bytecode is, and where it is noted which layer's it is.
    """

    def __init__(self, settings: Settings, store: LocalStore) -> None:
        self._settings, self._store = settings, store
        self._known: dict[Digest, Digest | None] = {}
        self._compilation: Compilation | None = None

    def expect(self, interpreter: Interpreter, site: str) -> None:
        """Begin with the modules in the site directory `site`, on the first launch with this Python.

        Its files are most of what will be needed, and a processor would have nothing to do while they are listed.

        Raises
        ------
        LayerError
            When there is no room.
        """
        notes = self._store.path(_key(interpreter, EMPTY)).parents[1]
        if self._settings.jobs > 1 and not notes.exists():
            self._begun(interpreter).expect(site)

    def begin(self, interpreter: Interpreter, layers: Sequence[LayerSource]) -> None:
        """Have what is missing of `layers` made, and don't wait for it. Others may follow.

        Raises
        ------
        LayerError
            When there is no room.
        """
        missing = self._missing(interpreter, layers)
        if missing:
            self._begun(interpreter).begin(missing)

    def finish(
        self, interpreter: Interpreter, layers: Sequence[LayerSource], stages: Stages
    ) -> tuple[dict[Digest, Digest], list[LayerSource]]:
        """The bytecode layer of each of `layers` (by digest), and those that had to be made now.

        Raises
        ------
        LayerError
            See `likewise.layers.bytecode.Compilation`.
        """
        with stages.stage("bytecode", unit="files") as stage:
            self._known = self._there(self._known)  # something may have gone since
            missing = self._missing(interpreter, layers)
            made = self._begun(interpreter).finish(missing, stage.advance) if missing else Bytecode({}, 0, 0)
            for layer in missing:
                self._note(interpreter, layer, made.layers.get(layer.digest))
            stage.did(compiled=len(missing), taken=made.taken, modules=made.taken + made.compiled)
            stage.summary = (
                f"{counted(made.compiled, 'module')} compiled, {made.taken} taken from the prefix, "
                f"{counted(len(layers) - len(missing), 'layer')} unchanged"
            )
        found = ((layer.digest, self._known[layer.digest]) for layer in layers)
        return {digest: bytecode for digest, bytecode in found if bytecode}, list(made.layers.values())

    def close(self) -> None:
        """Stop, and delete what was not finished. May be called more than once."""
        if self._compilation is not None:
            self._compilation.close()

    def __enter__(self) -> Compiling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begun(self, interpreter: Interpreter) -> Compilation:
        if self._compilation is None:
            settings = self._settings
            self._compilation = Compilation(python=interpreter.executable, work=settings.work, jobs=settings.jobs)
        return self._compilation

    def _missing(self, interpreter: Interpreter, layers: Sequence[LayerSource]) -> list[LayerSource]:
        notes = {
            layer.digest: self._store.get_bytes(_key(interpreter, layer.digest))
            for layer in layers
            if layer.digest not in self._known
        }
        self._known |= self._there(
            {layer: None if note == _NO_BYTECODE else Digest(note.decode()) for layer, note in notes.items() if note}
        )
        return _with_shared([layer for layer in layers if layer.digest not in self._known], layers)

    def _there(self, known: Mapping[Digest, Digest | None]) -> dict[Digest, Digest | None]:
        """What of `known` the store has; there is nothing to have of a layer without bytecode."""
        here = in_any_form(self._store, filter(None, known.values()))
        return {layer: made for layer, made in known.items() if made is None or made in here}

    def _note(self, interpreter: Interpreter, layer: LayerSource, made: LayerSource | None) -> None:
        self._known[layer.digest] = made.digest if made else None
        note = made.digest.encode() if made else _NO_BYTECODE
        self._store.put_bytes(_key(interpreter, layer.digest), note, replace=True)


def _key(interpreter: Interpreter, layer: Digest) -> str:
    return note_key(f"bytecode-{interpreter.cache_tag}-{interpreter.magic}", layer)


def _with_shared(missing: Sequence[LayerSource], layers: Iterable[LayerSource]) -> list[LayerSource]:
    """`missing`, and what owns a path together with any of it.

    Some Pythons (3.10, 3.13) compile to other bytes in another run; one path must have the same in both layers.
    """
    if not missing:
        return []
    digests = {layer.digest for layer in missing}
    paths = {file.entry.path for layer in missing for file in layer.files if file.entry.path.endswith(".py")}
    return [la for la in layers if la.digest in digests or any(f.entry.path in paths for f in la.files)]
