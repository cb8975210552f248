"""`python provider.py PORT AUDIENCE`: an identity provider on loopback, by oidc-provider-mock.

What that one lacks comes here: tokens name their key, access tokens are signed (RFC 9068), and a
client without a secret must use PKCE and gets the scopes that it asks for.
"""

import json
import sys
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from time import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import flask
import oidc_provider_mock
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

logins: dict[str, Any] = {}  # the query of the authorization, by code


def main() -> None:
    port, audience = int(sys.argv[1]), sys.argv[2]
    app: flask.Flask = oidc_provider_mock.app()

    @app.before_request
    def check_verifier() -> Any:
        request = flask.request
        if not is_exchange(request):
            return None
        digest = sha256(request.form.get("code_verifier", "").encode()).digest()
        challenge = urlsafe_b64encode(digest).decode().rstrip("=")
        if logins.get(request.form["code"], {}).get("code_challenge") != challenge:
            return flask.jsonify({"error": "invalid_grant"}), 400
        client = f"{request.form['client_id']}:any"
        request.environ["HTTP_AUTHORIZATION"] = f"Basic {b64encode(client.encode()).decode()}"
        return None

    @app.after_request
    def finish(response: flask.Response) -> flask.Response:
        request = flask.request
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Allow-Headers"] = "*, Authorization"
        code = parse_qs(urlsplit(response.headers.get("Location", "")).query).get("code")
        if code and request.args.get("code_challenge_method") == "S256":
            logins[code[0]] = request.args
        if is_exchange(request) and response.status_code == 200:
            login = logins.pop(request.form["code"])
            response.data = json.dumps(sign(json.loads(response.data), audience, login["scope"]))
        return response

    make_server("127.0.0.1", port, app, threaded=True).serve_forever()


def is_exchange(request: flask.Request) -> bool:
    """Tell whether a client exchanges a code, and does not merely ask for CORS."""
    return request.path == "/oauth2/token" and request.method == "POST"


def sign(answer: dict[str, Any], audience: str, scope: str) -> dict[str, Any]:
    """Replace the access token of an answer."""
    jwk = flask.g.oidc_provider_mock_storage.jwk
    key = RSAKey.import_key(getattr(jwk, "private_key", None) or jwk.get_private_key())
    payload = answer["id_token"].split(".")[1]
    user = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims = {"iss": user["iss"], "aud": audience, "sub": user["sub"], "scope": scope}
    header = {"alg": "RS256", "kid": key.thumbprint()}
    access = jwt.encode(header | {"typ": "at+jwt"}, claims | {"exp": int(time()) + 300}, key)
    return answer | {"access_token": access, "id_token": jwt.encode(header, user, key)}


if __name__ == "__main__":
    main()
