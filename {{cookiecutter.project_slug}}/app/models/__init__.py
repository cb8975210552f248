"""The tables. Import a class from its own module: `from app.models.item import Item`.

Importing this package imports every module in it, so Alembic finds a new table without a list.
"""

from importlib import import_module
from pkgutil import walk_packages

from app.database import Base

for module in walk_packages(__path__, prefix=f"{__name__}."):
    import_module(module.name)

metadata = Base.metadata  # complete, for programs that want it
__all__: list[str] = []  # in env.py, a model's module `context` must not replace Alembic's
