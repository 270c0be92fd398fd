# SPDX-License-Identifier: GPL-3.0-or-later
"""Google's OAuth 2 token endpoint, for service accounts: a signed JWT in, an access token out.

At its start the sandbox writes the key file of a throw-away service account, for its owner's eyes only. Nothing but a
token got with that key opens the API. A token carries its own expiry and scopes under a signature, so that nothing has
to be remembered and one survives a restart, as a client that caches it expects.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from .private import write_private
from .world import Service, World

PROJECT = "gpumesh-sandbox"
ACCOUNT = f"fleet@{PROJECT}.iam.gserviceaccount.com"
KEY_FILE = "gcp-service-account.json"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
"""What google-auth writes into every JWT, wherever it sends it."""
LIFETIME = 3600
"""Seconds an access token is good for, and a JWT at most."""
_SKEW = 300


class Refused(Exception):
    """A token request that is refused, with the words of RFC 6749."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


class Issuer:
    """Issues access tokens and knows its own again. Kept by :meth:`World.store`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.token_uri = f"{world.base_url}/oauth2/token"
        self._key = _load_key(world)
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.key_id = hashlib.sha256(pem).hexdigest()[:40]
        self._secret = hashlib.sha256(b"access tokens" + pem).digest()
        write_private(
            world.state_dir / KEY_FILE,
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": PROJECT,
                    "private_key_id": self.key_id,
                    "private_key": pem.decode(),
                    "client_email": ACCOUNT,
                    "client_id": "100000000000000000001",
                    "auth_uri": f"{world.base_url}/oauth2/auth",
                    "token_uri": self.token_uri,
                    "universe_domain": "googleapis.com",
                },
                indent=2,
            ),
        )

    def exchange(self, assertion: str) -> dict[str, Any]:
        """The answer to a JWT.

        Raises:
            Refused: it is not signed by the account's key, too old, or not meant for this endpoint.
        """
        claims = self._verified(assertion)
        now = self.world.clock.time()
        issued, expires = claims.get("iat"), claims.get("exp")
        if (
            not isinstance(issued, int | float)
            or not isinstance(expires, int | float)
            or expires - issued > LIFETIME
            or issued > now + _SKEW
            or expires < now - _SKEW
        ):
            raise Refused(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
                "Check your iat and exp values in the JWT claim.",
            )
        if claims.get("iss") != ACCOUNT:
            raise Refused("invalid_grant", "Invalid grant: account not found")
        if claims.get("aud") not in (AUDIENCE, self.token_uri):
            raise Refused(
                "invalid_grant", f"Invalid JWT: Failed audience check. The right audience is {AUDIENCE}"
            )
        scope = claims.get("scope")
        if not isinstance(scope, str) or not scope:
            raise Refused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        return {
            "access_token": self._token(now + LIFETIME, scope),
            "expires_in": LIFETIME - 1,
            "token_type": "Bearer",
        }

    def scopes(self, token: str) -> frozenset[str] | None:
        """What an access token allows; None if it is not ours or has expired."""
        body, _, seal = token.removeprefix("ya29.").partition(".")
        if not hmac.compare_digest(seal.encode(), self._seal(body).encode()):
            return None
        expires, scope = json.loads(_decode(body))
        return frozenset(scope.split()) if self.world.clock.time() < expires else None

    def _token(self, expires: float, scope: str) -> str:
        body = _encode(json.dumps([expires, scope]).encode())
        return f"ya29.{body}.{self._seal(body)}"

    def _seal(self, body: str) -> str:
        return _encode(hmac.digest(self._secret, body.encode(), "sha256"))

    def _verified(self, assertion: str) -> dict[str, Any]:
        parts = assertion.split(".")
        try:
            header, claims = (json.loads(_decode(part)) for part in parts[:2])
            signature = _decode(parts[2])
        except (ValueError, IndexError) as error:
            raise Refused("invalid_grant", "Bad Request") from error
        if len(parts) != 3 or not isinstance(header, dict) or not isinstance(claims, dict):
            raise Refused("invalid_grant", "Bad Request")
        try:
            self._key.public_key().verify(signature, f"{parts[0]}.{parts[1]}".encode(), PKCS1v15(), SHA256())
        except InvalidSignature as error:
            raise Refused("invalid_grant", "Invalid JWT Signature.") from error
        if header.get("alg") != "RS256" or header.get("kid") not in (None, self.key_id):
            raise Refused("invalid_grant", "Invalid JWT Signature.")
        return claims


def _load_key(world: World) -> RSAPrivateKey:
    """The key of an earlier run, so that a client holding it goes on; else a new one."""
    try:
        text = json.loads((world.state_dir / KEY_FILE).read_text("utf-8"))["private_key"]
        key = load_pem_private_key(text.encode(), None)
        if isinstance(key, RSAPrivateKey):
            return key
    except (OSError, ValueError, KeyError, TypeError):
        pass  # There is none, or somebody has edited it: both are mended by a new one.
    return generate_private_key(65537, 2048)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _injected(code: int) -> Response:
    error = "temporarily_unavailable" if code == 503 else "internal_failure"
    return JSONResponse({"error": error, "error_description": "Injected by the sandbox."}, code)


def routes(world: World) -> list[BaseRoute]:
    """The route of ``/oauth2/token``; writes the service account's key file into the state directory."""
    world.register(Service("oauth", "/oauth2", _injected))
    world.store(Issuer)

    async def token(request: Request) -> Response:
        given = parse_qs((await request.body()).decode("utf-8", "replace"))
        try:
            if given.get("grant_type") != [GRANT]:
                raise Refused(
                    "unsupported_grant_type", f"Invalid grant_type: {given.get('grant_type', [''])[0]}"
                )
            answer = world.store(Issuer).exchange(given.get("assertion", [""])[0])
        except Refused as refusal:
            return JSONResponse({"error": refusal.error, "error_description": refusal.description}, 400)
        return JSONResponse(answer, headers={"Cache-Control": "private"})

    return [Route("/oauth2/token", token, methods=["POST"])]
