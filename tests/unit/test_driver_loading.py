"""Rewrapped bundles and loading, without Spark: what is shipped is only recorded."""

import hashlib
import io
import zipfile

import pytest

from jobserver.driver.bundles import BrokenBundle, rewrap, without_root
from jobserver.driver.loading import DriverBinary, JobLoader, LoadRefused
from jobserver.model import BinaryType, OutcomeKind


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return out.getvalue()


@pytest.fixture
def load(tmp_path):
    shipped = []
    loader = JobLoader(tmp_path / "bundles", shipped.append)

    def loaded(data, main, kind=BinaryType.ZIP, digest=None):
        data = data.encode() if isinstance(data, str) else data
        path = tmp_path / "binary"
        path.write_bytes(data)
        digest = digest or hashlib.sha256(data).hexdigest()
        return loader.load(main, [DriverBinary("b", kind, digest, path)])

    loaded.shipped = shipped
    return loaded


def test_a_wheel_loses_its_metadata_and_its_purelib_is_hoisted():
    data = zipped(
        {"a.py": "", "x-1.dist-info/RECORD": "", "x-1.data/purelib/b/__init__.py": "", "EGG-INFO/x": ""}
    )
    bundle = rewrap(data, BinaryType.WHEEL, "0123456789abcdef", "a")
    assert bundle.root == "c0123456789ab"
    assert bundle.tops == ("a", "b")
    with zipfile.ZipFile(io.BytesIO(bundle.data)) as archive:
        root = bundle.root
        assert sorted(archive.namelist()) == [f"{root}/__init__.py", f"{root}/a.py", f"{root}/b/__init__.py"]


@pytest.mark.parametrize("data", [b"", b"no zip", zipped({"a.py": "x"})[:-30]], ids=["empty", "text", "cut"])
def test_bytes_that_are_no_zip_are_refused(data):
    with pytest.raises(BrokenBundle):
        rewrap(data, BinaryType.EGG, "00", "a")


def test_names_of_bundles_are_hidden_from_users():
    assert without_root("c0123456789ab.jobs.Broken: c0123456789ab.x in abc0123456789ab.y") == (
        "jobs.Broken: x in abc0123456789ab.y"
    )


def test_a_single_file_is_the_module_that_the_main_class_names(load):
    source = "def run(s, e, c): return __name__"
    assert load(source, "any.name:run", BinaryType.PYTHON).target(0, 0, 0).endswith(".any.name")
    assert load(source, "other:run", BinaryType.PYTHON).target(0, 0, 0).endswith(".other")
    assert len(load.shipped) == 2


def test_a_version_is_shipped_once_and_two_versions_do_not_meet(load):
    def version(number):
        text = "def value():\n    import helper\n    from lib import deep\n    return [helper.V, deep.V]"
        return zipped(
            {
                "job.py": text,
                "helper.py": f"V = {number}",
                "lib/__init__.py": "",
                "lib/deep.py": f"V = {number}",
            }
        )

    for _ in range(2):
        assert load(version(1), "job:value").target() == [1, 1]
        assert load(version(2), "job:value").target() == [2, 2]
    assert len(load.shipped) == 2


def test_imports_by_name_and_of_other_packages_work_inside_a_bundle(load):
    text = (
        "import importlib, json, xml.dom as dom\nimport lib.deep\n"
        "def value(): return [importlib.import_module('lib.deep').V, lib.deep.V, json.dumps(1), dom.__name__]"
    )
    data = zipped({"job.py": text, "lib/__init__.py": "", "lib/deep.py": "V = 7"})
    assert load(data, "job:value").target() == [7, 7, "1", "xml.dom"]


@pytest.mark.parametrize(
    ("source", "main", "kind", "text"),
    [
        ("x = 1", "job", OutcomeKind.NOT_FOUND, "package.module.Class"),
        ("x = 1", "job.None There", OutcomeKind.NOT_FOUND, "package.module.Class"),
        ("x = 1", "job.Gone", OutcomeKind.NOT_FOUND, "Gone"),
        ("x = 1", "job:x", OutcomeKind.NOT_FOUND, "x"),
        ("class A: pass", "job.A", OutcomeKind.LOADING_FAILED, "run_job"),
        ("import not_installed_anywhere", "job.A", OutcomeKind.LOADING_FAILED, "not_installed_anywhere"),
        ("1 +", "job.A", OutcomeKind.LOADING_FAILED, "SyntaxError"),
        ("raise SystemExit(2)", "job.A", OutcomeKind.LOADING_FAILED, "SystemExit"),
    ],
)
def test_what_cannot_be_loaded_says_why(load, source, main, kind, text):
    with pytest.raises(LoadRefused) as refused:
        load(zipped({"job.py": source}), main)
    assert refused.value.kind is kind
    assert text in refused.value.error.message


def test_an_absent_module_is_not_found_and_a_missing_dependency_is_not(load):
    with pytest.raises(LoadRefused) as refused:
        load(zipped({"job.py": ""}), "other.module.Class")
    assert refused.value.kind is OutcomeKind.NOT_FOUND


def test_a_failing_import_brings_its_stack(load):
    with pytest.raises(LoadRefused) as refused:
        load(zipped({"job.py": "def f():\n    1/0\nf()"}), "job.A")
    assert refused.value.error.error_class == "ZeroDivisionError"
    assert "in f" in refused.value.error.stack


def test_bytes_that_do_not_have_the_digest_are_refused(load):
    with pytest.raises(LoadRefused, match="digest"):
        load(zipped({"job.py": ""}), "job.A", digest="0" * 64)
