"""The tables, one module each.

Importing this package imports every module in it, so a new file is known to Alembic
as soon as it is there. Import a class from its own module: `from app.models.user import User`.
"""

from importlib import import_module
from pkgutil import walk_packages

from app.database import Base

for module in walk_packages(__path__, prefix=f"{__name__}."):
    import_module(module.name)

metadata = Base.metadata  # of all tables, by now
