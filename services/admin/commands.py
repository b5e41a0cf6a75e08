"""The `glora admin` commands. They work on database and artifacts themselves, by the settings of this machine, not over HTTP.

What they do is loaded when one of them is called: it takes four times as long as all the rest of the command line.
"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look after a service's database and artifacts, on the machine that has them.")

Home = Annotated[Path | None, typer.Option(help="Home folder of the embedded service; GLORA_HOME or .glora by default.")]


@app.command()
def backup(folder: Annotated[Path, typer.Argument(help="Folder to write to; may hold an earlier backup.")], home: Home = None) -> None:
    """Back up database and artifacts, as of one moment, while the service runs."""
    from services.admin import actions

    actions.backup(folder, home)


@app.command()
def restore(folder: Annotated[Path, typer.Argument(help="Folder that a backup was written to.")], home: Home = None) -> None:
    """Restore a backup into an empty home, or an empty database and artifact store; start the service afterwards."""
    from services.admin import actions

    actions.restore(folder, home)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    grace_hours: Annotated[float, typer.Option(help="Nothing younger goes.", min=1.0)] = 1.0,
    drop_lost: Annotated[bool, typer.Option("--drop-lost", help="Drop supernets whose bytes are gone, and their evaluations.")] = False,
    home: Home = None,
) -> None:
    """Remove what nobody refers to: files, rows, training checkpoints, work folders. Supernets and evaluations stay."""
    from services.admin import actions

    actions.collect(home, grace_hours, dry_run=dry_run, drop=drop_lost)


@app.command()
def migrate(home: Home = None) -> None:
    """Bring the database's schema up to date; the service does so itself when it starts."""
    from services.admin import actions

    actions.migrate(home)
