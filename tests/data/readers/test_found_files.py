"""Files below a folder: links are entered, nothing is listed twice, what cannot be listed is said."""

import os

import pytest

from cerebro.data.readers.found_files import files_below, folders_below
from cerebro.errors import DataError


@pytest.fixture
def tree(tmp_path):
    """A root with a folder of its own, one behind a link elsewhere, and a link back to itself."""
    for name in ("root/own/a.edf", "root/own/deep/b.edf", "root/c.edf", "root/own/note.txt", "disk/x/d.edf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "root/linked").symlink_to(tmp_path / "disk", target_is_directory=True)
    return tmp_path / "root"


def names(root, pattern):
    return [path.relative_to(root).as_posix() for path in files_below(root, pattern)]


def test_two_stars_enter_folders_that_are_links(tree):
    assert names(tree, "**/*.edf") == ["c.edf", "linked/x/d.edf", "own/a.edf", "own/deep/b.edf"]
    assert names(tree, "own/**/*.edf") == ["own/a.edf", "own/deep/b.edf"]
    assert names(tree, "**/deep/*.edf") == ["own/deep/b.edf"]
    assert names(tree, "**/x/**/*.edf") == ["linked/x/d.edf"]
    assert names(tree, "*.edf") == ["c.edf"]
    assert names(tree, "*/*.edf") == ["own/a.edf"]
    assert names(tree, "linked/x/*.edf") == ["linked/x/d.edf"]


def test_links_in_circles_and_to_what_stands_there_anyway_list_nothing_twice(tree):
    before = names(tree, "**/*.edf")
    (tree / "a_loop").symlink_to(tree, target_is_directory=True)
    (tree / "own/deep/up").symlink_to(tree / "own", target_is_directory=True)
    (tree / "again").symlink_to(tree / "own/deep", target_is_directory=True)
    (tree / "linked/x/self").symlink_to(tree / "linked", target_is_directory=True)
    assert names(tree, "**/*.edf") == before


def test_a_root_that_is_a_link_is_entered(tree, tmp_path):
    (tmp_path / "elsewhere").symlink_to(tree, target_is_directory=True)
    assert names(tmp_path / "elsewhere", "**/b.edf") == ["own/deep/b.edf"]


def test_hidden_folders_are_entered_only_where_the_pattern_names_them(tree):
    before = names(tree, "**/*.edf")
    copy = tree / "own/.git/annex/objects/key.edf"
    copy.parent.mkdir(parents=True)
    copy.touch()
    assert names(tree, "**/*.edf") == before
    assert names(tree, "own/.git/**/*.edf") == ["own/.git/annex/objects/key.edf"]


def test_a_link_that_leads_nowhere_is_a_path_like_others(tree):
    (tree / "own/gone.edf").symlink_to(tree / "nothing")
    assert "own/gone.edf" in names(tree, "**/*.edf")


def test_a_folder_that_cannot_be_listed_is_one_line(tree, monkeypatch):
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"deep cannot be listed \(Permission denied\); make it readable"):
        folders_below(tree)
