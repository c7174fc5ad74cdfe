"""Copies of code: of the same content the same one, all of it or nothing."""

import os
import shutil
from pathlib import Path

import pytest

from loadshed import ConfigError
from loadshed.serve import _store
from loadshed.serve._store import LEFT_OUT, CodeStore, files_of


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A directory of code."""
    path = tmp_path / "app"
    (path / "package").mkdir(parents=True)
    (path / "main.py").write_text("x = 1")
    (path / "package" / "inner.py").write_text("y = 2")
    return path


@pytest.fixture
def store(tmp_path: Path) -> CodeStore:
    return CodeStore(tmp_path / "state" / "code")


def add(store: CodeStore, path: Path) -> Path:
    return store.add("working_dir", str(path))


def there(path: Path) -> dict[str, str]:
    """What lies in a directory."""
    return {str(each.relative_to(path)): each.read_text() for each in files_of(path)}


def test_a_copy_has_the_files_and_the_name_of_the_directory(store: CodeStore, code: Path) -> None:
    copy = add(store, code)
    assert copy != code
    assert copy.name == "app"  # the name of a package, where it is a `py_module`
    assert there(copy) == there(code) == {"main.py": "x = 1", "package/inner.py": "y = 2"}


def test_it_is_for_this_user_alone(store: CodeStore, code: Path) -> None:
    copy = add(store, code)
    assert copy.parent.parent.stat().st_mode & 0o077 == 0


def test_what_has_not_changed_has_the_same_copy(store: CodeStore, code: Path) -> None:
    copy = add(store, code)
    inode = copy.stat().st_ino
    os.utime(code / "main.py", (1, 1))
    assert add(store, code) == copy
    assert copy.stat().st_ino == inode
    assert [each.name for each in copy.parent.parent.iterdir()] == [copy.parent.name]


def _change(path: Path) -> None:
    (path / "main.py").write_text("x = 3")


def _swap(path: Path) -> None:
    shutil.copy(path / "main.py", path / "x")
    shutil.copy(path / "package/inner.py", path / "main.py")
    (path / "x").rename(path / "package/inner.py")


@pytest.mark.parametrize(
    "change",
    [
        _change,
        _swap,
        lambda path: (path / "more.txt").touch(),
        lambda path: (path / "main.py").unlink(),
        lambda path: (path / "main.py").rename(path / "main2.py"),
        lambda path: (path / "main.py").chmod(0o755),
    ],
    ids=["other content", "swapped", "one more", "one less", "another name", "executable"],
)
def test_what_has_changed_has_a_copy_of_its_own_and_the_old_one_stays(
    store: CodeStore, code: Path, change: object
) -> None:
    before = add(store, code)
    change(code)  # type: ignore[operator]
    after = add(store, code)
    assert after.parent != before.parent
    assert there(after) == there(code)
    assert there(before) == {"main.py": "x = 1", "package/inner.py": "y = 2"}


def test_a_directory_of_another_name_has_a_copy_of_its_own(store: CodeStore, code: Path) -> None:
    other = code.with_name("other")
    shutil.copytree(code, other)
    assert add(store, other).name == "other"
    assert add(store, code).name == "app"


def test_a_directory_is_called_what_it_is_called_however_it_is_reached(
    store: CodeStore, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = add(store, code)
    link = code.with_name("link")
    link.symlink_to(code)
    assert add(store, link) == add(store, code / "package" / "..") == copy
    monkeypatch.chdir(code)
    assert store.add("working_dir", ".") == copy


def test_what_is_no_code_is_left_out(store: CodeStore, code: Path) -> None:
    copy = add(store, code)
    for name in LEFT_OUT:
        (code / "package" / name).mkdir()
        (code / "package" / name / "x.py").touch()
    assert add(store, code) == copy
    assert sorted(each.name for each in files_of(code)) == ["inner.py", "main.py"]


def test_links_to_files_are_followed_and_those_to_nothing_are_left_out(
    store: CodeStore, code: Path
) -> None:
    (code / "link.py").symlink_to(code / "main.py")
    (code / "broken.py").symlink_to(code / "nothing")
    os.mkfifo(code / "pipe")
    copy = add(store, code)
    assert {*there(copy)} == {"main.py", "package/inner.py", "link.py"}
    assert not (copy / "link.py").is_symlink()


def test_a_package_that_is_a_link_is_code_as_well(store: CodeStore, code: Path) -> None:
    shared = code.with_name("shared")
    shared.mkdir()
    (shared / "inner.py").touch()
    (code / "linked").symlink_to(shared)
    assert (add(store, code) / "linked" / "inner.py").exists()


def test_an_empty_directory_is_copied_too(store: CodeStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    copy = add(store, tmp_path / "empty")
    assert copy.is_dir()
    assert there(copy) == {}


def test_a_file_may_have_any_name(store: CodeStore, code: Path) -> None:
    odd = os.fsdecode(b"\xff.txt")
    (code / odd).touch()
    try:
        copy = add(store, code)
    except ConfigError:
        return
    assert (copy / odd).exists()


@pytest.mark.parametrize("path", ["nothing", "app/main.py"])
def test_what_is_no_directory_is_refused(store: CodeStore, code: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=r"^working_dir must be a directory that exists, not "):
        add(store, code.parent / path)


def test_one_that_is_too_large_is_refused_and_nothing_is_copied(
    store: CodeStore, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "LARGEST", 2 * 1024**2)
    for name in ("a", "b"):
        with (code / name).open("wb") as file:
            file.truncate(1024**2 - 5)
    copy = add(store, code)  # with the 10 bytes of the others, it is exactly as large as it may be
    (code / "c").write_text("x")
    with pytest.raises(ConfigError, match="working_dir must be a directory of at most 2 MiB"):
        add(store, code)
    assert [*copy.parent.parent.iterdir()] == [copy.parent]


def test_one_that_can_not_be_copied_is_told_of_and_leaves_nothing(
    store: CodeStore, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    copy = add(store, code)
    (code / "main.py").write_text("x = 3")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", fail)
        with pytest.raises(ConfigError, match=r"can be copied \(\[Errno 28\] No space left"):
            add(store, code)
    assert [*copy.parent.parent.iterdir()] == [copy.parent]
    assert there(add(store, code))["main.py"] == "x = 3"


def test_a_copy_that_another_one_has_made_meanwhile_is_taken(
    tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them may be made at a time: a `describe` of the command line knows no lock."""
    one, other = CodeStore(tmp_path / "code"), CodeStore(tmp_path / "code")
    copy2 = shutil.copy2

    def copy_and_be_overtaken(*args: object) -> None:
        monkeypatch.setattr(shutil, "copy2", copy2)
        add(other, code)
        copy2(*args)  # type: ignore[call-overload]

    monkeypatch.setattr(shutil, "copy2", copy_and_be_overtaken)
    assert add(one, code) == add(other, code)


def test_copies_that_nobody_needs_are_removed(store: CodeStore, code: Path) -> None:
    first = add(store, code)
    _change(code)
    second = add(store, code)
    directory = first.parent.parent
    (directory / "tmpabc" / "code").mkdir(parents=True)  # of a server that was killed
    store.keep([str(second), str(code), "relative/path"])
    assert [*directory.iterdir()] == [second.parent]
    assert there(second)["main.py"] == "x = 3"
    store.keep([str(second.parent)])  # the path of a `py_module` is one above
    assert [*directory.iterdir()] == [second.parent]
    store.keep([])
    assert [*directory.iterdir()] == []
    assert code.exists()


def test_where_there_are_none_none_is_removed(store: CodeStore, tmp_path: Path) -> None:
    store.keep([str(tmp_path)])
    assert not (tmp_path / "state").exists()


def test_files_come_in_an_order_that_is_always_the_same(code: Path) -> None:
    for name in ("b.txt", "a.py", "package/z.py", "other/c.py"):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).touch()
    found = [str(each.relative_to(code)) for each in files_of(code)]
    assert found == ["a.py", "b.txt", "main.py", "other/c.py", "package/inner.py", "package/z.py"]
    only = [str(each.relative_to(code)) for each in files_of(code, ".py")]
    assert only == [each for each in found if each.endswith(".py")]


def test_a_link_that_leads_back_is_followed_once(store: CodeStore, code: Path) -> None:
    (code / "again").symlink_to(code)
    assert not (add(store, code) / "again" / "again").exists()


def test_a_copy_that_can_not_be_put_in_its_place_is_told(
    store: CodeStore, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ConfigError, match="broken"):
        add(store, code)
