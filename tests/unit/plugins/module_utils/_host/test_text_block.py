# SPDX-License-Identifier: GPL-3.0-or-later
"""A block of ours comes and goes, and every byte of the others stays."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import text_block
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.text_block import BlockError
from hypothesis import example, given
from hypothesis import strategies as st

NAME = "gpumesh minerals"
OTHER = "gpumesh minerals-two"
HOSTS = b"127.0.0.1 localhost\n\n# mine\n10.0.0.1 nas\n"

FILES = st.lists(
    st.one_of(
        st.sampled_from([b"\n", b"\r\n", b"# mine\n", b"10.0.0.1 nas\r\n", b"\tIndented yes\n", b"\xff\xfe\n", b"x"]),
        st.binary(max_size=12),
    ),
    max_size=8,
).map(b"".join)  # fmt: skip
CONTENTS = st.lists(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), max_size=20), max_size=4
).map("\n".join)
PLACES = st.booleans()


def test_a_block_goes_to_the_end_and_is_replaced_where_it_is() -> None:
    once = text_block.place(HOSTS, NAME, "10.0.0.2 ore.zt\n10.0.0.3 tin.zt")
    assert (
        once
        == HOSTS + b"# gpumesh minerals begin\n10.0.0.2 ore.zt\n10.0.0.3 tin.zt\n# gpumesh minerals end\n"
    )
    later = once + b"10.0.0.9 printer\n"
    assert text_block.place(later, NAME, "10.0.0.2 ore.zt") == HOSTS + (
        b"# gpumesh minerals begin\n10.0.0.2 ore.zt\n# gpumesh minerals end\n10.0.0.9 printer\n"
    )


@given(FILES, CONTENTS, CONTENTS, PLACES)
@example(b"no newline at the end", "a", "b", False)
@example(b"", "a", "", True)
def test_what_others_wrote_survives_to_the_byte(foreign: bytes, first: str, second: str, top: bool) -> None:
    placed = text_block.place(foreign, NAME, first, top=top)
    changed = text_block.place(placed, NAME, second, top=top)
    assert text_block.place(changed, NAME, second, top=top) == changed
    assert text_block.present_in(changed, NAME)
    assert text_block.remove(changed, NAME) == foreign


@given(CONTENTS, PLACES)
def test_a_file_that_was_made_for_the_block_goes_with_it(content: str, top: bool) -> None:
    made = text_block.place(text_block.place(None, NAME, "x", top=top), NAME, content, top=top)
    assert text_block.remove(made, NAME) is None
    assert text_block.remove(made + b"Host mine\n", NAME) == b"Host mine\n"


@given(FILES, PLACES)
def test_blocks_of_two_fleets_do_not_mix(foreign: bytes, top: bool) -> None:
    both = text_block.place(text_block.place(foreign, NAME, "a", top=top), OTHER, "b", top=top)
    assert text_block.place(both, NAME, "a", top=top) == both
    assert text_block.remove(text_block.remove(both, OTHER), NAME) == foreign


def test_removing_what_is_not_there_changes_nothing() -> None:
    assert text_block.remove(HOSTS, NAME) == HOSTS
    assert text_block.remove(None, NAME) is None


def test_what_was_appended_later_keeps_a_line_of_its_own() -> None:
    placed = text_block.place(b"10.0.0.1 nas", NAME, "x")
    assert text_block.remove(placed + b"10.0.0.9 printer\n", NAME) == b"10.0.0.1 nas\n10.0.0.9 printer\n"


def test_on_top_is_above_everything_that_counts() -> None:
    config = b"# my settings\n\nHost nas\n  User me\n"
    placed = text_block.place(config, NAME, "Include a", top=True)
    assert placed.startswith(b"# gpumesh minerals begin\nInclude a\n")
    below_a_comment = b"# dotfiles\n\n" + placed
    assert text_block.place(below_a_comment, NAME, "Include a", top=True) == below_a_comment
    below_a_host = b"Host new\n  User you\n" + placed
    moved = text_block.place(below_a_host, NAME, "Include a", top=True)
    assert moved == placed.removesuffix(config) + b"Host new\n  User you\n" + config
    from_the_end = text_block.place(b"Host nas", NAME, "Include a")
    assert (
        text_block.place(from_the_end, NAME, "Include a", top=True)
        == placed.removesuffix(config) + b"Host nas"
    )


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (b"# gpumesh minerals begin\nx\n", "'# gpumesh minerals end' is not there"),
        (b"x\n# gpumesh minerals end\n", "'# gpumesh minerals begin' is not there"),
        (b"# gpumesh minerals end\n# gpumesh minerals begin\n", "begin' is on line 2 and .* end' is on line 1"),
        (b"# gpumesh minerals begin\n" * 2 + b"# gpumesh minerals end\n", "begin' is on line 1, 2"),
        (
            b"# gpumesh minerals begin\n# gpumesh other begin\n# gpumesh other end\n# gpumesh minerals end\n",
            "'# gpumesh other begin' is inside the block",
        ),
    ],
)  # fmt: skip
def test_a_damaged_block_is_refused(damaged: bytes, says: str) -> None:
    with pytest.raises(BlockError, match=says):
        text_block.place(damaged, NAME, "x")
    with pytest.raises(BlockError, match=says):
        text_block.remove(damaged, NAME)


@pytest.mark.parametrize("name", ["gpumesh", "gpumesh a\nb", "gpumesh  two", "# a b", ""])
def test_a_name_that_would_be_no_marker_is_refused(name: str) -> None:
    with pytest.raises(BlockError, match="cannot name a block"):
        text_block.place(b"", name, "x")


def test_content_that_would_end_the_block_is_refused() -> None:
    with pytest.raises(BlockError, match="cannot hold a line"):
        text_block.place(b"", NAME, "x\n# gpumesh minerals end\ny")
