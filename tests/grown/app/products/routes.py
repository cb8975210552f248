"""HTTP for products."""

from codecs import iterdecode
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, UploadFile

from app.dependencies import ReadSession, Session
from app.products import service
from app.products.schemas import Imported, ProductRead
from app.web.openapi import responses

router = APIRouter(prefix="/products", tags=["products"], responses=responses(503, 504))


@router.get("", response_model=list[ProductRead])
async def read_all(reader: ReadSession) -> Sequence[Any]:
    return await service.get_all(reader)


@router.post("/import", max_body_size=20_000_000)
async def upload(file: UploadFile, session: Session) -> Imported:
    """Store a price list: a CSV file with the columns sku, name, price and unit."""
    prices = service.parse(iterdecode(file.file, "utf-8", errors="replace"))
    return Imported(products=await service.store(session, prices))
