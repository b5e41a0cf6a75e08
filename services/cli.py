"""The `glora` command: the service itself (`serve`) and everything one does with it."""

from pathlib import Path
from typing import Annotated

import typer

from services.admin import commands as admin
from services.client import commands, job_commands, study_commands

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Search GLoRA configurations for a backbone, a data set and a parameter budget.",
    pretty_exceptions_enable=False,
)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="GLORA_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.", min=0, max=65535, envvar="GLORA_PORT")] = 8000,
    home: Annotated[Path, typer.Option(help="Folder for database, artifacts and logs.", envvar="GLORA_HOME")] = Path(".glora"),
    cpus: Annotated[int | None, typer.Option(help="CPUs that Ray may use; all by default.", min=1)] = None,
) -> None:
    """Start the whole service on this machine: API, dashboard, scheduler and a local Ray of its own. Ctrl-C stops it all."""
    from services.embedded import Embedded, ServeError

    try:
        status = Embedded(home, host, port, cpus).run()
    except ServeError as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        status = 1
    raise typer.Exit(status)


for command in (commands.submit, commands.watch, commands.jobs, commands.logs, commands.cancel, commands.download):
    app.command()(command)
for change in (
    job_commands.pause,
    job_commands.resume,
    job_commands.extend,
    job_commands.fork,
    job_commands.clone,
    job_commands.delete,
    job_commands.cache,
):
    app.command()(change)


app.command()(study_commands.studies)
app.add_typer(study_commands.app, name="study")
app.add_typer(admin.app, name="admin")


def main() -> None:
    """Entry point of the `glora` script."""
    commands.run(app)


if __name__ == "__main__":
    main()
