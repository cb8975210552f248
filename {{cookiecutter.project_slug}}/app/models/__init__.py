"""The tables, one module each.

Importing this package imports every module in it, so a new file is known to Alembic
as soon as it is there. Import a class from its own module: `from app.models.user import User`.
"""

from importlib import import_module
from pkgutil import walk_packages

for module in walk_packages(__path__, prefix=f"{__name__}."):
    import_module(module.name)
