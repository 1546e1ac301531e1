"""The checkpoint store in a real HDFS: the promises of every store, failover between NameNodes, and each kind of trouble."""

from __future__ import annotations

import http.server
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from checkpoint.base import read_manifest
from checkpoint.errors import AlreadyExists, Corrupt, Damaged, Missing, StoreUnavailable, Trouble
from checkpoint.files import FileStore
from checkpoint.hdfs import HdfsFiles
from checkpoint.stores import HdfsAccess, open_store
from checkpoint.watched import TroubleCount, WatchedFiles
from jobserver.local.hdfs import LocalHdfs
from jobserver.local.ports import LOOPBACK, free_ports
from tests.contract.test_file_store import FileStorePromises


def store_in(hdfs: LocalHdfs, *namenodes: str, **access: object) -> HdfsFiles:
    """A store in a folder of its own."""
    chosen = HdfsAccess(namenodes or (hdfs.web_url,), **access)  # type: ignore[arg-type]
    return HdfsFiles(f"{hdfs.url}/root with blank/{uuid.uuid4().hex}", chosen)


class TestHdfsKeepsThePromises(FileStorePromises):
    @pytest.fixture
    def files(self, hdfs: LocalHdfs) -> FileStore:
        return store_in(hdfs)

    @pytest.fixture
    def again(self, files: HdfsFiles, hdfs: LocalHdfs) -> FileStore:
        return HdfsFiles(files.url("x").removesuffix("/x"), HdfsAccess((hdfs.web_url,)))

    def test_an_unfinished_write_is_never_listed_nor_sealed_and_can_be_discarded(
        self, files: HdfsFiles
    ) -> None:
        files.write_new("m/done", b"x")
        files._hdfs.create(files._at("m/.dead.unfinished"), b"half")
        assert files.names("m") == ["done"]
        assert files.seal_tree("m") == {"done": 1}
        files.discard_unfinished("m")
        with pytest.raises(Missing):
            files.size("m/.dead.unfinished")

    def test_a_write_leaves_no_debris_whether_it_wins_or_not(self, files: HdfsFiles) -> None:
        files.write_new("m/name", b"x")
        with pytest.raises(AlreadyExists):
            files.write_new("m/name", b"y")
        assert [entry.name for entry in files._hdfs.entries(files._at("m"))] == ["name"]

    def test_nothing_is_moved_into_a_folder_that_has_the_name(self, files: HdfsFiles) -> None:
        files.write_new("m/folder/file", b"x")
        with pytest.raises(StoreUnavailable, match="directories"):
            files.write_new("m/folder", b"y")
        assert files.names("m/folder") == ["file"]


class TestAFolderSharedWithAnotherUser:
    """The service is an ordinary user there, as everybody is: permissions are enforced."""

    @pytest.fixture
    def files(self, hdfs: LocalHdfs) -> HdfsFiles:
        folder = f"/shared {uuid.uuid4().hex}"
        hdfs.give(folder, "service")
        return HdfsFiles(f"{hdfs.url}{folder}", HdfsAccess((hdfs.web_url,), "service"))

    def of(self, hdfs: LocalHdfs, files: HdfsFiles, user: str) -> HdfsFiles:
        return HdfsFiles(files.url("x").removesuffix("/x"), HdfsAccess((hdfs.web_url,), user))

    def write_as_spark(self, files: HdfsFiles, folder: str) -> None:
        """With the permissions that Hadoop's client asks for."""
        files._hdfs._client._mkdirs(files._at(folder), permission="777")
        files._hdfs._client.write(files._at(f"{folder}/part-0"), b"123", permission="666")

    @pytest.mark.parametrize("earlier", ["nothing", "a value of ours", "a folder of ours"])
    def test_he_writes_there_and_we_seal_read_and_remove_it(
        self, hdfs: LocalHdfs, files: HdfsFiles, earlier: str
    ) -> None:
        if earlier == "a folder of ours":
            files.write_new("c/objects/a/0/value", b"before")
        files.share("c/objects/a", "joe")
        if earlier == "a value of ours":
            files.write_new("c/objects/a/0/value", b"before")
        joes = self.of(hdfs, files, "joe")
        self.write_as_spark(joes, "c/objects/a/1")
        assert files._hdfs.owner(files._at("c/objects/a/1/part-0")) == "joe"
        assert files.seal_tree("c/objects/a/1") == {"part-0": 3}
        assert files.read("c/objects/a/1/part-0") == b"123"
        assert joes.read("c/objects/a/1/part-0") == b"123"
        files.remove("c/objects/a/1")
        assert "1" not in files.names("c/objects/a")
        self.write_as_spark(joes, "c/objects/a/2")
        files.remove("c")
        assert files.top() == []

    def test_nobody_else_reads_it_and_he_writes_nowhere_else(self, hdfs: LocalHdfs, files: HdfsFiles) -> None:
        files.write_new("c/marker/1", b"")
        files.share("c/objects/a", "joe")
        joes, eves = self.of(hdfs, files, "joe"), self.of(hdfs, files, "eve")
        self.write_as_spark(joes, "c/objects/a/1")
        for ask in (
            lambda: eves.read("c/objects/a/1/part-0"),
            lambda: eves.write_new("c/objects/a/2", b"x"),
            lambda: joes.write_new("c/marker/2", b""),
            lambda: joes.remove("c/marker/1"),
        ):
            with pytest.raises(StoreUnavailable, match="HDFS refuses this user") as refused:
                ask()
            assert refused.value.trouble is Trouble.REFUSED


def test_a_written_file_is_fsynced_by_its_datanode(hdfs: LocalHdfs) -> None:
    """As the DataNode itself counts: SYNC_BLOCK reaches it through two redirects, and nothing tells if it were lost."""
    files = store_in(hdfs)
    before = fsyncs(hdfs)
    for number in range(5):
        files.write_new(f"m/{number}", b"x")
    assert fsyncs(hdfs) >= before + 5


def fsyncs(hdfs: LocalHdfs) -> int:
    """Blocks that the DataNode has synced; it publishes every second, so each look waits for news."""
    seen = {_published(hdfs)["FsyncCount"]}
    stamp = _published(hdfs)["BytesWritten"]
    store_in(hdfs).write_new("tick", b"x")
    deadline = threading.Event()
    for _ in range(300):
        now = _published(hdfs)
        if now["BytesWritten"] != stamp:
            return int(now["FsyncCount"])
        deadline.wait(0.1)
    raise AssertionError(f"the DataNode publishes nothing new; last: {seen}")


def _published(hdfs: LocalHdfs) -> dict[str, int]:
    url = f"http://{LOOPBACK}:{hdfs.ports.data_web}/jmx?qry=Hadoop:service=DataNode,name=DataNodeActivity*"
    return dict(requests.get(url, timeout=5).json()["beans"][0])


class TestSeveralNameNodes:
    def test_one_that_is_away_is_passed_over_and_the_active_one_remembered(self, hdfs: LocalHdfs) -> None:
        away = f"http://{LOOPBACK}:{free_ports(1)[0]}"
        files = store_in(hdfs, away, hdfs.web_url)
        files.write_new("a/b", b"x")
        assert files.read("a/b") == b"x"
        assert files._hdfs._client._urls[0] == hdfs.web_url

    def test_a_standby_is_passed_over_for_every_call(self, hdfs: LocalHdfs) -> None:
        with answering(403, _remote("StandbyException", "Operation category READ is not supported")) as (
            standby,
            asked,
        ):
            files = store_in(hdfs, standby, hdfs.web_url)
            files.write_new("a/b", b"x")
            assert len(asked) == 1
            files._hdfs._client._urls.rotate(-1)
            assert files.names("a") == ["b"]
            assert len(asked) == 2

    def test_a_rename_that_was_done_without_an_answer_is_settled_by_reading_back(
        self, hdfs: LocalHdfs
    ) -> None:
        """The first NameNode carries it out and says nothing; the second then finds the name taken."""
        with losing_replies(hdfs.web_url) as silent:
            files = store_in(hdfs, silent, hdfs.web_url, timeout=2.0)
            with pytest.raises((StoreUnavailable, AlreadyExists)):
                files.write_new("a/b", b"mine")
            assert files.read("a/b") == b"mine"

    def test_without_an_active_one_the_outcome_is_unknown(self, hdfs: LocalHdfs) -> None:
        with answering(403, _remote("StandbyException", "not now")) as (standby, _):
            files = store_in(hdfs, standby, f"http://{LOOPBACK}:{free_ports(1)[0]}")
            with pytest.raises(StoreUnavailable) as caught:
                files.write_new("a/b", b"x")
            assert caught.value.trouble is Trouble.AWAY


def test_a_user_without_the_right_is_refused_with_a_sentence_and_counted(hdfs: LocalHdfs) -> None:
    count = TroubleCount()
    files = WatchedFiles(store_in(hdfs, user="stranger"), count)
    with pytest.raises(
        StoreUnavailable, match="HDFS refuses this user: Permission denied: user=stranger"
    ) as caught:
        files.write_new("a/b", b"x")
    assert caught.value.trouble is Trouble.REFUSED
    assert count.plain() == {"refused": 1}


@pytest.mark.parametrize("size", [10, 200_000], ids=["in one packet", "in many packets"])
def test_a_corrupt_block_is_proof_of_damage_once_hdfs_knows_of_it_and_is_never_read_as_good(
    hdfs: LocalHdfs, size: int
) -> None:
    files = store_in(hdfs)
    sealed = b"to be changed on the disk " + uuid.uuid4().bytes + b"x" * size
    files.write_new("a/victim", sealed)
    files.write_new("a/other", b"good")
    corrupt_block(hdfs, sealed)
    assert isinstance(refusal_in_the_end(files, "a/victim"), Corrupt)
    assert files.read("a/other") == b"good"


def corrupt_block(hdfs: LocalHdfs, sealed: bytes) -> None:
    """As a bad disk would: the block that holds a whole file has other bytes than were written."""
    blocks = [block for block in (hdfs.directory / "data").rglob("blk_*") if block.suffix != ".meta"]
    (block,) = [block for block in blocks if block.read_bytes() == sealed]
    block.write_bytes(bytes([sealed[0] ^ 1]) + sealed[1:])


def refusal_in_the_end(files: FileStore, path: str) -> Corrupt | StoreUnavailable:
    """What reading comes to: the first reads may only meet a DataNode that breaks off, until the NameNode has its report."""
    deadline = time.monotonic() + 30
    while True:
        with pytest.raises((Corrupt, StoreUnavailable)) as caught:
            files.read(path)
        if isinstance(caught.value, Corrupt) or time.monotonic() > deadline:
            return caught.value


@pytest.mark.parametrize(
    ("corrupt", "names", "proven"),
    [(True, 2, True), (True, 1, False), (False, 2, False)],
    ids=["all replicas are corrupt", "one replica is away", "all replicas are away"],
)
def test_an_unreadable_block_is_proof_of_damage_only_when_all_its_replicas_are_known_to_be_corrupt(
    corrupt: bool, names: int, proven: bool
) -> None:
    location = {"corrupt": corrupt, "names": ["host:9866"] * names, "offset": 0}
    answers = {
        "OPEN": (403, _remote("BlockMissingException", "Could not obtain block: BP-1:blk_1")),
        "GETFILESTATUS": (200, json.dumps({"FileStatus": {"replication": 2}}).encode()),
        "GETFILEBLOCKLOCATIONS": (
            200,
            json.dumps({"BlockLocations": {"BlockLocation": [location]}}).encode(),
        ),
    }
    with answering_each(answers) as url:
        files = HdfsFiles("hdfs://nn:8020/root", HdfsAccess((url,), timeout=5))
        with pytest.raises(Corrupt if proven else StoreUnavailable):
            files.read("a/b")
        with pytest.raises(Damaged if proven else StoreUnavailable):
            read_manifest(files, "c", "000000000001-000000000000", b"secret")


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (403, ("SafeModeException", "Cannot create file. Name node is in safe mode."), Trouble.SAFE_MODE),
        (403, ("NSQuotaExceededException", "The NameSpace quota is exceeded"), Trouble.FULL),
        (403, ("DSQuotaExceededException", "The DiskSpace quota is exceeded"), Trouble.FULL),
        (403, ("AccessControlException", "Permission denied: user=nobody"), Trouble.REFUSED),
        (403, ("IOException", "Failed to find datanode, suggest to check cluster health."), Trouble.AWAY),
        (500, ("WhoKnowsException", "something else\n\tat java.Trace"), Trouble.OTHER),
        (200, None, Trouble.OTHER),
        (502, None, Trouble.OTHER),
    ],
)
def test_every_refusal_of_hdfs_is_trouble_in_one_sentence_and_never_damage(
    status: int, body: tuple[str, str] | None, trouble: Trouble
) -> None:
    text = b"<html>a proxy</html>" if body is None else _remote(*body)
    with answering(status, text) as (url, _):
        files = HdfsFiles("hdfs://nn:8020/root", HdfsAccess((url,), timeout=5))
        for ask in (files.read, files.names, files.size, files.seal_tree):
            with pytest.raises(StoreUnavailable) as caught:
                ask("a/b")
            assert caught.value.trouble is trouble
            assert "\n" not in str(caught.value)


def test_an_access_without_its_proof_is_refused_with_what_to_do(tmp_path) -> None:
    for access, words in (
        (HdfsAccess(("http://nn:9870",), auth="token"), "webhdfs.token_file"),
        (HdfsAccess(("http://nn:9870",), auth="token", token_file=tmp_path / "none"), "cannot be read"),
        (HdfsAccess(("http://nn:9870",), auth="kerberos"), r"pip install 'hdfs\[kerberos\]'"),
    ):
        with pytest.raises(StoreUnavailable, match=words):
            open_store("hdfs://nn:8020/root", "c", access)


def test_a_token_goes_along_with_every_request(tmp_path) -> None:
    token = tmp_path / "token"
    token.write_text("KAAKSm9i\n")
    with answering(404, _remote("FileNotFoundException", "no")) as (url, asked):
        files = open_store("hdfs://nn/root", "c", HdfsAccess((url,), auth="token", token_file=token))
        assert files.names("a") == []
        assert "delegation=KAAKSm9i" in asked[0]


def _remote(kind: str, message: str) -> bytes:
    return json.dumps({"RemoteException": {"exception": kind, "message": message}}).encode()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that answers everything alike; its URL, and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        yield url, asked


@contextmanager
def answering_each(answers: Mapping[str, tuple[int, bytes]]) -> Iterator[str]:
    """A server with one answer for each operation of WebHDFS."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (operation,) = parse_qs(urlsplit(self.path).query)["op"]
            status, body = answers[operation]
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        yield url


@contextmanager
def losing_replies(namenode: str) -> Iterator[str]:
    """A NameNode that does what it is asked; the replies to renames get lost."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            reply = requests.request(
                self.command,
                namenode + self.path,
                data=self.rfile.read(length),
                allow_redirects=False,
                timeout=10,
            )
            if "op=RENAME" in self.path:
                assert reply.ok
                self.connection.close()
                return
            self.send_response(reply.status_code)
            for name in ("Location", "Content-Type"):
                if name in reply.headers:
                    self.send_header(name, reply.headers[name])
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        do_GET = do_PUT = do_DELETE = _pass_on

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        yield url


@contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
