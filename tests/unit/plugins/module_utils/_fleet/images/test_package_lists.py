# SPDX-License-Identifier: GPL-3.0-or-later
"""Which package lists a machine saw, and whether an archive has them still; against an archive on loopback."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.http import RetryAdapter, RetryPolicy
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import package_lists


def sha(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


def release(date: str = "Sat, 21 Nov 2026 09:15:44 UTC", signature: str = "iQIz", **lists: str) -> str:
    """An InRelease as Debian has it, with these contents of lists; two underscores in a name are a slash, one is a dash."""
    named = {name.replace("__", "/").replace("_", "-"): content for name, content in lists.items()}
    lines = [f" {sha(content)} {len(content):8} {name}" for name, content in named.items()]
    weak = [f" {sha(content)[:32]} {len(content):8} {name}" for name, content in named.items()]
    return "\n".join(
        [
            *("-----BEGIN PGP SIGNED MESSAGE-----", "Hash: SHA256", "", "Origin: Debian", f"Date: {date}"),
            *("MD5Sum:", *weak, "SHA256:", *lines, "-----BEGIN PGP SIGNATURE-----", "", signature),
            *("-----END PGP SIGNATURE-----", ""),
        ]
    )


MAIN = {"main__binary_amd64__Packages": "one", "main__binary_all__Packages": "any"}


@pytest.mark.parametrize(
    "same",
    [
        release(**MAIN),
        release(date="Sun, 22 Nov 2026 09:15:44 UTC", **MAIN),
        release(signature="another", **MAIN),
        release(**MAIN, main__binary_arm64__Packages="changed"),
        release(**MAIN, main__i18n__Translation_en="changed", main__Contents_amd64="changed"),
        release(main__binary_all__Packages="any", main__binary_amd64__Packages="one"),
        release(**MAIN).replace("\n", "\r\n"),
        release(**MAIN).replace("SHA256:", f"Other:\n {sha('x')} 1 main/binary-amd64/Packages\nSHA256:"),
        release(**MAIN).replace(
            "-----BEGIN PGP SIG", f"Other:\n {sha('x')} 1 main/binary-amd64/Packages\n-----BEGIN PGP SIG"
        ),
    ],
    ids=[
        "same",
        "signed again",
        "another signature",
        "another machine",
        "other lists",
        "another order",
        "a proxy's line ends",
        "other digests before",
        "other digests after",
    ],
)
def test_lists_that_are_the_same(same: str) -> None:
    assert package_lists.parse(same) == package_lists.parse(release(**MAIN))


@pytest.mark.parametrize(
    "other",
    [
        release(**{**MAIN, "main__binary_amd64__Packages": "two"}),
        release(**{**MAIN, "main__binary_all__Packages": "two"}),
        release(**MAIN, contrib__binary_amd64__Packages="new"),
        release(main__binary_amd64__Packages="one"),
    ],
    ids=["a package", "one for any machine", "a component", "one less"],
)
def test_lists_that_are_not(other: str) -> None:
    assert package_lists.parse(other) != package_lists.parse(release(**MAIN))


@pytest.mark.parametrize("name", ["Packages", "./Packages", "Packages.gz"])
def test_an_archive_without_components_has_one_list(name: str) -> None:
    def flat(content: str) -> str:
        return f"SHA256:\n {sha(content)} 12 {name}\n {sha('noise')} 12 Sources\n"

    assert package_lists.parse(flat("one")) != package_lists.parse(flat("two"))
    assert package_lists.parse(flat("one")) == package_lists.parse(
        flat("one").replace(sha("noise"), sha("x"))
    )


def test_an_archive_with_lists_of_other_names_counts_all_of_them() -> None:
    def odd(content: str) -> str:
        return f"SHA256:\n {sha(content)} 12 everything.gz\n"

    assert package_lists.parse(odd("one")) != package_lists.parse(odd("two"))


@pytest.mark.parametrize("text", ["", "<html>Log in</html>", "SHA256:\n", "SHA256:\n something else\n"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(FleetError, match="no InRelease"):
        package_lists.parse(text)


class Machine:
    """A machine with lists, as apt leaves them; answers the commands that are asked."""

    def __init__(self, targets: Sequence[str], files: dict[str, str]) -> None:
        self.targets, self.files = targets, files

    def __call__(self, command: Sequence[str]) -> str:
        if command[0] == "apt-get":
            return "".join(f"{target}\n" for target in self.targets)
        if command[0] == "ls":
            return "".join(f"{name}\n" for name in self.files)
        content = self.files[command[1].rpartition("/")[2]]
        return f"{sha(content)}  {command[1]}\n" if command[0] == "sha256sum" else content


LISTS = "/var/lib/apt/lists"


def test_the_lists_of_a_machine_by_the_address_of_their_inrelease() -> None:
    # Shapes of addresses and file names as apt 2.6 and 3.0 print them.
    machine = Machine(
        [
            f"http://deb.debian.org/debian/dists/trixie/ {LISTS}/deb.debian.org_debian_dists_trixie_main_binary-amd64_Packages",
            f"http://deb.debian.org/debian/dists/trixie/ {LISTS}/deb.debian.org_debian_dists_trixie_contrib_binary-amd64_Packages",
            f"http://deb.debian.org/debian/dists/trixie-updates/ {LISTS}/deb.debian.org_debian_dists_trixie-updates_main_binary-amd64_Packages",
            f"https://me:secret@example.com/cuda/x86_64/ {LISTS}/example.com_cuda_x86%5f64_Packages",
            f"file:/srv/own/./ {LISTS}/_srv_own_._Packages",
        ],
        {
            "deb.debian.org_debian_dists_trixie_InRelease": release(main__binary_amd64__Packages="a"),
            "deb.debian.org_debian_dists_trixie-updates_InRelease": release(main__binary_amd64__Packages="b"),
            "example.com_cuda_x86%5f64_Release": release(Packages="c"),
            "_srv_own_._Packages": "Package: own\n",
            "lock": "",
            "partial": "",
        },
    )
    assert package_lists.seen(machine) == {
        "file:/srv/own/./Packages": sha("Package: own\n"),
        "http://deb.debian.org/debian/dists/trixie-updates/InRelease": package_lists.parse(release(main__binary_amd64__Packages="b")),
        "http://deb.debian.org/debian/dists/trixie/InRelease": package_lists.parse(release(main__binary_amd64__Packages="a")),
        "https://example.com/cuda/x86_64/Release": package_lists.parse(release(Packages="c")),
    }  # fmt: skip


def test_a_machine_without_lists_is_no_layer() -> None:
    with pytest.raises(FleetError, match=r"no package lists in it.*skip=cleanup/apt/lists"):
        package_lists.seen(Machine([], {}))


def test_inrelease_is_preferred() -> None:
    machine = Machine(
        [f"http://a/ {LISTS}/a_Packages"],
        {"a_Release": release(Packages="old"), "a_InRelease": release(Packages="new")},
    )
    assert package_lists.seen(machine) == {"http://a/InRelease": package_lists.parse(release(Packages="new"))}


def test_an_archive_in_the_folder_of_another_has_its_own() -> None:
    machine = Machine(
        [f"http://a/dists/x/ {LISTS}/a_dists_x_Packages"],
        {"a_InRelease": release(Packages="outer"), "a_dists_x_InRelease": release(Packages="inner")},
    )
    assert list(package_lists.seen(machine).values()) == [package_lists.parse(release(Packages="inner"))]


@pytest.mark.parametrize(
    ("url", "can"),
    [
        ("http://deb.debian.org/debian/dists/trixie/InRelease", True),
        ("https://example.com/cuda/Release", True),
        ("https://example.com/unsigned/Packages", False),
        ("file:/srv/own/./InRelease", False),
        ("cdrom:[Debian]/dists/trixie/InRelease", False),
        ("mirror+https://example.com/mirrors.txt/dists/trixie/InRelease", False),
    ],
)
def test_what_can_be_asked_from_here(url: str, can: bool) -> None:
    assert package_lists.can_be_asked(url) is can


ANSWERS = {
    "/good/InRelease": (200, release(**MAIN)),
    "/flat/Release": (200, release(Packages="x")),
    "/login/InRelease": (200, "<html>Log in</html>"),
    "/private/InRelease": (403, "no"),
    "/retired/InRelease": (410, "gone"),
}


class Archive(BaseHTTPRequestHandler):
    """Answers from the table."""

    def do_GET(self) -> None:
        status, text = ANSWERS.get(self.path, (404, ""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        """Say nothing."""


@pytest.fixture(scope="module")
def archive() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def adapter() -> RetryAdapter:
    return RetryAdapter(SystemClock(), RetryPolicy(deadline=0, connect_deadline=0))


def test_what_the_archives_have_now(archive: str, adapter: RetryAdapter) -> None:
    urls = [f"{archive}/{path}" for path in ("good/InRelease", "flat/Release", "no/InRelease", "retired/InRelease")]  # fmt: skip
    assert package_lists.fetch([*urls, urls[0]], adapter) == dict(
        zip(
            urls,
            [
                package_lists.parse(release(**MAIN)),
                package_lists.parse(release(Packages="x")),
                package_lists.GONE,
                package_lists.GONE,
            ],
            strict=True,
        )
    )


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("login/InRelease", "login/InRelease cannot be used.*proxy or a login page"),
        (
            "private/InRelease",
            "private/InRelease: the archive answers 403.*golden_image_package_lists: ignore",
        ),
    ],
)
def test_a_list_that_cannot_be_read_is_named_with_what_to_do(
    archive: str, adapter: RetryAdapter, path: str, told: str
) -> None:
    with pytest.raises(FleetError, match=told):
        package_lists.fetch([f"{archive}/good/InRelease", f"{archive}/{path}"], adapter)


def test_it_goes_through_the_proxy_that_packages_come_through(archive: str, adapter: RetryAdapter) -> None:
    # To a proxy the whole address is the path.
    ANSWERS["http://archive.invalid/InRelease"] = (200, release(**MAIN))
    found = package_lists.fetch(["http://archive.invalid/InRelease"], adapter, archive)
    assert found == {"http://archive.invalid/InRelease": package_lists.parse(release(**MAIN))}


def test_an_archive_that_is_not_there_is_named(adapter: RetryAdapter) -> None:
    with pytest.raises(FleetError, match=r"127\.0\.0\.1:1/InRelease.*golden_image_package_lists: ignore"):
        package_lists.fetch(["http://127.0.0.1:1/InRelease"], adapter)
