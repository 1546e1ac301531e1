"""The commands and their options. Nothing but typer is imported until a command runs: the start must be quick.

Errors of the product end a command with their sentence on stderr and exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobserver.errors import JobServerError

app = typer.Typer(
    help="Shared, long-lived Spark contexts that survive the death of their server and driver.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Settings files.", no_args_is_help=True)
db_app = typer.Typer(help="The schema of the metadata database.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(db_app, name="db")


ServersOption = Annotated[int, typer.Option(min=1, max=9, help="How many servers.")]
PortOption = Annotated[
    int, typer.Option(min=1, max=65000, help="Port of the first server; the others follow.")
]
StandbyOption = Annotated[
    Literal["cold", "warm", "hot"] | None,
    typer.Option(help="What standbys keep ready; overrides the settings."),
]
UrlOption = Annotated[str, typer.Option(help="Any server of the cluster.")]
ConfigOption = Annotated[Path, typer.Option(help="Settings file.", dir_okay=False)]
DEFAULT_URL = "http://127.0.0.1:8090"


@app.command()
def serve(config: ConfigOption) -> None:
    """Run one server."""
    from jobserver.cli import serve

    serve.serve(config)


@app.command()
def up(
    servers: ServersOption = 3,
    port: PortOption = 8090,
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the cluster keeps its data; re-use it to go on.")
    ] = Path("cluster"),
    standby: StandbyOption = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings for all servers; `up` sets ports, paths and ZooKeeper.")
    ] = None,
) -> None:
    """Run a cluster on this machine until Ctrl-C: ZooKeeper and some servers."""
    from jobserver.cli import up

    sys.exit(up.run(directory, servers, port, standby, config))


@app.command()
def demo(
    servers: Annotated[int, typer.Option(min=3, max=9, help="How many servers; two of them will die.")] = 3,
    port: PortOption = 8090,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where to keep the data; default: a temporary directory.")
    ] = None,
    standby: StandbyOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster up until Ctrl-C.")] = False,
) -> None:
    """Watch a cluster lose servers and drivers, and no data. Takes about a minute."""
    from jobserver.cli import demo

    sys.exit(demo.run(directory, servers, port, standby, keep=keep))


@app.command()
def status(
    url: UrlOption = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it is.")] = False,
) -> None:
    """Show servers, contexts, owners, drivers and the last failovers."""
    from jobserver.cli import status

    status.show(url, as_json=as_json)


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument(help="Settings file.")]) -> None:
    """Say what is wrong with a settings file."""
    from jobserver.settings import load, secret_of

    secret_of(load(file).cluster)
    typer.echo(f"{file} is good.")


@config_app.command("default")
def config_default() -> None:
    """Print a settings file with every key, its meaning and its default."""
    from jobserver.settings.document import default_file

    typer.echo(default_file(), nl=False)


@db_app.command("upgrade")
def db_upgrade(config: ConfigOption) -> None:
    """Bring the schema up to what this version needs."""
    from jobserver.cli import db

    typer.echo(db.upgrade(config))


@db_app.command("current")
def db_current(config: ConfigOption) -> None:
    """Say whether the schema is what this version needs."""
    from jobserver.cli import db

    typer.echo(db.current(config))


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except JobServerError as error:
        typer.echo(error.message, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
