"""What leads out of a folder, or would be waited at for ever, is found before anything is read."""

import os
import socket
from pathlib import Path

import pytest

from glora_core.data.inside import check_inside
from glora_core.errors import DataInvalid


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a data folder in it; beside the root lies somebody else's file."""
    (tmp_path / "root" / "flowers" / "train" / "tulip").mkdir(parents=True)
    (tmp_path / "root" / "flowers" / "train" / "tulip" / "0.png").write_bytes(b"own")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "secret").write_text("secret")
    return tmp_path / "root"


@pytest.mark.parametrize("target", ["theirs/secret", "theirs", "theirs/nothing"])
@pytest.mark.parametrize("place", ["train800.txt", "train/tulip/1.png", "train/rose"])
def test_a_link_to_the_outside_is_refused_by_its_name_in_the_folder(target, place, root, tmp_path):
    (root / "flowers" / place).symlink_to(tmp_path / target)
    with pytest.raises(DataInvalid, match=f"link '{place}' leads to what does not lie below {root}") as refusal:
        check_inside(root / "flowers", [root])
    assert target not in str(refusal.value)


def test_without_roots_links_may_lead_anywhere(root, tmp_path):
    (root / "flowers" / "more").symlink_to(tmp_path / "theirs")
    check_inside(root / "flowers", [])


def test_links_within_the_roots_are_followed_to_links_that_leave_them(root, tmp_path):
    (root / "shared").mkdir()
    (root / "flowers" / "train" / "rose").symlink_to(root / "shared")
    check_inside(root / "flowers", [root])
    (root / "shared" / "1.png").symlink_to(tmp_path / "theirs" / "secret")
    with pytest.raises(DataInvalid, match=r"link 'train/rose/1\.png' leads"):
        check_inside(root / "flowers", [root])


def test_a_link_by_way_of_another_is_judged_by_where_it_ends(root, tmp_path):
    (root / "way").symlink_to(tmp_path / "theirs" / "secret")
    (root / "flowers" / "val").symlink_to(root / "way")
    with pytest.raises(DataInvalid, match="link 'val' leads"):
        check_inside(root / "flowers", [root])


def test_roots_that_are_links_themselves_are_known_by_where_they_lead(root, tmp_path):
    (tmp_path / "data").symlink_to(root)
    (root / "flowers" / "val").symlink_to(tmp_path / "data" / "flowers" / "train")
    check_inside(tmp_path / "data" / "flowers", [tmp_path / "data"])


def test_links_in_a_ring_come_to_an_end(root):
    (root / "flowers" / "round").symlink_to(root / "flowers")
    (root / "flowers" / "itself").symlink_to(root / "flowers" / "itself")
    check_inside(root / "flowers", [root])


def test_a_file_is_looked_at_by_itself(root, tmp_path):
    (root / "own.csv").write_text("text,label\n")
    check_inside(root / "own.csv", [root])
    (root / "link.csv").symlink_to(tmp_path / "theirs" / "secret")
    with pytest.raises(DataInvalid, match=r"link\.csv' leads to what does not lie below"):
        check_inside(root / "link.csv", [root])


def test_what_does_not_exist_is_left_to_its_reader(root):
    check_inside(root / "nothing", [root])


@pytest.mark.parametrize("roots", [True, False], ids=["roots", "no roots"])
@pytest.mark.parametrize("way", ["plainly", "by a link", "alone"])
def test_a_pipe_is_refused(way, roots, root):
    pipe = root / "pipe" if way == "by a link" else root / "flowers" / "train.csv"
    os.mkfifo(pipe)
    if way == "by a link":
        (root / "flowers" / "train.csv").symlink_to(pipe)
    with pytest.raises(DataInvalid, match=r"train\.csv' is a pipe, a socket or a device; accepted are files and folders"):
        check_inside(pipe if way == "alone" else root / "flowers", [root] if roots else [])


def test_a_socket_is_refused(root, monkeypatch):
    monkeypatch.chdir(root / "flowers")  # the address of a socket has a hundred characters at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("listening")
        with pytest.raises(DataInvalid, match="'listening' is a pipe, a socket or a device"):
            check_inside(root / "flowers", [])


def test_a_long_name_is_told_in_short(root, tmp_path):
    (root / "flowers" / ("x" * 250)).symlink_to(tmp_path / "theirs")
    with pytest.raises(DataInvalid) as refusal:
        check_inside(root / "flowers", [root])
    assert "x" * 100 not in str(refusal.value)
