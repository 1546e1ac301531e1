"""Code at addresses: what is read, what is refused, and that it is a binary like any other afterwards."""

import http.server
import threading

import pytest

from jobserver.addresses import fetcher, is_address, kind_of, refuse
from jobserver.binaries import Binaries, names_of_context
from jobserver.errors import BadBinary, ContextInitFailed, JobLoadingFailed, NotFound
from jobserver.model import BinaryRef, BinaryType, JobSpec
from tests.fakes.database import FakeStore
from tests.fakes.files import FaultyFiles
from tests.fakes.metadata import FakeMetadata

CODE = b"x = 1\n"


async def anything(kind, data):
    """Every byte will do."""


FETCH = fetcher(most=1000, seconds=5, check=anything)


@pytest.fixture(scope="module")
def site():
    """A web server: /x.py is code, /long.py too long, /slow.py never ends, /moved.py is elsewhere."""
    released = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/moved.py":
                self.send_response(302)
                self.send_header("Location", "file:///etc/hostname")
                self.end_headers()
                return
            self.send_response(200 if self.path in ("/x.py", "/long.py", "/slow.py") else 404)
            self.end_headers()
            self.wfile.write(CODE * 500 if self.path == "/long.py" else CODE)
            if self.path == "/slow.py":
                self.wfile.flush()
                released.wait(20)

        def log_message(self, *_):
            """Quietly."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("http://h/x.jar", True),
        ("LOCAL:/x", True),
        ("file:///x", True),
        ("a", False),
        ("s3:x", False),
        ("", False),
    ],
)
def test_an_address_has_a_scheme_that_existing_servers_load_from(name, yes):
    assert is_address(name) is yes


def test_the_kind_is_the_ending_of_the_path():
    assert kind_of("http://h/a/x.JAR?version=2") is BinaryType.JAR
    assert kind_of("file:///opt/x%2Ewhl") is BinaryType.WHEEL
    for odd in ("http://h/x", "http://h/x.exe", "http://[::1/x.py"):
        with pytest.raises(JobLoadingFailed):
            kind_of(odd)


async def test_code_is_read_from_the_web_and_from_files_of_the_server(site, tmp_path):
    (tmp_path / "a b.py").write_bytes(CODE)
    assert await FETCH(f"{site}/x.py") == (BinaryType.PYTHON, CODE)
    for scheme in ("file://", "file:", "local:"):
        assert await FETCH(f"{scheme}{tmp_path}/a%20b.py") == (BinaryType.PYTHON, CODE)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("{site}/absent.py", "404"),
        ("{site}/long.py", "more than 1000 bytes"),
        ("{site}/moved.py", "not allowed"),
        ("http://127.0.0.1:1/x.py", "refused"),
        ("file:///nothing/here.py", "no such file"),
        ("file:///tmp/..", "ends in none of"),
        ("file://elsewhere/x.py", "not the address of a file of this server"),
        ("file:x.py", "not the address of a file of this server"),
        ("local:{folder}", "no such file"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_the_reason(site, tmp_path, address, why):
    folder = tmp_path / "folder.py"
    folder.mkdir()
    with pytest.raises(JobLoadingFailed, match=why) as refused:
        await FETCH(address.format(site=site, folder=folder))
    assert refused.value.error_class == "java.io.IOException"


async def test_an_address_that_never_ends_is_given_up(site):
    with pytest.raises(JobLoadingFailed, match=r"timed out|in time"):
        await fetcher(most=1000, seconds=0.3, check=anything)(f"{site}/slow.py")


async def test_bytes_that_cannot_be_code_are_refused(site):
    async def nothing(kind, data):
        raise BadBinary("Binary is not of the right format")

    with pytest.raises(BadBinary):
        await fetcher(most=1000, seconds=5, check=nothing)(f"{site}/x.py")


class Site:
    """What lies at every address, and how often it was read."""

    def __init__(self):
        self.data, self.reads = CODE, 0

    async def __call__(self, address):
        self.reads += 1
        return kind_of(address), self.data


@pytest.fixture
def read():
    return Site()


@pytest.fixture
def binaries(read):
    return Binaries(FakeMetadata(FakeStore()), FaultyFiles(), read)


async def test_code_at_an_address_is_a_binary_that_no_list_shows(binaries, read):
    first = await binaries.refs(("http://h/x.py",))
    assert await binaries.refs(("http://h/x.py",)) == first
    read.data = b"y = 2\n"
    second = await binaries.refs(("http://h/x.py",))
    assert (second[0].name, second[0].digest != first[0].digest) == ("http://h/x.py", True)
    assert read.reads == 3, "each submission gets what lies there now"
    assert await binaries.all() == []
    await binaries.delete("http://h/x.py")


async def test_a_server_may_be_told_to_read_no_addresses():
    with pytest.raises(JobLoadingFailed, match=r"binaries\.addresses"):
        await Binaries(FakeMetadata(FakeStore()), FaultyFiles(), refuse).refs(("http://h/x.py",))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ()),
        ({"cp": "a, b,", "dependent-jar-uris": ["c", "a"]}, ("a", "b", "c")),
        ({"dependent-jar-uris": None, "cp": "3"}, ("3",)),
    ],
)
def test_the_code_of_a_context(settings, names):
    assert names_of_context(settings) == names


async def test_jvm_jobs_get_the_jars_of_their_context_behind_their_own(binaries, read):
    settings = {"cp": ["lib", "http://h/x.jar"]}
    await binaries.upload("lib", BinaryType.PYTHON, b"z = 3\n")
    await binaries.check_context(settings)
    read.data = b"changed"
    jar = BinaryRef("job", BinaryType.JAR, "1" * 64)
    wheel = BinaryRef("job", BinaryType.WHEEL, "2" * 64)
    of_jvm = (await binaries.beside(JobSpec("m.C", (jar,)), settings)).binaries
    assert [ref.name for ref in of_jvm] == ["job", "http://h/x.jar"]
    assert (await binaries.beside(JobSpec("m.C", of_jvm), settings)).binaries == of_jvm
    assert (await binaries.beside(JobSpec("m.C", (wheel,)), settings)).binaries == (wheel,)
    assert (await binaries.beside(JobSpec("sql", ()), settings)).binaries == ()
    assert read.reads == 1, "as it was when the context was created"


async def test_a_context_with_code_that_is_not_there_does_not_start(binaries):
    with pytest.raises(ContextInitFailed, match="nothing"):
        await binaries.check_context({"cp": "nothing"})
    with pytest.raises(NotFound, match="appName nothing not found"):
        await binaries.refs(("nothing",))
