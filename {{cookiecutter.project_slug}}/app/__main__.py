"""`python -m app`: uvicorn with limits for a public address. Its options can be added."""

import sys

import uvicorn

if __name__ == "__main__":
    limits = [
        "--http=app.web.server:Protocol",
        "--limit-concurrency=1000",  # connections of one process; further ones get a 503
        "--timeout-graceful-shutdown=3",  # seconds for open requests
        *("--ws-max-size=1000000", "--ws-per-message-deflate=false"),  # bytes of a message
    ]
    uvicorn.main(["app.main:app", *limits, *sys.argv[1:]])
