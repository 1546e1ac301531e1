"""Values that cannot be safe together, each with the sentence that refuses them. Pure.

Nothing is repaired here: the operator learns both keys and what would go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jobserver.contexts.launch_spec import PROXY_USER, flatten, proxy_user_in
from jobserver.errors import BadRequest
from jobserver.settings.units import duration_text as text

if TYPE_CHECKING:
    from jobserver.settings.model import Settings

LOOPBACK = ("127.", "localhost", "::1")
ANY_ADDRESS = ("0.0.0.0", "::")


def unsafe_together(settings: Settings) -> list[str]:
    """One sentence for each rule that does not hold."""
    return [sentence for rule in RULES for sentence in rule(settings)]


def _checkpoints_in_a_known_store(s: Settings) -> Iterator[str]:
    root, in_hdfs = s.checkpoint.root, s.checkpoint.root.startswith("hdfs://")
    if "://" in root and not in_hdfs:
        yield (
            f"checkpoint.root ({root}) must be the path of a directory or hdfs://host:port/path: a local directory of "
            f"that name would be made, which no other machine sees."
        )
    if in_hdfs and (set("#?;%") & set(root) or not root.removeprefix("hdfs://").partition("/")[2].strip("/")):
        yield (
            f"checkpoint.root ({root}) must name a folder of HDFS, as hdfs://host:port/path, without any of #?;%: "
            f"checkpoints do not belong into the root of HDFS."
        )
    if in_hdfs and not s.webhdfs.namenodes and root.startswith("hdfs:///"):
        yield (
            f"checkpoint.root ({root}) names no NameNode and webhdfs.namenodes is empty: nobody could be asked. Set "
            f"webhdfs.namenodes."
        )


def _webhdfs_is_for_hdfs(s: Settings) -> Iterator[str]:
    if s.webhdfs.namenodes and not s.checkpoint.root.startswith("hdfs://"):
        yield (
            f"webhdfs.namenodes is set and checkpoint.root ({s.checkpoint.root}) is a directory: checkpoints would not "
            f"be in HDFS. Set checkpoint.root to hdfs://host:port/path, or leave webhdfs.namenodes out."
        )
    if (s.webhdfs.auth == "token") != (s.webhdfs.token_file is not None):
        yield (
            f"webhdfs.auth is '{s.webhdfs.auth}' and webhdfs.token_file is {s.webhdfs.token_file or 'not set'}: the "
            f"file belongs to 'token', and 'token' needs it."
        )
    if s.webhdfs.user is not None and s.webhdfs.auth != "simple":
        yield (
            f"webhdfs.user is set and webhdfs.auth is '{s.webhdfs.auth}', which itself says who we are: leave "
            f"webhdfs.user out."
        )


def _lag_outlasts_interval(s: Settings) -> Iterator[str]:
    if s.checkpoint.async_max_lag <= s.checkpoint.async_interval:
        yield (
            f"checkpoint.async_max_lag ({text(s.checkpoint.async_max_lag)}) must be longer than "
            f"checkpoint.async_interval ({text(s.checkpoint.async_interval)}): async updates would be refused "
            f"although the checkpoint store is well."
        )


def _takeover_outlasts_adoption(s: Settings) -> Iterator[str]:
    if s.driver.adopt_timeout >= s.ha.takeover_timeout:
        yield (
            f"driver.adopt_timeout ({text(s.driver.adopt_timeout)}) must be shorter than ha.takeover_timeout "
            f"({text(s.ha.takeover_timeout)}): a takeover would be given up before it stops waiting for the old "
            f"driver and restores from the checkpoint."
        )


def _takeover_outlasts_start(s: Settings) -> Iterator[str]:
    if s.driver.start_timeout > s.ha.takeover_timeout:
        yield (
            f"driver.start_timeout ({text(s.driver.start_timeout)}) must not be longer than ha.takeover_timeout "
            f"({text(s.ha.takeover_timeout)}): a slow but good start of a driver would be given up as failed."
        )


def _creation_outlasts_start(s: Settings) -> Iterator[str]:
    if s.driver.start_timeout > s.contexts.creation_timeout:
        yield (
            f"driver.start_timeout ({text(s.driver.start_timeout)}) must not be longer than "
            f"contexts.creation_timeout ({text(s.contexts.creation_timeout)}): a client would be told that its "
            f"context failed while the driver is still allowed to start."
        )


def _orphans_outlive_takeover(s: Settings) -> Iterator[str]:
    claim = s.zookeeper.session_timeout + s.ha.incumbent_grace + s.driver.adopt_timeout
    if s.driver.orphan_timeout <= claim:
        yield (
            f"driver.orphan_timeout ({text(s.driver.orphan_timeout)}) must be longer than zookeeper.session_timeout + "
            f"ha.incumbent_grace + driver.adopt_timeout ({text(claim)}): drivers of a dead server would end before "
            f"another server can adopt them."
        )


def _orphans_outlive_silence(s: Settings) -> Iterator[str]:
    if s.driver.orphan_timeout <= s.driver.driver_timeout:
        yield (
            f"driver.orphan_timeout ({text(s.driver.orphan_timeout)}) must be longer than driver.driver_timeout "
            f"({text(s.driver.driver_timeout)}): a driver would give up its owner before the owner may count it as dead."
        )


def _takeover_outlasts_claiming(s: Settings) -> Iterator[str]:
    slowest = max(s.ha.incumbent_grace, s.ha.claim_stagger)
    if slowest >= s.ha.takeover_timeout:
        yield (
            f"ha.incumbent_grace ({text(s.ha.incumbent_grace)}) and ha.claim_stagger ({text(s.ha.claim_stagger)}) must "
            f"be shorter than ha.takeover_timeout ({text(s.ha.takeover_timeout)}): they are waits before a takeover."
        )


def _calls_fit_the_session(s: Settings) -> Iterator[str]:
    if s.zookeeper.call_timeout > s.zookeeper.session_timeout:
        yield (
            f"zookeeper.call_timeout ({text(s.zookeeper.call_timeout)}) must not be longer than "
            f"zookeeper.session_timeout ({text(s.zookeeper.session_timeout)}): a server would wait for an answer in a "
            f"session that has already ended."
        )


def _warm_standbys_have_a_pool(s: Settings) -> Iterator[str]:
    if s.ha.standby == "warm" and s.driver.warm_drivers == 0:
        yield (
            "ha.standby is 'warm' and driver.warm_drivers is 0: a warm standby is a driver of that pool, so none would "
            "ever be ready. Set driver.warm_drivers to 1 or more, or ha.standby to 'cold'."
        )


def _one_secret(s: Settings) -> Iterator[str]:
    if s.cluster.secret is not None and s.cluster.secret_file is not None:
        yield "cluster.secret and cluster.secret_file are both set: only one of them can be the cluster's secret."


def _one_password(s: Settings) -> Iterator[str]:
    if s.database.password is not None and s.database.password_file is not None:
        yield "database.password and database.password_file are both set: only one of them can be the password."


def _tls_is_on_where_it_is_meant(s: Settings) -> Iterator[str]:
    database = s.database
    if not database.tls and any((database.tls_ca, database.tls_cert, database.tls_key)):
        yield (
            "database.tls is false, but certificates are named: the connection would not be encrypted. Set"
            " database.tls to true, or leave the certificates out."
        )
    if (database.tls_cert is None) != (database.tls_key is None):
        yield "database.tls_cert and database.tls_key belong together: only one of them is set."


def _reachable_means_secret(s: Settings) -> Iterator[str]:
    secret = s.cluster.secret is not None or s.cluster.secret_file is not None
    if not s.server.host.startswith(LOOPBACK) and not secret:
        yield (
            f"server.host is '{s.server.host}', which other machines can reach, and neither cluster.secret nor "
            f"cluster.secret_file is set: anybody could speak as a server of this cluster."
        )


def _others_know_the_address(s: Settings) -> Iterator[str]:
    if s.server.host in ANY_ADDRESS and s.server.advertise is None:
        yield (
            f"server.host is '{s.server.host}' and server.advertise is not set: the other servers cannot connect to "
            f"that address. Set server.advertise to the URL of this server."
        )


def _advertised_can_be_reached(s: Settings) -> Iterator[str]:
    given = s.server.advertise
    if given is None:
        return
    host = s.server.advertised_host
    if not given.startswith(("http://", "https://")) or not host:
        yield f"server.advertise is '{given}', which is no URL such as http://host:8090, so the other servers cannot connect."
    elif host in ANY_ADDRESS:
        yield (
            f"server.advertise is '{given}', and '{host}' is every machine's own address: each server would reach itself. "
            f"Set server.advertise to the URL of this server."
        )
    elif given != given.rstrip("/") or urlsplit(given).path:
        yield f"server.advertise is '{given}' and must end after its port: paths are put behind it."


def _drivers_can_be_reached(s: Settings) -> Iterator[str]:
    told = s.driver.host or s.server.host
    if s.driver.host in ANY_ADDRESS:
        yield (
            f"driver.host is '{told}', which is every machine's own address: no server of another machine could adopt a "
            f"driver. Set driver.host to an address of this machine; drivers listen where server.host says."
        )
    elif told.startswith(LOOPBACK) and not s.server.advertised_host.startswith(LOOPBACK):
        yield (
            f"server.advertise is '{s.server.url}', so that other machines reach this server, and drivers would tell them "
            f"'{told}', which is each machine's own address: none could adopt a driver. Set driver.host or server.host to an "
            f"address of this machine."
        )


def _proxy_users_can_be(s: Settings) -> Iterator[str]:
    rule = s.access.proxy_users
    if rule == "caller" and s.access.users_file is None:
        yield (
            "access.proxy_users is 'caller' and access.users_file is not set: every caller would be 'anonymous'. Set "
            "access.users_file, or access.proxy_users to 'named'."
        )
    if rule != "none" and s.webhdfs.auth == "token":
        yield (
            f"access.proxy_users is '{rule}' and webhdfs.auth is 'token': HDFS lets nobody act for others by a token. Set "
            f"webhdfs.auth to 'simple' or 'kerberos'."
        )


def _proxy_users_belong_to_contexts(s: Settings) -> Iterator[str]:
    for section, given in (
        ("contexts.defaults", s.contexts.defaults),
        ("driver.spark_conf", s.driver.spark_conf),
    ):
        if PROXY_USER in dict(flatten(given)):
            yield f"{section} names {PROXY_USER}, and all contexts would have it: only a single context may name it."
    for name, given in s.contexts.predefined.items():
        flat = dict(flatten(given))
        if PROXY_USER in flat and s.access.proxy_users == "none":
            yield (
                f"contexts.predefined.{name} names {PROXY_USER} and access.proxy_users is 'none': set it to 'named' or "
                f"'caller'."
            )
        try:
            proxy_user_in(flat)
        except BadRequest as error:
            yield f"contexts.predefined.{name}: {error.message}."


RULES: tuple[Callable[[Settings], Iterator[str]], ...] = (
    _checkpoints_in_a_known_store,
    _webhdfs_is_for_hdfs,
    _lag_outlasts_interval,
    _takeover_outlasts_adoption,
    _takeover_outlasts_start,
    _creation_outlasts_start,
    _orphans_outlive_takeover,
    _orphans_outlive_silence,
    _takeover_outlasts_claiming,
    _calls_fit_the_session,
    _warm_standbys_have_a_pool,
    _one_secret,
    _one_password,
    _tls_is_on_where_it_is_meant,
    _reachable_means_secret,
    _others_know_the_address,
    _advertised_can_be_reached,
    _drivers_can_be_reached,
    _proxy_users_can_be,
    _proxy_users_belong_to_contexts,
)
