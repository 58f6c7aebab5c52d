"""How much memory there is: the machine's, or what a container or a job may have of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from foreword.backbone.memory import free
from foreword.common import memory
from foreword.common.memory import Memory, of_machine
from foreword.comparing.executing import MEMORY_A_PROCESS, processes_that_pay

GIB = 2**30
MACHINE = Memory(whole=64 * GIB, free=48 * GIB)


class Groups:
    """Control groups in a folder, in place of the machine's."""

    def __init__(self, root: Path, own: Path) -> None:
        self.root, self.own = root, own

    def belongs_to(self, *lines: str) -> None:
        self.own.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def second(self, path: str, limit: int | str, used: int, inactive: int = 0) -> None:
        names = "memory.max", "memory.current", "inactive_file"
        self._write(self.root / path, names, limit, used, inactive)

    def first(self, path: str, limit: int, used: int, inactive: int = 0) -> None:
        names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        self._write(self.root / "memory" / path, names, limit, used, inactive)

    def _write(
        self, folder: Path, names: tuple[str, str, str], limit: int | str, used: int, inactive: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {inactive}\nactive_file 7\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    machine = SimpleNamespace(total=MACHINE.whole, available=MACHINE.free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    made = Groups(tmp_path / "groups", tmp_path / "own")
    monkeypatch.setattr(memory, "_GROUPS", made.root)
    monkeypatch.setattr(memory, "_OWN_GROUPS", made.own)
    return made


def test_a_machine_without_control_groups(groups: Groups) -> None:
    assert not groups.own.exists()
    assert of_machine() == MACHINE


def test_a_container_of_the_second_version(groups: Groups) -> None:
    groups.belongs_to("0::/")
    groups.second(".", 8 * GIB, 3 * GIB)
    assert of_machine() == (8 * GIB, 5 * GIB)


def test_a_container_of_the_first_version_that_sees_itself_as_the_root(groups: Groups) -> None:
    groups.belongs_to("5:cpu:/docker/abc", "4:hugetlb,memory:/docker/abc", "0::/")
    groups.first(".", 8 * GIB, 3 * GIB)
    assert of_machine() == (8 * GIB, 5 * GIB)


def test_pages_of_files_that_can_be_dropped_are_free(groups: Groups) -> None:
    groups.belongs_to("0::/")
    groups.second(".", 8 * GIB, 8 * GIB, inactive=6 * GIB)
    assert of_machine() == (8 * GIB, 6 * GIB)
    groups.belongs_to("4:memory:/")
    groups.first(".", 8 * GIB, 8 * GIB, inactive=5 * GIB)
    assert of_machine() == (8 * GIB, 5 * GIB)


@pytest.mark.parametrize(("own", "above"), [(8, 16), (16, 8)])
def test_the_lowest_limit_on_the_way_up_counts(own: int, above: int, groups: Groups) -> None:
    groups.belongs_to("0::/slurm/job_7/step_0")
    groups.second("slurm/job_7/step_0", own * GIB, GIB)
    groups.second("slurm/job_7", "max", 2 * GIB)
    groups.second("slurm", above * GIB, 2 * GIB)
    groups.second("other", GIB, GIB)
    assert of_machine() == (8 * GIB, 7 * GIB if own == 8 else 6 * GIB)


@pytest.mark.parametrize("limit", [2**63 - 4096, 65 * GIB])
def test_a_limit_above_the_machines_is_none(limit: int, groups: Groups) -> None:
    groups.belongs_to("4:memory:/")
    groups.first(".", limit, 3 * GIB)
    assert of_machine() == MACHINE


def test_a_full_machine_has_no_more_than_is_free(groups: Groups) -> None:
    groups.belongs_to("0::/")
    groups.second(".", 60 * GIB, 2 * GIB)
    assert of_machine() == (60 * GIB, MACHINE.free)
    groups.second(".", 8 * GIB, 9 * GIB)  # what is used may be over a limit that was lowered
    assert of_machine() == (8 * GIB, 0)


def test_what_training_and_comparisons_ask_for_is_the_containers(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    assert processes_that_pay(32, "cpu") == MACHINE.free // MEMORY_A_PROCESS
    groups.belongs_to("0::/")
    groups.second(".", 3 * MEMORY_A_PROCESS, MEMORY_A_PROCESS)
    assert processes_that_pay(32, "cpu") == 2
    assert free(torch.device("cpu")) == 2 * MEMORY_A_PROCESS


def test_how_much_serving_may_take_is_of_the_containers(groups: Groups) -> None:
    from foreword.serving.memory import _memory

    groups.belongs_to("0::/")
    groups.second(".", 8 * GIB, 3 * GIB)
    assert _memory(torch.device("cpu")) == 8 * GIB


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_this_machine() -> None:
    here = of_machine()
    assert 0 < here.free <= here.whole <= psutil.virtual_memory().total
