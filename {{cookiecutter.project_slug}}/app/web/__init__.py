"""HTTP: errors, OpenAPI, middleware, logs, probes, shutdown. The package imports no feature."""
