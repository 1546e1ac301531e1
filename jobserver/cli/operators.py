"""The groups of commands for operators: settings, database, checkpoints. Imports nothing but typer until one runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

config_app = typer.Typer(help="Settings files, and users.", no_args_is_help=True)
db_app = typer.Typer(help="The metadata database: its schema and its past.", no_args_is_help=True)
checkpoint_app = typer.Typer(
    help="What lies in the checkpoint store; no server is needed.", no_args_is_help=True
)
ConfigOption = Annotated[Path, typer.Option(help="Settings file.", dir_okay=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
ContextsArgument = Annotated[list[str] | None, typer.Argument(help="Ids of contexts.", metavar="[ID]...")]


@config_app.command("user")
def config_user(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    permission: Annotated[
        list[str] | None, typer.Option(help="Such as jobs, contexts:read or *; repeatable.")
    ] = None,
    role: Annotated[list[str] | None, typer.Option(help="A role of the file; repeatable.")] = None,
) -> None:
    """Print the entry of a user for the users file; the password is asked for, or read from stdin."""
    from jobserver.cli import users

    typer.echo(users.entry(name, permission or [], role or []), nl=False)


@config_app.command("check-users")
def config_check_users(file: Annotated[Path, typer.Argument(help="Users file.")]) -> None:
    """Say what is wrong with a users file."""
    from jobserver.cli import users

    typer.echo(users.check(file))


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


@checkpoint_app.command("ls")
def checkpoint_ls(config: ConfigOption, as_json: JsonOption = False) -> None:
    """List the contexts that have a checkpoint."""
    from jobserver.cli import checkpoint

    checkpoint.ls(config, as_json=as_json)


@checkpoint_app.command("show")
def checkpoint_show(
    context: Annotated[str, typer.Argument(help="Id of the context.")],
    config: ConfigOption,
    manifest: Annotated[str | None, typer.Option(help="An older manifest, as <epoch>-<number>.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a restore of one context would find."""
    from jobserver.cli import checkpoint

    checkpoint.show(config, context, manifest, as_json=as_json)


@checkpoint_app.command("verify")
def checkpoint_verify(
    config: ConfigOption, contexts: ContextsArgument = None, as_json: JsonOption = False
) -> None:
    """Check manifests and data files; exit code 1 when something is damaged."""
    from jobserver.cli import checkpoint

    sys.exit(checkpoint.verify(config, contexts or (), as_json=as_json))


@checkpoint_app.command("prune")
def checkpoint_prune(
    config: ConfigOption,
    contexts: ContextsArgument = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only tell what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove checkpoints of ended contexts; kept ones, and ones that SQL does not know, only by their id."""
    from jobserver.cli import checkpoint

    checkpoint.prune(config, contexts or (), yes=yes, as_json=as_json)


@db_app.command("upgrade")
def db_upgrade(config: ConfigOption) -> None:
    """Bring the schema up to what this version needs."""
    from jobserver.cli import db

    typer.echo(db.upgrade(config))


@db_app.command("current")
def db_current(config: ConfigOption) -> None:
    """Say at which revision the schema is."""
    from jobserver.cli import db

    typer.echo(db.current(config))


@db_app.command("check")
def db_check(config: ConfigOption) -> None:
    """Say whether this version can work with the database as it is."""
    from jobserver.cli import db

    typer.echo(db.check(config))


@db_app.command("prune")
def db_prune(
    config: ConfigOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
) -> None:
    """Remove at once what the settings in section `retention` no longer keep; servers may run."""
    from jobserver.cli import db

    typer.echo(db.prune(config, dry_run=dry_run))


@db_app.command("export")
def db_export(
    file: Annotated[Path, typer.Argument(help="New file to write.", dir_okay=False)], config: ConfigOption
) -> None:
    """Write the whole database to a file of JSON lines, as a backup or to move to another database."""
    from jobserver.cli import db

    typer.echo(db.export(config, file))


@db_app.command("import")
def db_import(
    file: Annotated[Path, typer.Argument(help="File of `db export`.", dir_okay=False)], config: ConfigOption
) -> None:
    """Fill an empty database (`db upgrade` makes its tables) from an exported file; all of it or nothing."""
    from jobserver.cli import db

    typer.echo(db.take_in(config, file))
