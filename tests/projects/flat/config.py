"""Settings in which host, user and password are separate variables."""

import os
from types import SimpleNamespace

settings = SimpleNamespace(
    db_user=os.environ["DB_USER"],
    db_password=os.environ["DB_PASSWORD"],
    db_host=os.environ["DB_HOST"],
    db_name=os.environ["DB_NAME"],
)
