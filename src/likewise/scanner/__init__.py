"""Prefix -> Snapshot: distributions, editables, loose code and the interpreter, as they are on this machine.

What is wrong with a prefix does not stop a scan; it becomes a `Problem` of the snapshot, with one of these codes:

===========================  =========================================================================================
bad-direct-url               ``direct_url.json`` is damaged: the origin is not known
bad-path, path-escapes       a file name that can't or must not be shipped
dangling-egg-link            an egg-link that leads nowhere
duplicate-dist-info          two for one distribution in one directory: the one that Python finds is taken
hidden-path, shared-path     two distributions have one file: in two directories (the first wins), in one
invalid-name                 metadata with a name that no distribution may have
machine-module, machine-pth  run by Python at every start and owned by no distribution: not shipped
missing-files                listed in ``RECORD`` and not there
nameless, no-version,        metadata that lacks these: taken from the folder's name, or, without a ``RECORD``, the
no-metadata                  leftover of an uninstall
pip-leftover                 ``~name``: the leftover of an interrupted uninstall
secret-left-out              an unowned file that looks like a secret
shadowed-dist-info           one distribution in two directories: the first on ``sys.path`` is taken
stray-egg-info               in the working directory, of something that is not installed
unlisted-files               not listed in ``RECORD``, shipped all the same
unreadable-directory,        what can't be read, and so is not shipped
unreadable-file
unshippable                  a distribution with paths that collide or escape: it has no layer
vanished-editable            an editable whose source tree is gone
===========================  =========================================================================================

Those of loose code are in `likewise.scanner.code`, those of single files in `likewise.scanner.listing`.
"""

from likewise.scanner.prefix import Scanned, scan_prefix

__all__ = ["Scanned", "scan_prefix"]
