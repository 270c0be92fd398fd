# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way of a model: train it on a GPU, save it, load it in another process, serve it over HTTP, and ask from outside.

The model tells points of two rings apart. The answers of the server must be those that the trained model gave before it was saved.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import children
import workload

POINTS = 2048
STEPS = 300
REQUESTS = 64
CLOSE = 1e-4
"""How far two answers may be apart; both are computed by the same card in the same precision."""
SECONDS = 120.0
"""How long the server may take to load."""


def network(torch: ModuleType, device: Any) -> Any:
    """The model, untrained."""
    torch.manual_seed(7)
    layers = torch.nn
    return layers.Sequential(
        layers.Linear(2, 64), layers.ReLU(), layers.Linear(64, 64), layers.ReLU(), layers.Linear(64, 2)
    ).to(device)


def rings(torch: ModuleType, count: int, seed: int) -> tuple[Any, Any]:
    """Points of two rings, and on which each is."""
    numbers = torch.Generator().manual_seed(seed)
    which = torch.randint(0, 2, (count,), generator=numbers)
    angle = 2 * torch.pi * torch.rand(count, generator=numbers)
    radius = 1.0 + which + 0.2 * torch.randn(count, generator=numbers)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1), which


def train(torch: ModuleType, model: Any, device: Any) -> tuple[float, float]:
    """Train; the loss before and after."""
    points, which = (one.to(device) for one in rings(torch, POINTS, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for step in range(STEPS):
        loss = torch.nn.functional.cross_entropy(model(points), which)
        if step in (0, STEPS - 1):
            losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            workload.progress(0.1 + 0.4 * step / STEPS, "training")
    return losses[0], losses[1]


def serve(torch: ModuleType, device: Any, folder: str) -> None:
    """Load the model and answer until somebody ends it; say at which port."""
    model = network(torch, device)
    model.load_state_dict(torch.load(Path(folder, "model.pt"), map_location=device, weights_only=True))
    model.eval()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            points = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with torch.no_grad():
                answers = model(torch.tensor(points, device=device)).tolist()
            body = json.dumps(answers).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: Any) -> None:
            """Say nothing of each request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    workload.say("serving", port=server.server_address[1])
    server.serve_forever()


@contextmanager
def served(options: Namespace, folder: str) -> Iterator[int]:
    """Another process that serves the model; its port."""
    command = [
        sys.executable,
        __file__,
        f"--device={options.device}",
        f"--serve={folder}",
        f"--parent={os.getpid()}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            workload.fail(
                f"the process that was to serve the model ended with status {process.wait()}", gpu=0
            )
        yield int(json.loads(line)["port"])
    finally:
        process.kill()
        process.wait()


def ask(port: int, points: list[list[float]]) -> tuple[list[list[float]], float]:
    """One request; its answer and the seconds that it took."""
    # No proxy: this is for the machine itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/", json.dumps(points).encode(), {"Content-Type": "application/json"}
    )
    begin = time.perf_counter()
    with opener.open(request, timeout=30) as answer:
        return json.load(answer), time.perf_counter() - begin


def main() -> None:
    """Print the figures that the check ``full_stack`` judges, or be the server."""
    parser = workload.parser(__doc__ or "")
    parser.add_argument("--serve", metavar="FOLDER", help="serve the model in a folder")
    parser.add_argument("--parent", type=int, default=0, help="with --serve: the process that started it")
    options = parser.parse_args()
    if options.serve:
        children.die_with_parent(options.parent)
    options.workers = 1
    children.clean_up_when_ended()
    torch = workload.framework("torch")
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(1)
    if options.serve:
        serve(torch, device, options.serve)
        return
    workload.begin("serve", options, torch=torch.__version__)
    try:
        with tempfile.TemporaryDirectory(prefix="gpumesh-") as folder:
            measure(torch, device, options, folder)
    except (RuntimeError, OSError, ValueError) as problem:
        workload.fail(str(problem).splitlines()[0], gpu=0)
    workload.end()


def measure(torch: ModuleType, device: Any, options: Namespace, folder: str) -> None:
    """Train, save, have it served, ask."""
    model = network(torch, device)
    with workload.phase("train", 0):
        before, after = train(torch, model, device)
    points, which = rings(torch, 8 * REQUESTS, 2)
    with torch.no_grad():
        expected = model(points.to(device)).cpu()
    accuracy = float((expected.argmax(dim=1) == which).float().mean())
    torch.save(model.state_dict(), Path(folder, "model.pt"))
    workload.figure("loss before", before, gpu=0)
    workload.figure("loss after", after, gpu=0)
    workload.figure("accuracy", accuracy, gpu=0)
    workload.progress(0.6, "loading the model in another process")
    distances, seconds = [], []
    with served(options, folder) as port, workload.phase("serve", 0):
        for number in range(REQUESTS):
            part = slice(8 * number, 8 * number + 8)
            answers, took = ask(port, points[part].tolist())
            distances.append(float((torch.tensor(answers) - expected[part]).abs().max()))
            seconds.append(took)
            if number % 16 == 0:
                workload.progress(0.7 + 0.3 * number / REQUESTS, "asking")
    workload.figure("answers", len(distances))
    # Written so that what is no number counts as different.
    workload.figure("answers that differ", sum(not one <= CLOSE for one in distances), gpu=0)
    workload.figure("largest difference", max(distances), gpu=0)
    workload.figure("request", round(1000 * statistics.median(seconds), 3), "ms")


if __name__ == "__main__":
    main()
