"""Settings in which host, user and password are separate variables; or a URL for psycopg2."""

import os
from types import SimpleNamespace

settings = SimpleNamespace(
    database_url=os.environ.get("DATABASE_URL"),
    db_user=os.environ["DB_USER"],
    db_password=os.environ["DB_PASSWORD"],
    db_host=os.environ["DB_HOST"],
    db_name=os.environ["DB_NAME"],
)
