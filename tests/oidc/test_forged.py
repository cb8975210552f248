"""Forged and stale tokens: RFC 8725, and what a reader of it may add."""

import hmac
import json
import logging
import random
import string
from base64 import urlsafe_b64encode
from time import time
from typing import Any

import pytest
from access_tokens import claims_for, sign
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from fastapi import FastAPI
from httpx import AsyncClient
from joserfc import jwe, jws
from joserfc.jwk import ECKey, RSAKey

from app.oidc.errors import InvalidToken
from app.oidc.tokens import LEEWAY, Verifier
from oidc.conftest import DISCOVERY, EC, JWKS, RSA, Provider, new_key, status_of

ATTACKER = new_key("rsa")
P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # the order


def encode(value: Any) -> str:
    """Return base64url of bytes, of text, or of JSON."""
    if not isinstance(value, str | bytes):
        value = json.dumps(value)
    data = value.encode() if isinstance(value, str) else value
    return urlsafe_b64encode(data).decode().rstrip("=")


def sign_any(header: Any, payload: Any) -> str:
    """Sign with the provider's RSA key, whatever is signed."""
    content = f"{encode(header)}.{encode(payload)}"
    registry = jws.JWSRegistry(algorithms=["RS256"])
    signature = registry.get_alg("RS256").sign(content.encode(), RSA)
    return f"{content}.{encode(signature)}"


def with_algorithm(claims: dict[str, Any]) -> dict[str, str]:
    """Other algorithms, and keys of another one."""
    good = sign(claims, RSA)
    signature = good.rpartition(".")[2]
    header = {"alg": "RS256", "kid": "rsa"}
    forged = {}
    for name in ("none", "None", "NONE", "nOnE", "", "RS256 ", "rs256", "RS1", "A128KW", "dir"):
        for end in ("", signature):
            forged[f"alg {name!r} {end[:1]}"] = f"{encode(header | {'alg': name})}." + (
                f"{encode(claims)}.{end}"
            )
    for value in (None, 1, ["RS256"], {"RS256": 1}, True):
        forged[f"alg {value!r}"] = (
            f"{encode(header | {'alg': value})}.{encode(claims)}.{signature}"
        )
    public = {
        "PEM": RSA.as_pem(private=False),
        "PEM stripped": RSA.as_pem(private=False).strip(),
        "DER": RSA.as_der(private=False),
        "JWK": json.dumps(RSA.as_dict(private=False)).encode(),
        "modulus": str(RSA["n"]).encode(),
    }
    for form, secret in public.items():
        for name in ("HS256", "HS384", "HS512"):
            content = f"{encode(header | {'alg': name})}.{encode(claims)}"
            signed = hmac.digest(secret, content.encode(), f"sha{name[2:]}")
            forged[f"{name} with the {form}"] = f"{content}.{encode(signed)}"
    plain = RSAKey.import_key({k: v for k, v in RSA.as_dict(private=True).items() if k != "alg"})
    for name in ("RS384", "RS512", "PS256", "PS384", "PS512"):  # the provider's key is for RS256
        forged[f"{name} with a key for RS256"] = sign(claims, plain, alg=name, kid="rsa")
    forged["RS256 with the id of the EC key"] = sign(claims, RSA, kid="ec")
    forged["ES256 with the id of the RSA key"] = sign(claims, EC, kid="rsa")
    other = ECKey.generate_key("P-384", {"kid": "ec", "alg": "ES384"})
    forged["ES384 with the id of a P-256 key"] = sign(claims, other)
    weak = ECKey.generate_key("secp256k1", {"kid": "ec", "alg": "ES256K"})
    forged["ES256K"] = sign(claims, weak)
    return forged


def with_signature(claims: dict[str, Any]) -> dict[str, str]:
    good, other = sign(claims, RSA), sign(claims | {"sub": "admin"}, RSA)
    content, _, signature = good.rpartition(".")
    header, payload = content.split(".")
    wrong = signature[:-10] + ("A" * 10)
    elliptic = sign(claims, EC)
    ec_content, _, raw = elliptic.rpartition(".")
    assert EC.private_key
    der = EC.private_key.sign(ec_content.encode(), ECDSA(hashes.SHA256()))
    order, zero = P256.to_bytes(32, "big"), bytes(32)
    return {
        "of another key": sign(claims, ATTACKER),
        "missing": f"{content}.",
        "cut": good[:-1],
        "cut in two": good[:-170],
        "longer": f"{good}AAAA",
        "padded": f"{good}==",
        "wrong": f"{content}.{wrong}",
        "of another token": f"{content}.{other.rpartition('.')[2]}",
        "zeros": f"{content}.{encode(bytes(256))}",
        "one": f"{content}.{encode(bytes(255) + bytes([1]))}",
        "other claims": f"{header}.{encode(claims | {'sub': 'admin'})}.{signature}",
        "other header": f"{encode({'alg': 'RS256', 'kid': 'rsa', 'a': 1})}.{payload}.{signature}",
        "header and claims swapped": f"{payload}.{header}.{signature}",
        "DER for ES256": f"{ec_content}.{encode(der)}",
        "zeros for ES256": f"{ec_content}.{encode(zero * 2)}",
        "order for ES256": f"{ec_content}.{encode(order * 2)}",
        "zero and one for ES256": f"{ec_content}.{encode(zero + bytes(31) + bytes([1]))}",
        "nothing for ES256": f"{ec_content}.",
        "longer for ES256": f"{ec_content}.{encode(b'0' + bytes(64))}",
        "cut for ES256": f"{ec_content}.{raw[:-4]}",
        "of RSA for ES256": f"{ec_content}.{signature}",
    }


def with_header(claims: dict[str, Any], url: str) -> dict[str, str]:
    """Headers that hold or name a key of the attacker's, and extensions."""
    public = ATTACKER.as_dict(private=False)
    headers: dict[str, dict[str, Any]] = {
        "jwk": {"jwk": public},
        "jwk without kid": {"jwk": public, "kid": None},
        "jku": {"jku": f"{url}/evil"},
        "x5u": {"x5u": f"{url}/evil"},
        "x5c": {"x5c": [encode(ATTACKER.as_der(private=False))]},
        "all": {"jwk": public, "jku": f"{url}/evil", "x5u": f"{url}/evil"},
    }
    forged = {}
    for name, more in headers.items():
        header = {"alg": "RS256", "kid": "rsa"} | more
        header = {key: value for key, value in header.items() if value is not None}
        content = f"{encode(header)}.{encode(claims)}"
        algorithm = jws.JWSRegistry(algorithms=["RS256"]).get_alg("RS256")
        forged[name] = f"{content}.{encode(algorithm.sign(content.encode(), ATTACKER))}"
    signed: dict[str, dict[str, Any]] = {
        "crit": {"crit": ["exp"], "exp": 1},
        "crit of an unknown one": {"crit": ["x"], "x": 1},
        "crit, empty": {"crit": []},
        "crit, a number": {"crit": 5},
        "b64": {"b64": False},
        "b64 and crit": {"b64": False, "crit": ["b64"]},
        "b64, true": {"b64": True},
        "typ of DPoP": {"typ": "dpop+jwt"},
        "typ of logout": {"typ": "logout+jwt"},
        "typ of an event": {"typ": "secevent+jwt"},
        "typ of a number": {"typ": 1},
        "typ of nothing": {"typ": ""},
        "typ null": {"typ": None},
        "typ JWE": {"typ": "JWE"},
        "kid unknown": {"kid": "no"},
        "kid of a path": {"kid": "../../../dev/null"},
        "kid of SQL": {"kid": "x' UNION SELECT 'key"},
        "kid of a URL": {"kid": f"{url}/evil"},
        "kid with NUL": {"kid": "rsa\0"},
        "kid in capitals": {"kid": "RSA"},
        "kid empty": {"kid": ""},
        "kid null": {"kid": None},
        "kid a number": {"kid": 1},
        "kid a list": {"kid": ["rsa"]},
        "kid an object": {"kid": {}},
        "long": {"x": "x" * 1000},
    }
    base = {"alg": "RS256", "kid": "rsa"}
    forged |= {name: sign_any(base | more, claims) for name, more in signed.items()}
    return forged | {
        "without kid": sign_any({"alg": "RS256"}, claims),
        "without alg": sign_any({"kid": "rsa"}, claims),
        "alg twice": sign_any('{"alg":"RS256","kid":"rsa","alg":"none"}', claims),
        "kid twice": sign_any('{"alg":"RS256","kid":"rsa","kid":"no"}', claims),
        **{
            f"header {text[:10]}": sign_any(text, claims)
            for text in ("", "{", "[]", "1", "null", '"alg"', '["alg"]', "[" * 300, "\xff", "NaN")
        },
    }


def with_claims(claims: dict[str, Any], client: str) -> dict[str, str]:
    now, issuer, audience = int(time()), claims["iss"], claims["aud"]
    changes: dict[str, list[Any]] = {
        "iss": [
            *(f"{issuer}/", issuer.upper(), issuer[:-1], f"{issuer}.evil.example.com", "", None),
            *([issuer], {"iss": issuer}, 1, True, "https://evil.example.com"),
        ],
        "aud": [
            *("other", audience[:-1], f"{audience} ", audience.upper(), "", [], ["other"], None),
            *([[audience]], [audience, 1], {audience: 1}, 1, True, client),
        ],
        "exp": [
            *(now - LEEWAY - 1, now - 86400, 0, -1, None, str(now + 300), True, [now + 300], {}),
            *(float("nan"), float("-inf"), float("inf"), ""),
        ],
        "nbf": [now + LEEWAY + 5, str(now), None, True, float("nan"), 10**20],
        "iat": [now + LEEWAY + 5, str(now), None, True, float("nan"), 10**20],
        "sub": ["", None, 1, ["ann"], {}, True],
    }
    forged = {
        f"{name} {value!r}"[:60]: sign_any({"alg": "RS256", "kid": "rsa"}, claims | {name: value})
        for name, values in changes.items()
        for value in values
    }
    for name in ("iss", "aud", "exp", "sub"):
        rest = {key: value for key, value in claims.items() if key != name}
        forged[f"without {name}"] = sign(rest, RSA)
    text = json.dumps(claims)[:-1]
    header = {"alg": "RS256", "kid": "rsa"}
    return forged | {
        "aud twice": sign_any(header, text + ',"aud":"other"}'),
        "exp twice": sign_any(header, text + ',"exp":1}'),
        "iss twice": sign_any(header, text + ',"iss":"https://evil.example.com"}'),
        "an ID token": sign(claims | {"aud": client, "nonce": "1", "typ": "ID"}, RSA),
        **{
            f"claims {content[:10]!r}": sign_any(header, content)
            for content in ("", "{", "[]", "1", "null", '"sub"', "[" * 90_000, b"\xff", "{}")
        },
        "claims nested": sign_any(header, text + ',"x":' + "[" * 40_000 + "]" * 40_000 + "}"),
        "claims with a long number": sign_any(header, text + ',"x":' + "9" * 5000 + "}"),
    }


def of_other_forms(claims: dict[str, Any]) -> dict[str, str]:
    good = sign(claims, RSA)
    header, payload, signature = good.split(".")
    encrypting = RSAKey.import_key({k: v for k, v in RSA.as_dict().items() if k in "kty n e"})
    protected = {"alg": "RSA-OAEP", "enc": "A128GCM", "kid": "rsa", "typ": "JWT"}
    algorithms = ["RSA-OAEP", "A128GCM"]
    members = {"payload": payload, "protected": header, "signature": signature}
    return {
        "JWE of the claims": jwe.encrypt_compact(
            protected, json.dumps(claims), encrypting, algorithms
        ),
        "JWE of a token": jwe.encrypt_compact(
            protected | {"cty": "JWT"}, good, encrypting, algorithms
        ),
        "a token in a token": sign_any({"alg": "RS256", "kid": "rsa", "cty": "JWT"}, good),
        "JSON": json.dumps(members),
        "two parts": f"{header}.{payload}",
        "four parts": f"{good}.{signature}",
        "five parts": f"{header}....",
        "dots": "..",
        "a dot": ".",
        "a word": "token",
        "base64": f"{header}+/.{payload}.{signature}",
        "padding": f"{header}=.{payload}.{signature}",
        "a line break": f"{header}.{payload}\t.{signature}",
        "a space": f"{header} .{payload}.{signature}",
        "two tokens": f"{good}, {good}",
        "a prefix": f"Bearer {good}",
        "Latin": f"{good}é",
        "64 kB": "A" * 65_536,
        "64 kB of dots": "." * 65_536,
        "1 MB": f"{header}.{'A' * 1_000_000}.{signature}",
        "a long signature": f"{header}.{payload}.{'A' * 100_000}",
        "a long payload": sign(claims | {"x": "x" * 200_000}, RSA),
    }


async def test_forged_tokens_are_refused(
    app: FastAPI, client: AsyncClient, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names no part of them, and no key that they name is fetched."""
    caplog.set_level(logging.INFO)
    claims = claims_for(app, sub="hunter2-hunter2")
    groups = {
        "algorithm": with_algorithm(claims),
        "signature": with_signature(claims),
        "header": with_header(claims, provider.url),
        "claims": with_claims(claims, "browser"),
        "form": of_other_forms(claims),
    }
    accepted, counts = [], {}
    for group, tokens in groups.items():
        counts[group] = len(tokens)
        for name, token in tokens.items():
            header = [(b"authorization", f"Bearer {token}".encode())]
            response = await client.get("/items", headers=header)
            expected = (401, 'Bearer error="invalid_token"')
            if (response.status_code, response.headers.get("www-authenticate")) != expected:
                accepted.append(f"{group}, {name}: {response.status_code}")
            assert "hunter2" not in response.text
    print(f"{sum(counts.values())} forged tokens, {len(accepted)} accepted: {counts}")
    assert accepted == []
    assert sum(counts.values()) > 200
    assert await status_of(client, sign(claims, RSA)) == 200
    assert await status_of(client, sign(claims, EC)) == 200
    assert set(provider.requests) == {DISCOVERY, JWKS}
    assert "A token was refused: InvalidClaimError aud" in caplog.text
    assert "hunter2" not in caplog.text
    assert encode(claims)[:30] not in caplog.text


async def test_clocks_may_differ_a_little(app: FastAPI, client: AsyncClient) -> None:
    now = int(time())
    for change in (
        {"exp": now - LEEWAY + 5},
        {"nbf": now + LEEWAY - 5},
        {"iat": now + LEEWAY - 5},
    ):
        assert await status_of(client, sign(claims_for(app, **change), RSA)) == 200


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
async def test_types_of_access_tokens_are_accepted(
    app: FastAPI, client: AsyncClient, typ: str
) -> None:
    assert await status_of(client, sign(claims_for(app), RSA, typ=typ)) == 200


async def test_header_may_name_its_certificate(app: FastAPI, client: AsyncClient) -> None:
    """As Entra's does, with a type that is missing at Cognito, and members of later standards."""
    token = sign_any({"alg": "RS256", "kid": "rsa", "x5t": "abc", "later": 1}, claims_for(app))
    assert await status_of(client, token) == 200


async def test_mutations_of_a_token_are_refused(app: FastAPI, token: str) -> None:
    """Each with one to three characters changed, moved or lost."""
    verifier: Verifier = app.state.oidc
    chance, count = random.Random(1), 5000  # noqa: S311 - to be repeated
    await verifier.verify(token)
    letters = string.ascii_letters + string.digits + "-_.=+/ é\0"
    for _ in range(count):
        text = list(token)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(text))
            text[place : place + chance.randint(0, 2)] = chance.choice(letters)
        if (mutated := "".join(text)) != token:
            with pytest.raises(InvalidToken):
                await verifier.verify(mutated)
    print(f"{count} mutations refused")


async def test_issuers_that_share_a_key_are_told_apart(
    app: FastAPI, client: AsyncClient, provider: Provider
) -> None:
    """Tenants of one provider, say: the key is known, and the issuer is another one."""
    for issuer in (f"{provider.url}/tenant", "https://login.example.com/other"):
        assert await status_of(client, sign(claims_for(app, iss=issuer), RSA)) == 401


async def test_token_counts_in_the_header_only(
    client: AsyncClient, provider: Provider, token: str
) -> None:
    responses = [
        await client.get("/items", params={"access_token": token, "token": token}),
        await client.get("/items", headers={"cookie": f"access_token={token}; token={token}"}),
        await client.get("/items", headers={"x-access-token": token}),
        await client.post("/items", data={"access_token": token}),
    ]
    assert [response.status_code for response in responses] == [401] * 4
    assert {response.headers["www-authenticate"] for response in responses} == {"Bearer"}
    assert provider.requests == []
