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
    add_completion=True,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Settings files.", no_args_is_help=True)
db_app = typer.Typer(help="The metadata database: its schema and its past.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(db_app, name="db")
checkpoint_app = typer.Typer(
    help="What lies in the checkpoint store; no server is needed.", no_args_is_help=True
)
app.add_typer(checkpoint_app, name="checkpoint")


ServersOption = Annotated[int, typer.Option(min=1, max=9, help="How many servers.")]
PortOption = Annotated[
    int, typer.Option(min=1, max=65000, help="Port of the first server; the others follow.")
]
StandbyOption = Annotated[
    Literal["cold", "warm", "hot"] | None,
    typer.Option(help="What standbys keep ready; overrides the settings."),
]
UrlOption = Annotated[str, typer.Option(help="Any server of the cluster.")]
GraceOption = Annotated[
    str, typer.Option(help="How long running jobs have to end, like 30s; then they run again elsewhere.")
]
ConfigOption = Annotated[Path, typer.Option(help="Settings file.", dir_okay=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
ContextsArgument = Annotated[list[str] | None, typer.Argument(help="Ids of contexts.", metavar="[ID]...")]
DEFAULT_URL = "http://127.0.0.1:8090"
DEFAULT_URLS = [DEFAULT_URL]
PATIENCE = 15.0
"""Seconds that a command looks for a server that answers; longer than a failover takes."""
UrlsOption = Annotated[
    list[str],
    typer.Option(
        envvar="JOBSERVER_URL",
        help="A server of the cluster; repeatable: the next one is asked when one is away.",
    ),
]
ContextOption = Annotated[str | None, typer.Option(help="A running context; default: one for this job.")]
SyncOption = Annotated[bool, typer.Option("--sync", help="Wait for the result, with a progress bar.")]
TimeoutOption = Annotated[
    float | None, typer.Option(min=0.1, help="Seconds to wait; default: as long as it takes.")
]


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
    mysql: Annotated[
        bool,
        typer.Option("--mysql", help="Keep the metadata in a MariaDB of the cluster's own, not in SQLite."),
    ] = False,
    hdfs: Annotated[
        bool, typer.Option("--hdfs", help="Keep checkpoints in an HDFS of the cluster's own.")
    ] = False,
) -> None:
    """Run a cluster on this machine until Ctrl-C: ZooKeeper and some servers."""
    from jobserver.cli import up

    sys.exit(up.run(directory, servers, port, standby, config, mysql=mysql, hdfs=hdfs))


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


@app.command()
def switchover(
    context: Annotated[str, typer.Argument(help="Name of the context.")],
    to: Annotated[str | None, typer.Option(help="The server that shall own it; default: the best.")] = None,
    grace: GraceOption = "30s",
    keep_driver: Annotated[
        bool, typer.Option("--keep-driver", help="Only the owner changes; it adopts the driver where it is.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Move a context to another server; no request fails and no job is lost."""
    from jobserver.cli import moves

    typer.echo(moves.switchover(url, context, to, grace, keep_driver=keep_driver))


@app.command()
def drain(
    server: Annotated[str, typer.Argument(help="Id of the server.")],
    grace: GraceOption = "30s",
    keep_drivers: Annotated[
        bool, typer.Option("--keep-drivers", help="Only the owners change; drivers go on where they are.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Return when the server owns nothing any more.")] = True,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Move every context of a server to others, and give it none until it is undrained or restarted."""
    from jobserver.cli import moves

    typer.echo(moves.drain(url, server, grace, keep_drivers=keep_drivers, wait=wait))


@app.command()
def undrain(
    server: Annotated[str, typer.Argument(help="Id of the server.")], url: UrlOption = DEFAULT_URL
) -> None:
    """Let a drained server take contexts again."""
    from jobserver.cli import moves

    typer.echo(moves.undrain(url, server))


@app.command()
def submit(
    code: Annotated[str, typer.Argument(help="A file of code to upload first, or the name of an upload.")],
    main: Annotated[str, typer.Option(help="package.module.Class or package.module:function.")],
    context: ContextOption = None,
    conf: Annotated[
        list[str] | None, typer.Option(help="key=value of the configuration; repeatable.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration, HOCON or JSON.", exists=True, dir_okay=False)
    ] = None,
    sync: SyncOption = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Run a job. Exit code 3: it failed, 4: it was killed, 5: the time is over and it goes on."""
    from jobserver.cli import jobs
    from jobserver.client import JobClient, Work

    work = Work(main, context=context, config=jobs.configuration(config, conf or []))
    client = JobClient(url, patience=PATIENCE)
    sys.exit(jobs.submit(client, code, work, sync=sync, seconds=timeout, as_json=as_json))


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SQL statement, over tables and named objects.")],
    context: ContextOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Run a query and print its rows."""
    from jobserver.cli import jobs
    from jobserver.client import JobClient, Work

    work = Work(sql=statement, context=context)
    sys.exit(jobs.run(JobClient(url, patience=PATIENCE), work, sync=True, seconds=timeout, as_json=as_json))


@app.command("jobs")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    state: Annotated[str | None, typer.Option("--status", help="Only jobs in this state.")] = None,
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """List jobs, newest first."""
    from jobserver.cli import jobs
    from jobserver.client import JobClient

    jobs.show_jobs(JobClient(url, patience=PATIENCE), limit, state, as_json=as_json)


@app.command()
def contexts(as_json: JsonOption = False, url: UrlsOption = DEFAULT_URLS) -> None:
    """List the contexts that live."""
    from jobserver.cli import jobs
    from jobserver.client import JobClient

    jobs.show_contexts(JobClient(url, patience=PATIENCE), as_json=as_json)


@app.command()
def binaries(as_json: JsonOption = False, url: UrlsOption = DEFAULT_URLS) -> None:
    """List uploads."""
    from jobserver.cli import jobs
    from jobserver.client import JobClient

    jobs.show_binaries(JobClient(url, patience=PATIENCE), as_json=as_json)


@app.command()
def kill(job: Annotated[str, typer.Argument(help="Id of the job.")], url: UrlsOption = DEFAULT_URLS) -> None:
    """Kill a job."""
    from jobserver.client import JobClient

    JobClient(url, patience=PATIENCE).kill(job)
    typer.echo(f"Job {job} is killed.")


@app.command()
def logs(
    job: Annotated[str, typer.Argument(help="Id of the job.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job has ended.")] = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Print what a job wrote."""
    from jobserver.cli import jobs
    from jobserver.client import JobClient

    jobs.follow_log(JobClient(url, patience=PATIENCE), job, follow=follow)


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


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except JobServerError as error:
        typer.echo(error.message, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
