# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers of an image in the real container engine: kept, found again, built upon, and removed. The machine in it is a shell."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import uuid
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from tarfile import TarFile, TarInfo
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import image_layer, image_plan
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module

pytestmark = [pytest.mark.integration, pytest.mark.docker]

ROOT = Path(__file__).parents[2]
PROGRAMS = ("sh", "cat", "ls", "sleep", "sha256sum")
LABEL = "gpumesh.test.layers"


def docker(*words: str) -> str:
    """What docker says."""
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    try:
        docker("version")
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"no container engine answers: {problem}")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The folder of an archive of packages, and its address."""
    folder = tmp_path / "archive"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def inrelease(packages: str) -> str:
    """A list that names these packages."""
    return f"SHA256:\n {hashlib.sha256(packages.encode()).hexdigest()} 12 main/binary-amd64/Packages\n"


def machine(lists: dict[str, str], targets: str) -> bytes:
    """The files of a machine: a few programs with what they need, and package lists, which its apt-get tells of."""
    paths = [path_of(name) for name in PROGRAMS]
    libraries = {
        word
        for path in paths
        for word in subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout.split()
        if word.startswith("/")
    }
    packed = BytesIO()
    with TarFile(fileobj=packed, mode="w", dereference=True) as tar:
        for path in (*paths, *libraries):
            tar.add(path, arcname=f"bin/{Path(path).name}" if path in paths else path.lstrip("/"))
        texts = {"bin/apt-get": f"#!/bin/sh\ncat <<'E'\n{targets}\nE\n"} | {f"lists/{name}": text for name, text in lists.items()}  # fmt: skip
        for name, text in texts.items():
            entry = TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, BytesIO(text.encode()))
    return packed.getvalue()


def path_of(name: str) -> str:
    """Where a program of this machine is."""
    return subprocess.run(
        ["sh", "-c", f"command -v {name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


class Bench:
    """A build in the real engine, out of whose sight is whatever it has of others.

    Attributes:
        engine: the client, which lists nothing but ours.
    """

    def __init__(self, folder: Path, archive: tuple[Path, str]) -> None:
        self.mark = f"{LABEL}={uuid.uuid4().hex}"
        self._archive, self.url = archive
        self.folder = folder
        client = folder / "engine"
        client.write_text(
            '#!/bin/sh\ncase "$1 $2" in\n'
            f'  "image ls"|"ps "*) exec docker "$@" --filter=label={self.mark};;\n'
            f'  "run "*) shift; exec docker run --label={self.mark} "$@";;\n'
            'esac\nexec docker "$@"\n'
        )
        client.chmod(0o755)
        self.engine = str(client)

    def bootstrap(self, packages: str) -> str:
        """A system with the archive's list of now."""
        (self._archive / "InRelease").write_text(inrelease(packages))
        name = f"gpumesh-test/os:{uuid.uuid4().hex[:12]}"
        packed = machine(
            {
                "a_InRelease": inrelease(packages),
                "a_main_binary-amd64_Packages": "",
                "own_._Packages": "mine",
            },
            f"{self.url} /lists/a_main_binary-amd64_Packages\nfile:/own/./ /lists/own_._Packages",
        )
        label = f"--change=LABEL {self.mark}"
        subprocess.run(["docker", "import", label, "-", name], input=packed, check=True, capture_output=True)
        return name

    def plan(self, **options: Any) -> dict[str, Any]:
        return run_module(
            image_plan.main,
            **{
                "name": "tiny",
                "collection": str(ROOT),
                "os": "debian-13",
                "os_recipe": {"test": self.mark},
                "layout": {"filesystem": "ext4"},
                "layers": [{"name": "base", "role": "base"}, {"name": "docker", "role": "docker"}],
                "store": str(self.folder / "store"),
                "engine": self.engine,
                **options,
            },
        )

    def start(self, image: str, build: str = "b1") -> str:
        """A container of an image, as a build has it."""
        name = f"gpumesh-test-{uuid.uuid4().hex[:12]}"
        docker("run", "--detach", "--network=none", f"--name={name}", f"--label={self.mark}", f"--label=gpumesh.image.build={build}", image, "sleep", "600")  # fmt: skip
        return name

    def keep(self, planned: dict[str, Any], parent: str, **options: Any) -> dict[str, Any]:
        """Keep one layer as the role does."""
        given = {name: planned[name] for name in ("layer", "role", "recipe", "parts")}
        return run_module(
            image_layer.main, engine=self.engine, parent=parent, os="debian-13", **given, **options
        )

    def build(self, packages: str = "one") -> list[str]:
        """Build whatever is missing; the keys."""
        planned = self.plan()
        parent, image = (
            (planned["start_from"] or {}).get("key", ""),
            (planned["start_from"] or {}).get("image"),
        )
        keys = []
        for one in planned["missing"]:
            if one["layer"] == "os":
                kept = self.keep(one, "", image=self.bootstrap(packages), build="b1")
            else:
                container = self.start(image or "")
                docker("exec", container, "sh", "-c", f"echo {one['layer']} >> /history")
                kept = self.keep(one, parent, container=container)
                docker("rm", "--force", container)
            parent, image = kept["key"], kept["image"]
            keys.append(parent)
        return keys

    def prune(self, **options: Any) -> dict[str, Any]:
        return run_module(image_layer.main, state="pruned", engine=self.engine, **options)

    def containers(self) -> list[str]:
        return docker("ps", "--all", "--format={{.Names}}", f"--filter=label={self.mark}").split()

    def images(self) -> list[str]:
        return docker("image", "ls", "--quiet", f"--filter=label={self.mark}").split()


@pytest.fixture
def bench(tmp_path: Path, archive: tuple[Path, str]) -> Iterator[Bench]:
    made = Bench(tmp_path, archive)
    yield made
    for container in made.containers():
        docker("rm", "--force", "--volumes", container)
    while left := made.images():
        for image in left:
            subprocess.run(["docker", "image", "rm", "--force", image], check=False, capture_output=True)


def test_layers_are_built_kept_and_found_again(bench: Bench, archive: tuple[Path, str]) -> None:
    assert [one["why"] for one in bench.plan()["layers"]] == ["never built"] * 3
    keys = bench.build()

    planned = bench.plan()
    assert [one["key"] for one in planned["layers"]] == keys
    assert planned["bump"]["version"] == "1.0.0"
    lists = planned["identity"]["layers"][0]["lists"]
    assert lists["file:/own/./Packages"] == hashlib.sha256(b"mine").hexdigest()
    assert set(lists) == {"file:/own/./Packages", f"{bench.url}InRelease"}
    # What was done to a layer is in it and in those above.
    top = bench.start(planned["start_from"]["image"])
    assert docker("exec", top, "cat", "/history").split() == ["base", "docker"]
    assert bench.containers() == [top]

    (archive[0] / "InRelease").write_text(inrelease("two"))
    assert [one["why"] for one in bench.plan()["layers"]] == [f"package lists changed: {bench.url}InRelease", "parent changed", "parent changed"]  # fmt: skip
    assert bench.plan(lists="ignore")["missing"] == []
    assert bench.build("two") != keys
    assert bench.plan()["bump"]["kind"] == "first"
    (archive[0] / "InRelease").write_text(inrelease("one"))
    assert [one["key"] for one in bench.plan()["layers"]] == keys


def test_a_layer_no_longer_belongs_to_its_build_and_starts_as_a_machine(bench: Bench) -> None:
    bench.build()
    [found] = json.loads(docker("image", "inspect", bench.plan()["start_from"]["image"]))
    assert found["Config"]["Labels"]["gpumesh.image.build"] == ""
    assert (found["Config"]["Cmd"], found["Config"]["Entrypoint"]) == (["/sbin/init"], None)
    parts = json.loads(found["Config"]["Labels"]["gpumesh.image.parts"])
    assert parts == bench.plan()["layers"][2]["parts"]


def test_keeping_it_twice_changes_nothing_and_check_mode_keeps_nothing(bench: Bench) -> None:
    planned = bench.plan()["missing"][0]
    image = bench.bootstrap("one")
    assert bench.keep(planned, "", image=image, check=True)["changed"] is True
    assert bench.plan()["start_from"] is None
    assert bench.keep(planned, "", image=image)["changed"] is True
    assert bench.keep(planned, "", image=image)["changed"] is False
    assert bench.containers() == []


@pytest.mark.parametrize(
    "value", ['quo"te', "dol$lar ${HOME}", "back\\slash", "two\nlines", "apo'strophe", "naïve"]
)
def test_labels_come_back_as_they_were(bench: Bench, value: str) -> None:
    planned = bench.plan()["missing"][0]
    kept = bench.keep(planned | {"parts": {"role": value, "variables": "v", "parent": ""}}, "", image=bench.bootstrap("one"))  # fmt: skip
    [found] = json.loads(docker("image", "inspect", kept["image"]))
    assert json.loads(found["Config"]["Labels"]["gpumesh.image.parts"])["role"] == value


def test_what_dead_builds_left_is_removed_and_nothing_of_living_ones(bench: Bench) -> None:
    image = bench.bootstrap("one")
    dead, alive, own = bench.start(image, "dead"), bench.start(image, "alive"), bench.start(image, "")
    assert bench.prune(builds_alive=["alive"])["removed"] == [], "it has only just been made"
    assert bench.prune(builds_alive=["alive"], grace=-60, check=True)["removed"] == [dead]
    assert bench.prune(builds_alive=["alive"], grace=-60)["removed"] == [dead]
    assert set(bench.containers()) == {alive, own}
    assert bench.prune(builds_alive=["alive"], grace=-60)["changed"] is False


def test_old_layers_are_removed_but_for_what_is_in_use(bench: Bench) -> None:
    bench.build()
    layers = bench.plan()["layers"]
    assert bench.prune()["removed"] == []
    user = bench.start(layers[0]["image"], "")
    removed = bench.prune(days=-1)["removed"]
    assert removed == [layers[2]["image"], layers[1]["image"]]
    assert bench.plan()["start_from"]["layer"] == "os"
    docker("rm", "--force", user)
    assert bench.prune(days=-1)["removed"] == [layers[0]["image"]]
    assert bench.plan()["start_from"] is None


@pytest.mark.parametrize("told", ["No such container", "is not running", "No such image"])
def test_what_is_not_there_is_told(bench: Bench, told: str) -> None:
    planned = bench.plan()["missing"][0]
    where = {"container": "gpumesh-test-none"}
    if told == "No such image":
        where = {"image": "gpumesh-test/none:1"}
    if told == "is not running":
        where = {"container": bench.start(bench.bootstrap("one"))}
        docker("kill", where["container"])
    result = bench.keep(planned, "", **where)
    assert result["failed"] is True
    assert told.lower() in result["msg"].lower()
    assert result["failure"]["hint"] in result["msg"]
