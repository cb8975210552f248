"""`python -m app`: uvicorn with limits for a public address. Its options can be added."""

import sys

import uvicorn

LIMITS = [
    "--http=app.web.server:Protocol",
    "--limit-concurrency=1000",  # connections of one process; further ones get a 503
    "--timeout-graceful-shutdown=3",  # seconds for open requests
]

if __name__ == "__main__":
    uvicorn.main(["app.main:app", *LIMITS, *sys.argv[1:]])
