from .base import Base
from .customer import Customer

__all__ = ["Base", "Customer"]
