"""`python -m app`: uvicorn with limits for a public address. Its options can be added."""

import sys

import uvicorn

OPTIONS = {
    "--http": "app.web.server:Protocol",  # bounds headers
    "--limit-concurrency": "1000",  # connections of one process; further ones get a 503
    "--timeout-graceful-shutdown": "3",  # seconds for open requests
}

if __name__ == "__main__":
    options = [f"{name}={value}" for name, value in OPTIONS.items()]
    uvicorn.main(["app.main:app", *options, *sys.argv[1:]])
