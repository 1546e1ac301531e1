"""The coordination port on ZooKeeper. The only module that imports kazoo.

kazoo calls back from threads of its own; everything crosses into the event loop by `call_soon_threadsafe`, so the caches
and listeners are touched by the loop alone. Traps this module exists to contain: a call made while suspended hangs
(own timeouts), a transaction returns its exceptions, the negotiated session timeout is not public, and the default
reconnect delay grows until sessions die although ZooKeeper is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    ConnectionLoss,
    KazooException,
    NodeExistsError,
    NoNodeError,
    OperationTimeoutError,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.recipe.watchers import ChildrenWatch, DataWatch
from kazoo.retry import KazooRetry

from ha.coordination import Elected, Link, Listener, NotElected, OwnerNode, ServerInfo
from ha.errors import CoordinationLost, SessionTimeoutRefused
from ha.nodes import owner_data, owner_of, server_data, server_of
from ha.picture import Picture, ignore

log = logging.getLogger(__name__)

RECONNECT_DELAY = 0.5
"""Cap of kazoo's reconnect back-off, seconds; at its default (an hour) sessions die although ZooKeeper is back."""

_LINKS = {
    KazooState.CONNECTED: Link.CONNECTED,
    KazooState.SUSPENDED: Link.SUSPENDED,
    KazooState.LOST: Link.LOST,
}
_NO_ANSWER = (ConnectionLoss, SessionExpiredError, OperationTimeoutError, KazooTimeoutError)


class ZooKeeperCoordination:
    """`Coordination` on a ZooKeeper ensemble; `session_timeout` and `call_timeout` in seconds.

    Everything lies below `root`, so that clusters can share an ensemble; its parents are made where they are absent.
    """

    def __init__(
        self,
        hosts: str,
        *,
        session_timeout: float,
        call_timeout: float = 3.0,
        root: str = "/jobserver/default",
    ) -> None:
        retry = KazooRetry(max_tries=-1, delay=0.05, backoff=2, max_delay=RECONNECT_DELAY)
        self._client = KazooClient(hosts, timeout=session_timeout, connection_retry=retry)
        self._root = root
        self._session_timeout = session_timeout
        self._call_timeout = call_timeout
        self._negotiated = 0.0
        self._noted = threading.Event()
        self._seen = Picture()
        self._watching = _Watching()
        self._me: ServerInfo | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._candidate: str | None = None
        self._forgetting: asyncio.TimerHandle | None = None

    # the port

    @property
    def link(self) -> Link:
        return self._seen.link

    @property
    def servers(self) -> Mapping[str, ServerInfo]:
        return self._seen.servers

    @property
    def owners(self) -> Mapping[str, OwnerNode]:
        return self._seen.owners

    @property
    def leader(self) -> str | None:
        return self._seen.leader

    async def start(self, me: ServerInfo, listener: Listener) -> None:
        self._me, self._seen.listener = me, listener
        self._loop = asyncio.get_running_loop()
        self._note_negotiated_timeout()
        self._client.add_listener(self._on_state)
        connected = self._client.start_async()
        if not await asyncio.to_thread(connected.wait, max(self._call_timeout, self._session_timeout)):
            await self.stop()
            raise CoordinationLost(f"no ZooKeeper answered at {self._client.hosts}")
        await self._check_timeout()
        self._seen.link = Link.CONNECTED
        await self._register()
        await asyncio.to_thread(self._watch_folders)

    async def stop(self) -> None:
        self._seen.listener = ignore
        for task in list(self._tasks):
            task.cancel()
        await asyncio.to_thread(self._client.stop)
        await asyncio.to_thread(self._client.close)

    async def elect(self, context_id: str, replace: OwnerNode | None = None) -> Elected | NotElected:
        me = self._announced()
        parent, path = self._parent(context_id), self._owner_path(context_id)
        try:
            count = replace.election if replace else await self._election_count(parent)
        except NoNodeError:
            return NotElected(None, "ZooKeeper was wiped, and the folders are not made again yet")
        node = OwnerNode(context_id, me.id, me.incarnation, count + 1)
        transaction = self._client.transaction()
        transaction.check(f"{self._root}/servers/{me.id}", -1)
        transaction.set_data(parent, b"", version=count)
        if replace:
            transaction.delete(path)
        transaction.create(path, owner_data(node), ephemeral=True)
        try:
            results = await self._call(transaction.commit_async())
        except CoordinationLost:
            return await self._read_back(node)
        failed = [result for result in results if isinstance(result, Exception)]
        if not failed:
            return Elected(node)
        return NotElected(await self.owner(context_id), ", ".join(type(error).__name__ for error in failed))

    async def release(self, context_id: str) -> None:
        node = await self.owner(context_id)
        me = self._announced()
        if node is None or (node.server, node.incarnation) != (me.id, me.incarnation):
            return
        transaction = self._client.transaction()
        transaction.check(self._parent(context_id), node.election)
        transaction.delete(self._owner_path(context_id))
        await self._call(transaction.commit_async())

    async def forget(self, context_id: str) -> None:
        """One transaction at the version that was read: an owner elected meanwhile raises it, and its node is a child."""
        parent = self._parent(context_id)
        try:
            _, stat = await self._call(self._client.get_async(parent))
        except NoNodeError:
            return
        node, me = await self.owner(context_id), self._announced()
        transaction = self._client.transaction()
        transaction.check(parent, stat.version)
        if node is not None and (node.server, node.incarnation) == (me.id, me.incarnation):
            transaction.delete(self._owner_path(context_id))
        transaction.delete(parent, stat.version)
        await self._call(transaction.commit_async())

    async def owner(self, context_id: str) -> OwnerNode | None:
        try:
            data, _ = await self._call(self._client.get_async(self._owner_path(context_id)))
        except NoNodeError:
            return None
        return owner_of(context_id, data)

    async def announce(self, me: ServerInfo) -> None:
        self._me = me
        try:
            await self._call(self._client.set_async(f"{self._root}/servers/{me.id}", server_data(me)))
        except NoNodeError as error:  # in a new session, before this server has announced itself again
            raise CoordinationLost("this server is not announced at this moment") from error

    # paths and calls

    def _parent(self, context_id: str) -> str:
        return f"{self._root}/contexts/{context_id}"

    def _owner_path(self, context_id: str) -> str:
        return f"{self._parent(context_id)}/owner"

    def _announced(self) -> ServerInfo:
        if self._me is None:
            raise RuntimeError("start() comes first")
        return self._me

    async def _call(self, result: Any) -> Any:
        """The value of kazoo's async result; CoordinationLost when it breaks or takes too long."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def done(finished: Any) -> None:
            loop.call_soon_threadsafe(_settle, future, finished.exception, finished.value)

        result.rawlink(done)
        try:
            return await asyncio.wait_for(future, self._call_timeout)
        except TimeoutError as error:
            raise CoordinationLost(f"ZooKeeper gave no answer within {self._call_timeout:g} s") from error
        except _NO_ANSWER as error:
            raise CoordinationLost(f"the connection to ZooKeeper broke: {type(error).__name__}") from error

    async def _ignoring(self, expected: type[KazooException], result: Any) -> None:
        with contextlib.suppress(expected):
            await self._call(result)

    async def _election_count(self, parent: str) -> int:
        """The version of the context's node, which is made when absent."""
        try:
            _, stat = await self._call(self._client.get_async(parent))
        except NoNodeError:
            await self._ignoring(NodeExistsError, self._client.create_async(parent))
            _, stat = await self._call(self._client.get_async(parent))
        return int(stat.version)

    async def _read_back(self, node: OwnerNode) -> Elected | NotElected:
        """The election's reply was lost: it is ours only if the node says this very election."""
        current = await self.owner(node.context_id)
        return (
            Elected(node)
            if current == node
            else NotElected(current, "the reply was lost and the node is not ours")
        )

    # session

    def _note_negotiated_timeout(self) -> None:
        """kazoo keeps the granted timeout to itself; the read timeout it computes is two thirds of it."""
        connection = self._client._connection
        connect = connection._connect

        def noting(*args: Any, **kwargs: Any) -> Any:
            read_timeout, connect_timeout = connect(*args, **kwargs)
            self._negotiated = read_timeout * 1.5 / 1000
            self._noted.set()
            return read_timeout, connect_timeout

        connection._connect = noting

    async def _check_timeout(self) -> None:
        await asyncio.to_thread(
            self._noted.wait, self._call_timeout
        )  # kazoo says "connected" a moment before
        granted = self._negotiated
        if abs(granted - self._session_timeout) > 0.01:
            await self.stop()
            raise SessionTimeoutRefused(
                f"zookeeper.session_timeout is {self._session_timeout:g} s, but ZooKeeper grants {granted:g} s: "
                "it allows 2 to 20 times its tickTime. Change one of them, so that failover times are what you set"
            )

    def _on_state(self, state: str) -> None:
        """Called from kazoo's thread: must not block, must not call kazoo."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._link_changed, _LINKS[state])

    def _link_changed(self, link: Link) -> None:
        before = self._seen.link
        if link is Link.SUSPENDED and before is not Link.SUSPENDED and self._loop is not None:
            self._forgetting = self._loop.call_later(2 * self._session_timeout, self._forget_history)
        elif link is Link.CONNECTED and self._forgetting is not None:
            self._forgetting.cancel()
        if link is Link.CONNECTED and before is Link.LOST:
            self._spawn(self._register_again())
        if link is Link.CONNECTED and before is not Link.CONNECTED:
            self._spawn(self._look_again())
        self._seen.link_changed(link)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget_history(self) -> None:
        """An ensemble that was wiped refuses clients that have seen more than it has. By now the session is over in any
        case, and everything is read anew after it, so that there is no history left to insist on.
        """
        self._client.last_zxid = 0

    async def _look_again(self) -> None:
        """After a break: read every owner node anew. What is seen from here on is seen without a gap."""
        for context_id in sorted(self._watching.contexts):
            since = self._seen.moment(context_id)
            with contextlib.suppress(CoordinationLost):
                self._seen.owner_read(context_id, await self.owner(context_id), since)

    async def _register_again(self) -> None:
        while True:
            try:
                await self._register()
                await asyncio.to_thread(self._watch_folders)
                return
            except (CoordinationLost, KazooException) as error:
                log.warning("announcing this server again failed: %s; trying again", error)
                await asyncio.sleep(RECONNECT_DELAY)

    async def _register(self) -> None:
        """Announces the server; a node of an earlier life under our id is replaced."""
        me = self._announced()
        path = f"{self._root}/servers/{me.id}"
        folders = [f"{self._root}/{folder}" for folder in ("servers", "leader", "contexts")]
        for folder in (*_parents(self._root), self._root, *folders):
            await self._ignoring(NodeExistsError, self._client.create_async(folder))
        await self._ignoring(NoNodeError, self._client.delete_async(path))
        await self._call(self._client.create_async(path, server_data(me), ephemeral=True))
        if self._candidate:
            await self._ignoring(NoNodeError, self._client.delete_async(self._candidate))
        self._candidate = await self._call(
            self._client.create_async(
                f"{self._root}/leader/n-", me.id.encode(), ephemeral=True, sequence=True
            )
        )

    # watches (called from kazoo's threads)

    def _watch_folders(self) -> None:
        """Watches everything, in place of what was watched before.

        kazoo's watches live through a lost session, but a watch on a folder dies when the folder is absent at the moment
        of the return, which is what a wiped ensemble shows until the folders are made again.
        """
        watching = self._watching = _Watching()
        for folder, changed in (
            ("servers", self._on_servers),
            ("leader", self._on_candidates),
            ("contexts", self._on_contexts),
        ):
            ChildrenWatch(self._client, f"{self._root}/{folder}", self._while_current(watching, changed))

    def _while_current(
        self, watching: _Watching, changed: Callable[[_Watching, list[str]], None]
    ) -> Callable[[list[str]], bool]:
        """A watch function that ends its watch (by False) once the watches have been set anew."""

        def current(names: list[str]) -> bool:
            if watching is not self._watching:
                return False
            changed(watching, names)
            return True

        return current

    def _tell(self, watching: _Watching, news: Callable[..., None], *args: Any) -> None:
        """What was watched before is no news any more, not even when it was on its way already."""

        def told() -> None:
            if watching is self._watching:
                news(*args)

        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(told)

    def _on_servers(self, watching: _Watching, names: list[str]) -> None:
        new = set(names) - watching.servers
        watching.servers = set(names)
        self._tell(watching, self._seen.servers_left, frozenset(names))
        for name in new:
            DataWatch(self._client, f"{self._root}/servers/{name}", self._server_watch(watching, name))

    def _server_watch(self, watching: _Watching, name: str) -> Callable[[bytes | None, Any], bool]:
        def changed(data: bytes | None, _stat: Any) -> bool:
            if watching is not self._watching or name not in watching.servers:
                return False
            if data:
                self._tell(watching, self._seen.server_seen, server_of(data))
            return True

        return changed

    def _on_candidates(self, watching: _Watching, names: list[str]) -> None:
        leader = None
        if names:
            try:
                data, _ = self._client.get(f"{self._root}/leader/{min(names)}")
                leader = data.decode()
            except NoNodeError:
                leader = None
        self._tell(watching, self._seen.leader_seen, leader)

    def _on_contexts(self, watching: _Watching, names: list[str]) -> None:
        new = set(names) - watching.contexts
        watching.contexts = set(names)
        self._tell(watching, self._seen.contexts_left, frozenset(names))
        for name in new:
            DataWatch(self._client, self._owner_path(name), self._owner_watch(watching, name))

    def _owner_watch(self, watching: _Watching, context_id: str) -> Callable[[bytes | None, Any], bool]:
        def changed(data: bytes | None, _stat: Any) -> bool:
            if watching is not self._watching or context_id not in watching.contexts:
                return False
            node = owner_of(context_id, data) if data else None
            self._tell(watching, self._seen.owner_seen, context_id, node)
            return True

        return changed


@dataclass(slots=True, eq=False)
class _Watching:
    """The watches that were set at one time, and the names for which there is one of its own."""

    servers: set[str] = field(default_factory=set)
    contexts: set[str] = field(default_factory=set)


def _parents(path: str) -> list[str]:
    """The nodes above a path, from the top."""
    names = path.split("/")
    return ["/".join(names[:end]) for end in range(2, len(names))]


def _settle(future: asyncio.Future[Any], error: BaseException | None, value: Any) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
