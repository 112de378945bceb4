"""The layers of one environment on their way into the store: which are missing, where they come from, who is first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from likewise.errors import LikewiseError
from likewise.events import Notice
from likewise.forms import Form, source_in_store
from likewise.model.digest import Digest
from likewise.model.layer import LayerKind, LayerSource
from likewise.model.manifest import Manifest
from likewise.packing import Last, Packing
from likewise.settings import Settings
from likewise.stages import Stages, counted
from likewise.store.local import LocalStore


class Later:
    """The layers that nodes fetch by themselves: one is put into the store when somebody asks for it all the same.

    Parameters
    ----------
    makers : mapping of Digest to callable
        What makes each of them, with its files. It may take long, and raises LikewiseError.
    form : Form
        How the store is to hold them.
    store : LocalStore
    notify : callable
        Called with a `Notice` for each layer that can't be had.
    """

    def __init__(
        self,
        makers: Mapping[Digest, Callable[[], LayerSource]],
        form: Form,
        store: LocalStore,
        notify: Callable[[Notice], None],
    ) -> None:
        self._makers, self._form, self._store, self._notify = dict(makers), form, store, notify
        self._locks = {digest: threading.Lock() for digest in makers}

    def bring(self, digest: Digest) -> None:
        """See to it that the layer is in the store, if it is one of these. May be called from any thread.

        Raises
        ------
        LikewiseError
            When it can't be had; the next call tries again.
        """
        if digest not in self._makers:
            return
        with self._locks[digest]:
            if self._form.have([digest]):
                return
            try:
                self._form.put(self._makers[digest](), lambda size: None)
            except LikewiseError as error:
                self._notify(Notice(message=str(error), subject=error.where))
                raise


class Supply:
    """What an environment consists of.

    Parameters
    ----------
    manifest : Manifest
    kit : Manifest
        Its kit's.
    layers : sequence of LayerSource
        Those whose files are there. Bytecode and outlines of former launches are in the store and nowhere else.
    form : Form
        How the store is to hold them.
    store : LocalStore

    Attributes
    ----------
    sources : dict of Digest to LayerSource
        `layers`, and what was found in the store.

    Raises
    ------
    LikewiseError
        When what the store has is damaged.
    """

    def __init__(
        self, manifest: Manifest, kit: Manifest, layers: Sequence[LayerSource], form: Form, store: LocalStore
    ) -> None:
        self._form, self._store = form, store
        self._kit = set(kit.digests()) if form.kit_first else set()
        self._outline = manifest.outline
        self.sources = {layer.digest: layer for layer in layers}
        digests = set(manifest.digests())
        self._missing = digests - form.have(digests)
        for kind, name, version, digest in _described(kit if form.kit_first else manifest):
            if digest in self._missing and digest not in self.sources:
                found = source_in_store(store, kind, name, version, digest)
                if found is not None:
                    self.sources[digest] = found

    def begin(
        self, settings: Settings, stages: Stages, *, first: Sequence[str], behind: bool, temporary: ExitStack
    ) -> Packing | None:
        """Put what is missing into the store; what the kit is made of is there when this returns.

        Parameters
        ----------
        settings : Settings
        stages : Stages
        first : sequence of str
            Names of the layers that are needed first, the most urgent first.
        behind : bool
            Whether the others follow later.
        temporary : ExitStack
            Closed when neither the layers nor the caller need what was made on the way.

        Returns
        -------
        Packing or None
            What still goes on.

        Raises
        ------
        LikewiseError
            When a layer can't be had.
        """
        missing = [layer for digest, layer in self.sources.items() if digest in self._missing]
        now = [layer for layer in missing if not behind or layer.digest in self._kit]
        size = sum(layer.size for layer in now)
        with stages.stage("pack", total=size) as stage, ExitStack() as undo:
            packing: Packing | None = None
            if missing:
                kept = Last(2, temporary.pop_all().close)  # the kit is made of the same files, and may take longer
                temporary.callback(kept.release)
                packing = Packing(
                    self._ordered(missing, now, first),
                    self._store,
                    self._form,
                    awaited={layer.digest for layer in now},
                    soon={layer.digest for layer in missing if layer.name in first or layer.digest == self._outline},
                    jobs=settings.jobs,
                    notify=stages.reporter.report,
                    done=kept.release,
                    progress=stage.advance,
                )
                undo.callback(packing.close)
                packing.wait(*(layer.digest for layer in now))
                packing.silence()
            following = len(missing) - len(now)
            stage.did(packed=len(now), following=following, bytes=size)
            stage.summary = f"{counted(len(now), 'layer')} {self._form.name}" if now else "nothing to pack"
            if following:
                stage.summary = f"{counted(following, 'layer')} in the background"
                undo.pop_all()
                return packing
        return None

    def _ordered(
        self, missing: Iterable[LayerSource], now: Collection[LayerSource], first: Sequence[str]
    ) -> list[LayerSource]:
        """What is waited for, the largest first so that no core is idle at the end; the outline; what is needed first;
        and then the smaller ones: the fewer are missing, the fewer will be waited for."""
        places = {name: place for place, name in reversed(list(enumerate(first)))}
        awaited = {layer.digest for layer in now}

        def rank(layer: LayerSource) -> tuple[int, int, int]:
            if layer.digest in awaited:
                return 0, 0, -layer.size
            if layer.digest == self._outline:
                return 1, 0, 0
            return 2, places.get(layer.name, len(first)), layer.size

        return sorted(missing, key=rank)


def _described(manifest: Manifest) -> Iterator[tuple[LayerKind, str, str, Digest]]:
    """Kind, name, version and digest of everything in a manifest."""
    for ref in manifest.layers:
        yield ref.kind, ref.name, ref.version, ref.digest
        if ref.bytecode:
            yield LayerKind.BYTECODE, ref.name, ref.version, ref.bytecode
    if manifest.outline:
        yield LayerKind.OUTLINE, "outline", "", manifest.outline
