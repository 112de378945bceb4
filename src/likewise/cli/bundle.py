"""``likewise bundle``: the files that any Dask deployment needs, and the command prefix that uses them."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from likewise.cli import options
from likewise.cli.perspective import as_session
from likewise.console.render import console_reporter
from likewise.console.text import counted, format_bytes


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--store", metavar="PLACE", help="Where nodes find the folder: a path or a URL. Default: FOLDER itself.")
@click.option("--script", default="", metavar="PATH", help="Where nodes find bootstrap.sh, if not in the store.")
@click.option("--cache", default="auto", metavar="PATH", help="The nodes' cache. Default: they look for a place.")
@click.option("--ask", is_flag=True, help="Nodes ask their scheduler first for its current environment.")
@click.option("--shared", is_flag=True, help="Everybody may read the files, not only you.")
@click.option("--prune", is_flag=True, help="Remove what former environments have left in the folder.")
@click.option(
    "--target", metavar="TARGET", help="What the nodes are, where they are not like this machine: linux-aarch64, …."
)
@click.option("--strict", is_flag=True, help="Refuse everything that is not an exact copy.")
@click.option("--ignore", multiple=True, metavar="NAME", help="Leave this distribution out. May be repeated.")
@click.option("--only", multiple=True, metavar="NAME", help="Ship this one and what it requires. May be repeated.")
@options.as_json
@options.quiet
def command(
    folder: Path,
    store: str | None,
    script: str,
    cache: str,
    ask: bool,
    shared: bool,
    prune: bool,
    target: str | None,
    strict: bool,
    ignore: tuple[str, ...],
    only: tuple[str, ...],
    json: bool,
    quiet: bool,
) -> None:
    """Lay everything that nodes need out in FOLDER, and print the command prefix.

    Append "-m distributed.cli.dask_worker …" to it wherever a deployer starts a worker.
    """
    from likewise.deploy import bootstrap_files, check_folder, check_places, command_prefix

    check_folder(folder)
    place = store or str(folder.expanduser().absolute())
    check_places(store=place, script=script, cache=cache)
    with as_session(), console_reporter(quiet=quiet) as reporter:
        with bootstrap_files(
            strict=strict or None, ignore=ignore or None, only=only or None, target=target, reporter=reporter
        ) as files:
            prefix = command_prefix(store=place, files=files, script=script, cache=cache, ask=ask)
            written = files.write_to(folder, shared=shared, prune=prune)
        value = {"prefix": prefix, "shell": prefix.shell, "manifest": files.manifest.id, "size": files.size}
    if not (json or quiet):
        summary = f"{counted(written.written, 'file')} written, {written.unchanged} unchanged"
        click.echo(f"{written.folder}: {summary}, {format_bytes(files.size)} in all", err=True)
    options.give({**value, **msgspec.to_builtins(written)}, prefix.shell, json=json)
