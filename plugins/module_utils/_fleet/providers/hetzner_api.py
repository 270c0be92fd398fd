# SPDX-License-Identifier: GPL-3.0-or-later
"""The Hetzner Cloud API, one method for each call we make; every failure comes out as one of :mod:`errors`.

Talks through the raw ``Client.request`` of the hcloud library: its objects cost more to build than the answers cost to
fetch once there are thousands of servers.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import hcloud
import requests

from .. import errors, http
from ..clock import Clock

ENDPOINT = "https://api.hetzner.cloud/v1"

PAGE = 50
"""The largest page the API gives."""

PARALLEL_PAGES = 8
"""How many pages of a list are asked for at once."""

USER_DATA_LIMIT = 32 * 1024
"""Bytes of user data the API takes."""

Json = Mapping[str, Any]

_KINDS: dict[str, type[errors.ProviderError]] = {
    "unauthorized": errors.AuthError,
    "forbidden": errors.Forbidden,
    "token_readonly": errors.Forbidden,
    "not_found": errors.NotFound,
    "uniqueness_error": errors.Conflict,
    "conflict": errors.Conflict,
    "locked": errors.Conflict,
    "resource_locked": errors.Conflict,
    "resource_in_use": errors.Conflict,
    "firewall_already_applied": errors.Conflict,
    "firewall_already_removed": errors.Conflict,
    "resource_unavailable": errors.OutOfStock,
    "placement_error": errors.OutOfStock,
    "resource_limit_exceeded": errors.QuotaExceeded,
    "rate_limit_exceeded": errors.RateLimited,
    "service_error": errors.Unavailable,
    "server_error": errors.Unavailable,
    "unavailable": errors.Unavailable,
    "maintenance": errors.Unavailable,
    "timeout": errors.Unavailable,
    "bad_gateway": errors.Unavailable,
    "invalid_input": errors.InvalidRequest,
    "invalid_server_type": errors.InvalidRequest,
    "json_error": errors.InvalidRequest,
    "protected": errors.InvalidRequest,
    "unsupported_error": errors.InvalidRequest,
    "server_not_stopped": errors.InvalidRequest,
    "deprecated_api_endpoint": errors.InvalidRequest,
}

_HINTS: dict[str, str] = {
    "unauthorized": "Check that HCLOUD_TOKEN holds a valid token of the right project",
    "forbidden": "Use a token of the project that owns it, with read and write permission",
    "token_readonly": "Make a token with read and write permission in the Hetzner console",
    "resource_limit_exceeded": "Ask Hetzner for a higher limit in the console, or disable other machines",
    "resource_unavailable": "Name other places in fallback_locations, or choose another server type",
    "placement_error": "Name other places in fallback_locations, or try again later",
    "rate_limit_exceeded": "Wait some minutes: a project may make 3600 requests in an hour",
    "protected": "Lift the protection in the Hetzner console first",
}

_BUSY = frozenset({"locked", "conflict", "resource_locked"})


def kind_of(code: int | str) -> type[errors.ProviderError]:
    """The kind of failure behind an error code of the API, or behind an HTTP status where there is no code."""
    return http.kind_of(code) if isinstance(code, int) else _KINDS.get(code, errors.ProviderError)


def _is_busy(response: requests.Response) -> bool:
    """The object is being worked on; Hetzner has done nothing and asks to come back."""
    if response.status_code not in (409, 423):
        return False
    try:
        return response.json()["error"]["code"] in _BUSY
    except (ValueError, KeyError, TypeError):
        return False


def _has_a_name(request: requests.PreparedRequest) -> bool:
    """It makes or changes an SSH key or a firewall: a repeat does nothing, or is told that it came second.

    A server is made in the same way, but its create is repeated by who can look for it in between.
    """
    return bool(re.search(r"/(ssh_keys|firewalls)(/\d+/actions/\w+)?$", urlsplit(request.url or "").path))


def key_fingerprint(public: str) -> str:
    """The MD5 fingerprint by which Hetzner knows a public SSH key.

    Raises:
        InvalidRequest: it is no public SSH key.
    """
    try:
        body = base64.b64decode(public.split()[1], validate=True)
    except (IndexError, ValueError) as exc:
        raise errors.InvalidRequest(
            "a public SSH key could not be read",
            hint="Give keys as one line each, `ssh-ed25519 AAAA... comment`",
        ) from exc
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))


class HetznerApi:
    """One project, reached with its token. Safe to use from many threads: each has a client, all share connections."""

    def __init__(
        self, token: str, endpoint: str | None, clock: Clock, policy: http.RetryPolicy | None = None
    ) -> None:
        if not re.fullmatch(r"[!-~]+", token):
            # An odd character would end up, token and all, in the text of an exception of the HTTP library.
            raise errors.AuthError(
                "the Hetzner Cloud token has characters that no token has",
                hint="Check how HCLOUD_TOKEN was set",
            )
        self._token = token
        self._endpoint = (endpoint or ENDPOINT).rstrip("/")
        self._adapter = http.RetryAdapter(
            clock, policy or http.RetryPolicy(refused=_is_busy, repeatable=_has_a_name)
        )
        self._local = threading.local()
        self._keys: dict[str, int] = {}
        self._keys_lock = threading.Lock()

    @property
    def simulated(self) -> bool:
        """Whether a sandbox has answered, and no real cloud."""
        return self._adapter.simulated

    def _client(self) -> hcloud.Client:
        client: hcloud.Client | None = getattr(self._local, "client", None)
        if client is None:
            client = hcloud.Client(
                self._token,
                api_endpoint=self._endpoint,
                application_name="gpumesh.fleet",
                application_version=http.VERSION,
                timeout=http.TIMEOUT,
            )
            _use_session(client, http.new_session(self._adapter))
            self._local.client = client
        return client

    @contextmanager
    def reported(self, doing: str, machine: str | None = None) -> Iterator[None]:
        """Whatever goes wrong inside comes out as one of :mod:`errors`.

        Args:
            doing, machine: as in :meth:`call`.
        """
        try:
            yield
        except errors.FleetError:
            raise
        except hcloud.APIException as exc:
            raise self._refusal(exc, doing, machine) from exc
        except requests.RequestException as exc:
            failure = http.no_answer(exc, "Hetzner Cloud", doing, [self._token])
            failure.machine = machine
            raise failure from None  # the original may carry the token
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise errors.Unavailable(
                f"{doing}: {self._endpoint} answered in a form that is not Hetzner Cloud's",
                machine=machine,
                hint="Check the endpoint",
                details=http.scrub(f"{type(exc).__name__}: {exc}", [self._token]),
            ) from None

    def _refusal(self, exc: hcloud.APIException, doing: str, machine: str | None) -> errors.ProviderError:
        details = exc.details
        if isinstance(details, dict) and isinstance(details.get("content"), bytes):
            details = {"content": details["content"][:500].decode(errors="replace")}
        fields = details.get("fields") if isinstance(details, dict) else None
        said = exc.message or "no reason given"
        if isinstance(fields, list):
            named = [
                f"{field.get('name')}: {', '.join(field.get('messages') or [])}".rstrip(": ")
                for field in fields
                if isinstance(field, dict)
            ]
            said += f" ({'; '.join(named)})" if named else ""
        return kind_of(exc.code)(
            http.scrub(f"{doing}: Hetzner Cloud says {said}", [self._token]),
            machine=machine,
            hint=_HINTS.get(str(exc.code)) or (_HINTS["unauthorized"] if exc.code == 401 else None),
            code=str(exc.code),
            details=details,
            request_id=exc.correlation_id,
        )

    def call(
        self, method: str, path: str, doing: str, *, machine: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Make one request and give back what the service said.

        Args:
            doing: for the error, as in ``creating the server``.
            machine: the declared machine it is for.
        """
        with self.reported(doing, machine):
            return self._client().request(method, path, **kwargs)

    def all(
        self, path: str, key: str, doing: str, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Every object of a list: the first page, then the others at the same time.

        Deleting an object moves those after it to an earlier page, where a page already read cannot show them; so the
        list is read again where fewer came than the service counts.
        """
        with self.reported(doing, None):
            found: dict[int, dict[str, Any]] = {}
            for _dummy in range(3):
                found, total = self._pages(
                    path, key, {"per_page": PAGE, "sort": "id:asc", **(params or {})}, doing
                )
                if total is None or len(found) >= total:
                    break
            return list(found.values())

    def _pages(
        self, path: str, key: str, params: dict[str, Any], doing: str
    ) -> tuple[dict[int, dict[str, Any]], int | None]:
        def page(number: int) -> dict[str, Any]:
            return self.call("GET", path, doing, params={**params, "page": number})

        first = page(1)
        pages = [first]
        pagination = first.get("meta", {}).get("pagination", {})
        if pagination.get("last_page") is not None:
            rest = range(2, pagination["last_page"] + 1)
            if rest:
                with ThreadPoolExecutor(min(PARALLEL_PAGES, len(rest)), thread_name_prefix="hetzner") as pool:
                    pages += pool.map(page, rest)
        else:
            while (following := pages[-1].get("meta", {}).get("pagination", {}).get("next_page")) is not None:
                pages.append(page(following))
        return {item["id"]: item for answer in pages for item in answer[key]}, pagination.get("total_entries")

    def servers(self, selector: str, status: str | None = None) -> list[dict[str, Any]]:
        """Every server whose labels fit, or those of them that have this status."""
        params = {"label_selector": selector} | ({"status": status} if status else {})
        return self.all("/servers", "servers", "listing servers", params)

    def server_named(self, name: str) -> dict[str, Any] | None:
        """The server of that name; names are unique in a project."""
        doing = f"looking for the server {name}"
        answer = self.call("GET", "/servers", doing, machine=name, params={"name": name})
        with self.reported(doing, name):
            return next((server for server in answer["servers"] if server["name"] == name), None)

    def labels(self, server_id: str, machine: str) -> dict[str, str]:
        """The labels a server has now."""
        doing = "reading the labels of the server"
        answer = self.call("GET", f"/servers/{server_id}", doing, machine=machine)
        with self.reported(doing, machine):
            return dict(answer["server"]["labels"])

    def create_server(self, body: Json, machine: str) -> tuple[dict[str, Any], list[int]]:
        """Ask for a server; gives what is known of it, and the actions that make it."""
        doing = f"creating the server in {body.get('location', 'any location')}"
        if len(str(body.get("user_data", "")).encode()) > USER_DATA_LIMIT:
            raise errors.InvalidRequest(
                f"{doing}: its user data is larger than the {USER_DATA_LIMIT // 1024} KiB Hetzner Cloud takes",
                machine=machine,
                hint="Move files and scripts out of user_data",
            )
        answer = self.call("POST", "/servers", doing, machine=machine, json=dict(body))
        with self.reported(doing, machine):
            actions = [answer["action"], *answer.get("next_actions", [])]
            return answer["server"], [action["id"] for action in actions]

    def delete_server(self, server_id: str, machine: str) -> int:
        """Ask for its removal; gives the action."""
        return self._action(
            self.call("DELETE", f"/servers/{server_id}", "deleting the server", machine=machine), machine
        )

    def act(self, server_id: str, verb: str, machine: str, body: Json | None = None) -> int:
        """Start an action on a server (``poweron``, ``shutdown``, ``poweroff``, ``change_type``); gives its id."""
        path = f"/servers/{server_id}/actions/{verb}"
        return self._action(
            self.call("POST", path, f"asking for {verb}", machine=machine, json=dict(body or {})), machine
        )

    def _action(self, answer: Json, machine: str) -> int:
        with self.reported("starting an action", machine):
            return int(answer["action"]["id"])

    def set_labels(self, server_id: str, labels: Mapping[str, str], machine: str) -> dict[str, Any]:
        """Give a server exactly these labels."""
        doing = "labelling the server"
        answer = self.call(
            "PUT", f"/servers/{server_id}", doing, machine=machine, json={"labels": dict(labels)}
        )
        with self.reported(doing, machine):
            return dict(answer["server"])

    def actions(self, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """How these actions stand, many in one request."""
        doing = "asking how actions stand"
        found: dict[int, dict[str, Any]] = {}
        for start in range(0, len(ids), PAGE):
            chunk = list(ids[start : start + PAGE])
            answer = self.call("GET", "/actions", doing, params={"id": chunk, "per_page": PAGE})
            with self.reported(doing, None):
                found |= {action["id"]: action for action in answer["actions"]}
        return found

    def action_error(self, error: Json, doing: str, machine: str) -> errors.ProviderError:
        """What to report for an action that ended in an error."""
        code = str(error.get("code", ""))
        said = http.scrub(str(error.get("message") or "no reason given"), [self._token])
        kind = _KINDS.get(code, errors.OperationFailed)
        return kind(f"{doing} failed: {said}", machine=machine, code=code or None, hint=_HINTS.get(code))

    def pricing(self) -> dict[str, Any]:
        """The price list of the project."""
        answer = self.call("GET", "/pricing", "reading the price list")
        with self.reported("reading the price list", None):
            return dict(answer["pricing"])

    def firewalls(self, selector: str) -> list[dict[str, Any]]:
        """Every firewall whose labels fit."""
        return self.all("/firewalls", "firewalls", "listing firewalls", {"label_selector": selector})

    def firewall_named(self, name: str) -> dict[str, Any] | None:
        """The firewall of that name; names are unique in a project."""
        doing = f"looking for the firewall {name}"
        answer = self.call("GET", "/firewalls", doing, params={"name": name})
        with self.reported(doing, None):
            return next((firewall for firewall in answer["firewalls"] if firewall["name"] == name), None)

    def create_firewall(self, name: str, labels: Json, rules: Sequence[Json], selector: str) -> None:
        """Make a firewall that holds for all servers whose labels fit, now and later."""
        body = {"name": name, "labels": labels, "rules": list(rules), "apply_to": [_selects(selector)]}
        self.call("POST", "/firewalls", f"creating the firewall {name}", json=body)

    def set_firewall_rules(self, firewall_id: int, rules: Sequence[Json]) -> None:
        """Replace the rules of a firewall."""
        path = f"/firewalls/{firewall_id}/actions/set_rules"
        self.call("POST", path, "setting the rules of the firewall", json={"rules": list(rules)})

    def apply_firewall(self, firewall_id: int, selector: str) -> None:
        """Let a firewall hold for servers whose labels fit."""
        path = f"/firewalls/{firewall_id}/actions/apply_to_resources"
        self.call("POST", path, "applying the firewall", json={"apply_to": [_selects(selector)]})

    def unapply_firewall(self, firewall_id: int, selectors: Sequence[str]) -> None:
        """Let a firewall no longer hold by these label selectors."""
        path = f"/firewalls/{firewall_id}/actions/remove_from_resources"
        body = {"remove_from": [_selects(selector) for selector in selectors]}
        self.call("POST", path, "taking the firewall off", json=body)

    def retire_firewall(self, firewall_id: int, selectors: Sequence[str]) -> None:
        """Take a firewall off and delete it.

        Raises:
            Conflict: Hetzner is still at taking it off.
        """
        try:
            if selectors:
                self.unapply_firewall(firewall_id, selectors)
            self.call("DELETE", f"/firewalls/{firewall_id}", "deleting the firewall")
        except errors.NotFound:
            return

    def ssh_keys_of(self, selector: str) -> list[dict[str, Any]]:
        """Every registered SSH key whose labels fit."""
        return self.all("/ssh_keys", "ssh_keys", "listing SSH keys", {"label_selector": selector})

    def delete_ssh_key(self, key_id: int) -> None:
        """Forget a registered key. Servers made with it keep it."""
        try:
            self.call("DELETE", f"/ssh_keys/{key_id}", "deleting an SSH key")
        except errors.NotFound:
            return

    def ssh_keys(self, public_keys: Sequence[str], labels: Mapping[str, str] | None = None) -> list[int]:
        """The ids of these keys in the project, which are registered where they are not yet.

        Args:
            labels: of those that have to be registered.
        """
        with self._keys_lock:
            keys = dict.fromkeys(key.strip() for key in public_keys)
            return [self._ssh_key(key, labels or {}) for key in keys]

    def _ssh_key(self, public: str, labels: Mapping[str, str]) -> int:
        fingerprint = key_fingerprint(public)
        if fingerprint not in self._keys:
            found = self._ssh_key_by(fingerprint)
            if found is None:
                name = f"gpumesh-{fingerprint.replace(':', '')}"
                body = {"name": name, "public_key": public, "labels": dict(labels)}
                try:
                    answer = self.call("POST", "/ssh_keys", "registering an SSH key", json=body)
                    found = answer["ssh_key"]["id"]
                except errors.Conflict:
                    # Another control machine was faster.
                    found = self._ssh_key_by(fingerprint)
                    if found is None:
                        raise
            self._keys[fingerprint] = found
        return self._keys[fingerprint]

    def _ssh_key_by(self, fingerprint: str) -> int | None:
        doing = "looking for an SSH key"
        answer = self.call("GET", "/ssh_keys", doing, params={"fingerprint": fingerprint})
        with self.reported(doing, None):
            return next((key["id"] for key in answer["ssh_keys"] if key["fingerprint"] == fingerprint), None)

    def wait(self, ids: Sequence[int], doing: str, machine: str, clock: Clock, timeout: float) -> None:
        """Wait until these actions have ended.

        Args:
            timeout: seconds.

        Raises:
            WaitTimeout: they had not ended by then.
        """
        end = clock.now() + timeout
        pause = 0.5
        while True:
            actions = self.actions(ids)
            for action in actions.values():
                if action["status"] == "error":
                    raise self.action_error(action.get("error") or {}, doing, machine)
            if len(actions) == len(set(ids)) and all(
                action["status"] == "success" for action in actions.values()
            ):
                return
            if clock.now() >= end:
                raise errors.WaitTimeout(
                    f"{doing} had not ended after {timeout:.0f} s",
                    machine=machine,
                    hint="Run the same task again to go on",
                )
            clock.sleep(pause)
            pause = min(pause * 1.5, 5.0)


def _selects(selector: str) -> dict[str, Any]:
    return {"type": "label_selector", "label_selector": {"selector": selector}}


def _use_session(client: hcloud.Client, session: requests.Session) -> None:
    """Make the library send through our session and leave repeating to it.

    The library has no public way to do either, so it is checked that the parts we replace are there.
    """
    base: Any = getattr(client, "_client", None)
    if not (hasattr(base, "_session") and hasattr(base, "_retry_max_retries")):
        raise errors.MissingLibrary(
            f"the hcloud library {hcloud.__version__} is built differently from what this collection knows",
            hint="Install hcloud >= 2.10, < 3 on the control machine",
        )
    base._session = session
    base._retry_max_retries = 0
