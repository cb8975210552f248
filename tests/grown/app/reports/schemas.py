"""The bodies of responses."""

from datetime import date
from decimal import Decimal
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class Month(BaseModel):
    """What a customer was billed in a month, and its rank among all customers."""

    model_config = ConfigDict(from_attributes=True)

    month: date
    customer_id: UUID
    revenue: Decimal
    running_total: Decimal
    rank: int
