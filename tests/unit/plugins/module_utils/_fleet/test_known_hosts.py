# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's known_hosts: what is ours is kept true, what is not stays."""

from __future__ import annotations

import multiprocessing
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import known_hosts
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import new_host_key
from hypothesis import given
from hypothesis import strategies as st

ONE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOneOneOneOneOneOneOneOneOneOneOneOneOneOneOn"
TWO = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAITwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTw"
ORE = known_hosts.alias("minerals", "ore", "17")
TIN = known_hosts.alias("minerals", "tin", "18")
FOREIGN = "github.com ssh-ed25519 AAAA\n|1|abc=|def= ssh-rsa AAAA\n# a comment\n@cert-authority *.example ssh-rsa AAAA x\n"


def test_the_alias_is_as_agreed() -> None:
    assert ORE == "gpumesh-minerals-ore-17"


def test_lines_of_others_stay_to_the_letter() -> None:
    text = known_hosts.merge(FOREIGN, "minerals", {ORE: ("hetzner", [ONE])})
    assert text == f"{FOREIGN}{ORE} {ONE} gpumesh:minerals/hetzner\n"
    assert known_hosts.merge(text, "minerals", {}, gone=[ORE]) == FOREIGN


def test_a_comment_behind_a_key_is_not_taken_along() -> None:
    text = known_hosts.merge("", "minerals", {ORE: ("gcp", [f"{ONE} root@ore"])})
    assert text == f"{ORE} {ONE} gpumesh:minerals/gcp\n"


def test_new_keys_take_the_place_of_old_ones() -> None:
    text = known_hosts.merge("", "minerals", {ORE: ("gcp", [ONE]), TIN: ("gcp", [ONE])})
    both = known_hosts.merge(text, "minerals", {ORE: ("gcp", [ONE, TWO])})
    assert both.count(f"{ORE} ") == 2
    after = known_hosts.merge(both, "minerals", {ORE: ("gcp", [TWO])})
    assert after.count(ORE) == 1 and TWO in after and f"{TIN} {ONE}" in after


def test_an_alias_without_keys_keeps_what_it_has() -> None:
    text = known_hosts.merge("", "minerals", {ORE: ("gcp", [ONE])})
    assert known_hosts.merge(text, "minerals", {ORE: ("gcp", [])}) == text


def test_fleets_whose_names_begin_alike_do_not_mix() -> None:
    text = known_hosts.merge(
        "", "minerals-two", {known_hosts.alias("minerals-two", "ore", "1"): ("gcp", [ONE])}
    )
    assert known_hosts.aliases(text, "minerals") == {}
    assert (
        known_hosts.merge(text, "minerals", {}, gone=list(known_hosts.aliases(text, "minerals-two"))) == text
    )


def test_a_text_that_is_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="not a public SSH key"):
        known_hosts.merge("", "minerals", {ORE: ("gcp", ["ssh-ed25519"])})
    injected = known_hosts.merge("", "minerals", {ORE: ("gcp", [f"{ONE}\nevil.example {TWO}"])})
    assert "evil" not in injected and injected.count("\n") == 1


KEYS = st.lists(st.sampled_from([ONE, TWO]), max_size=3)
ENTRIES = st.dictionaries(st.sampled_from([ORE, TIN]), st.tuples(st.sampled_from(["gcp", "hetzner"]), KEYS))


@given(ENTRIES, ENTRIES, st.sets(st.sampled_from([ORE, TIN])))
def test_merging_twice_changes_nothing(
    first: dict[str, tuple[str, list[str]]], second: dict[str, tuple[str, list[str]]], gone: set[str]
) -> None:
    before = known_hosts.merge(FOREIGN, "minerals", first)
    once = known_hosts.merge(before, "minerals", second, gone=gone)
    assert known_hosts.merge(once, "minerals", second, gone=gone) == once
    assert once.startswith(FOREIGN)
    wanted = {
        name for name, (_, keys) in {**first, **second}.items() if keys or first.get(name, ("", []))[1]
    } - gone
    assert set(known_hosts.aliases(once, "minerals")) == wanted


class TestFile:
    def test_it_is_made_private_and_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "known"
        assert known_hosts.update(str(path), lambda text: text + "line\n")
        assert not known_hosts.update(str(path), lambda text: text)
        assert path.read_text() == "line\n" == known_hosts.read(str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert sorted(p.name for p in path.parent.iterdir()) == [".known.lock", "known"]

    def test_a_check_only_tells(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "known"
        assert known_hosts.update(str(path), lambda text: "x\n", write=False)
        assert not path.parent.exists()

    def test_a_file_that_cannot_be_kept_is_one_clear_failure(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("")
        for path, says in (("folder", "Is a directory"), ("file/known", "Not a directory")):
            full = str(tmp_path / path)
            for attempt in (
                lambda full=full: known_hosts.read(full),
                lambda full=full: known_hosts.probe(full),
                lambda full=full: known_hosts.probe(full, write=False),
                lambda full=full: known_hosts.update(full, lambda text: text + "x\n"),
            ):
                with pytest.raises(FleetError, match=f"{full} cannot be kept: ({says}|File exists)"):
                    attempt()

    def test_a_probe_tells_the_text_and_leaves_nothing_but_the_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "known"
        assert known_hosts.probe(str(path), write=False) == "" and not path.parent.exists()
        assert known_hosts.probe(str(path)) == "" and not list(path.parent.iterdir())
        path.write_text(FOREIGN)
        assert known_hosts.probe(str(path)) == FOREIGN == path.read_text()

    @pytest.mark.parametrize("write", [True, False])
    def test_a_folder_that_takes_no_file_is_found_by_the_probe(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: bool
    ) -> None:
        (tmp_path / "known").write_text("")

        def refuse(*_arguments: object, **_options: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(known_hosts.tempfile, "TemporaryFile", refuse)
        monkeypatch.setattr(known_hosts.os, "access", lambda *_arguments: False)
        with pytest.raises(FleetError, match="cannot be kept: Permission denied"):
            known_hosts.probe(str(tmp_path / "known"), write=write)

    def test_a_failed_change_leaves_the_file_as_it_was(self, tmp_path: Path) -> None:
        path = tmp_path / "known"
        path.write_bytes(b"old \xff\n")
        with pytest.raises(UnicodeEncodeError):
            known_hosts.update(str(path), lambda text: text + "\ud800")
        assert path.read_bytes() == b"old \xff\n"
        assert sorted(p.name for p in tmp_path.iterdir()) == [".known.lock", "known"]

    def test_bytes_that_are_no_text_stay(self, tmp_path: Path) -> None:
        path = tmp_path / "known"
        path.write_bytes(b"old \xff\n")
        known_hosts.update(str(path), lambda text: text + "new\n")
        assert path.read_bytes() == b"old \xff\nnew\n"

    def test_many_at_once_lose_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "known"
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=_add, args=(str(path), number)) for number in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sorted(path.read_text().split()) == sorted(str(number) for number in range(6))

    def test_openssh_reads_it(self, tmp_path: Path) -> None:
        path = tmp_path / "known"
        key = new_host_key().public
        known_hosts.update(str(path), lambda text: known_hosts.merge(text, "minerals", {ORE: ("gcp", [key])}))
        found = subprocess.run(
            ["ssh-keygen", "-F", ORE, "-f", str(path)], capture_output=True, text=True, check=True
        )
        assert key in found.stdout


def _add(path: str, number: int) -> None:
    known_hosts.update(path, lambda text: text + f"{number}\n")
