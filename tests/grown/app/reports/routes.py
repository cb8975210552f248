"""HTTP for reports."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Row

from app.dependencies import Session
from app.reports import service
from app.reports.schemas import Month
from app.web.openapi import responses

router = APIRouter(prefix="/reports", tags=["reports"], responses=responses(503, 504))


@router.get("/months", response_model=list[Month])
async def read_months(session: Session) -> Sequence[Row[Any]]:
    return await service.get_months(session)
