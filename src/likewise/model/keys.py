"""Where each kind of content lies beneath the root of a store. Shared by whoever writes and whoever reads one."""

from __future__ import annotations

from likewise.model.digest import Digest


def layer_key(digest: Digest) -> str:
    """The archive of the layer with this digest."""
    return f"layers/{digest[:2]}/{digest}"


def manifest_key(manifest_id: Digest) -> str:
    """The manifest with this id, as canonical JSON."""
    return f"manifests/{manifest_id}"


def kit_key(kit_id: Digest) -> str:
    """The kit (a tar) whose manifest has this id."""
    return f"kits/{kit_id}"


def loose_key(digest: Digest) -> str:
    """The folder with the files of the layer with this digest, each below its layer path."""
    return f"loose/{digest}"


def loose_listing_key(digest: Digest) -> str:
    """The listing of that layer. It appears last: without it, the folder counts for nothing."""
    return f"loose/{digest}.listing"


def loose_kit_key(kit_id: Digest) -> str:
    """The kit whose manifest has this id, unpacked: `tree`, and in `listings` a file for each of its layers."""
    return f"loose-kits/{kit_id}"


def note_key(kind: str, digest: Digest) -> str:
    """A small remembered fact about `digest`: which bytecode layer belongs to it, what a source tree was built to."""
    return f"notes/{kind}/{digest[:2]}/{digest}"


def script_key(digest: Digest) -> str:
    """A bootstrap script with this digest."""
    return f"scripts/{digest}"


def promise_key(digest: Digest) -> str:
    """Leased by whoever is about to write the archive of the layer with this digest; never there itself."""
    return f"promises/{digest}"


WANTED = "wanted"
"""Folder of a store: an empty file with a layer's digest as its name, by whoever waits for a promised layer."""

LEASES = "leases"
"""Folder of a store: files with one leased key a line, locked as long as they hold."""

CACHE_TAG = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n# Made by likewise; may be removed.\n")
"""Name and content of the file that marks a cache (Cache Directory Tagging Specification): backups leave the folder
alone, and so does our own walk through loose code."""
