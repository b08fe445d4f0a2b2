from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import DeviceLost, DevicePermission
from pals_grid.node.vllm.channel import (
    ChannelFile,
    FrontFile,
    RankFile,
    hold_agent_lock,
    prepare_directory,
)
from pals_grid.node.vllm.layout import Control
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

MAKER = """
import sys, time
from pathlib import Path
from pals_grid.node.vllm.channel import RankFile
file = RankFile.create_rank(Path(sys.argv[1]), 0)
print("made", flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "channel"


def start_maker(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, directory], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "made\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(PATIENCE_S)
    assert process.stdout is not None
    process.stdout.close()


def test_both_sides_see_what_the_other_wrote(directory: Path) -> None:
    with RankFile.create_rank(directory, 3) as ours:
        with RankFile.open(directory / "rank-3", RankFile.SIZE) as theirs:
            theirs.control.write(Control(1, 8, 0, 5.0))
            assert ours.control.read() == Control(1, 8, 0, 5.0)
            assert theirs.maker.pid == os.getpid()
            assert theirs.is_alive()
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "rank-3").stat().st_mode & 0o777 == 0o600
    assert not (directory / "rank-3").exists()


def test_the_end_of_the_maker_is_seen_and_its_file_made_anew(directory: Path) -> None:
    maker = start_maker(directory)
    try:
        file = RankFile.open(directory / "rank-0", RankFile.SIZE)
        assert file.is_alive()
        with pytest.raises(DeviceLost, match=f"process {maker.pid} uses it already"):
            RankFile.create_rank(directory, 0)
        maker.send_signal(signal.SIGSTOP)  # stopped is not dead
        assert file.is_alive()
    finally:
        end(maker)
    assert not file.is_alive()
    with RankFile.create_rank(directory, 0) as anew:
        assert anew.is_alive()
        assert not file.is_alive()
    file.close()


def test_a_maker_whose_process_cannot_be_seen_is_judged_by_its_lock(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = start_maker(directory)
    monkeypatch.setattr("pals_grid.node.vllm.channel._namespace", lambda: 1)
    try:
        file = RankFile.open(directory / "rank-0", RankFile.SIZE)
        assert not file.maker.is_gone()
        assert file.is_alive()
    finally:
        end(maker)
    assert not file.maker.is_gone()
    assert not file.is_alive()
    file.close()


def test_a_lock_that_a_child_inherited_does_not_pass_for_life(directory: Path) -> None:
    maker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            MAKER.replace(
                'print("made"',
                "import os\nif os.fork() == 0: time.sleep(600)\nprint(os.getpid()",
            ),
            directory,
        ],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert maker.stdout is not None
    assert int(maker.stdout.readline()) == maker.pid
    try:
        file = RankFile.open(directory / "rank-0", RankFile.SIZE)
        assert file.is_alive()
        maker.kill()
        maker.wait(PATIENCE_S)
        assert not file.is_alive()
        file.close()
    finally:
        os.killpg(maker.pid, signal.SIGKILL)
        maker.stdout.close()


def test_a_directory_that_everybody_may_write_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(DevicePermission, match="must not be writable by everybody"):
        RankFile.create_rank(directory, 0)
    with pytest.raises(DevicePermission, match="must not be writable by everybody"):
        RankFile.open(directory / "rank-0", RankFile.SIZE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_strangers_directory_is_refused_unless_a_group_shares_it(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    os.chown(directory, 12345, 12345)
    with pytest.raises(DevicePermission, match="must belong to this user"):
        prepare_directory(directory)
    os.chown(directory, 12345, os.getegid())
    directory.chmod(0o2770)
    prepare_directory(directory)
    with RankFile.create_rank(directory, 0):
        assert (directory / "rank-0").stat().st_mode & 0o777 == 0o660


def test_a_group_gets_directory_and_files(directory: Path) -> None:
    with FrontFile.create_front(directory, 0, group=os.getegid()) as file:
        assert directory.stat().st_mode & 0o7777 == 0o2770
        assert file.path.stat().st_mode & 0o777 == 0o660
        assert file.path.stat().st_gid == os.getegid()


def test_a_link_in_place_of_a_file_is_not_followed(directory: Path, tmp_path: Path) -> None:
    prepare_directory(directory)
    (tmp_path / "elsewhere").write_bytes(bytes(512))
    (directory / "rank-0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeviceLost, match="rank-0"):
        RankFile.open(directory / "rank-0", RankFile.SIZE)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is no channel"), (b"x" * 512, "is no channel"), (b"PALSGRID" + bytes(504), "layout")],
)
def test_another_file_is_refused(directory: Path, content: bytes, why: str) -> None:
    prepare_directory(directory)
    (directory / "rank-0").write_bytes(content)
    with pytest.raises(DeviceLost, match=why):
        RankFile.open(directory / "rank-0", RankFile.SIZE)


def test_another_layout_is_refused_by_both_sides(directory: Path) -> None:
    with ChannelFile.create(directory / "rank-0", 256), pytest.raises(DeviceLost, match="256"):
        RankFile.open(directory / "rank-0", RankFile.SIZE)


def test_front_ends_that_died_leave_no_files_behind(directory: Path) -> None:
    program = MAKER.replace("RankFile.create_rank", "FrontFile.create_front")
    maker = subprocess.Popen(
        [sys.executable, "-c", program.replace("import RankFile", "import FrontFile"), directory],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert maker.stdout is not None
    assert maker.stdout.readline() == "made\n"
    living = directory / f"front-0-{maker.pid}"
    FrontFile.create_front(directory, 1).close()
    assert living.exists()
    end(maker)
    with FrontFile.create_front(directory, 1):
        assert not living.exists()


def test_one_agent_writes(directory: Path) -> None:
    prepare_directory(directory)
    with (
        hold_agent_lock(directory),
        pytest.raises(DevicePermission, match="another agent"),
        hold_agent_lock(directory),
    ):
        pass
    with hold_agent_lock(directory):
        pass
    with pytest.raises(DevicePermission, match=r"agent\.lock"), hold_agent_lock(directory / "no"):
        pass


def test_nothing_is_left_open(directory: Path) -> None:
    for _ in range(3):
        with RankFile.create_rank(directory, 0):
            RankFile.open(directory / "rank-0", RankFile.SIZE).close()
            assert opened_in(directory)
    assert opened_in(directory) == []


def opened_in(directory: Path) -> list[str]:
    """What this process has open there; other threads may open and close files elsewhere."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - one of them is its own
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115 - may be no path
    return [path for path in found if path.startswith(f"{directory}/")]


def test_a_file_of_another_version_is_made_anew_once_its_maker_died(directory: Path) -> None:
    prepare_directory(directory)
    program = MAKER.replace("RankFile.create_rank", "ChannelFile.create").replace(
        "import RankFile", "import ChannelFile"
    )
    program = program.replace("Path(sys.argv[1]), 0", 'Path(sys.argv[1]) / "rank-0", 256')
    maker = subprocess.Popen(
        [sys.executable, "-c", program, directory], stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    assert maker.stdout.readline() == "made\n"
    try:
        with pytest.raises(DeviceLost, match="256"):
            RankFile.create_rank(directory, 0)
    finally:
        end(maker)
    with RankFile.create_rank(directory, 0) as anew:
        assert anew.is_alive()


@pytest.mark.parametrize("lives", [True, False])
def test_a_maker_that_is_hidden_is_judged_by_whether_its_id_is_taken(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, lives: bool
) -> None:
    maker = start_maker(directory)
    file = RankFile.open(directory / "rank-0", RankFile.SIZE)
    monkeypatch.setattr("pals_grid.node.vllm.channel._started_ticks", lambda _: None)
    if not lives:
        end(maker)
    try:
        assert file.maker.is_gone() is not lives
        assert file.is_alive() is lives
    finally:
        if lives:
            end(maker)
        file.close()


def test_the_lock_is_the_groups_where_the_directory_is(directory: Path) -> None:
    prepare_directory(directory)
    with hold_agent_lock(directory):
        assert (directory / "agent.lock").stat().st_mode & 0o777 == 0o600
    prepare_directory(directory, os.getegid())
    mask = os.umask(0o077)
    try:
        with hold_agent_lock(directory):
            assert (directory / "agent.lock").stat().st_mode & 0o777 == 0o660
            assert (directory / "agent.lock").stat().st_gid == os.getegid()
    finally:
        os.umask(mask)
