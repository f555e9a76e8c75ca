"""What all settings have in common: typed values with limits, and unknown keys refused by name."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from headstart.core.errors import PlanError, nearest


class Settings(BaseModel):
    """Base of all settings: frozen, strict about keys, numbers coerced to their annotated type."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


T = TypeVar("T", bound=BaseModel)


def parse(schema: type[T], values: Any, *, what: str) -> T:
    """Validate `values` into `schema`; a PlanError names each unknown key or bad value and the nearest known name."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines: list[str] = []
        for item in error.errors():
            place = ".".join(str(part) for part in item["loc"])
            hint = nearest(str(item["loc"][-1]), _known(schema)) if item["type"] == "extra_forbidden" else ""
            reason = (
                "unknown key"
                if item["type"] == "extra_forbidden"
                else f"{item['msg']}, got {item['input']!r}"
            )
            lines.append(f"{place}: {reason}{hint}")
        raise PlanError(
            f"{what} is not valid: " + "; ".join(lines),
            expected=f"the settings of {schema.__name__}: {', '.join(schema.model_fields)}",
            fix="correct the key or value named above (`headstart explain --schema` prints every setting)",
        ) from None


def _known(schema: type[BaseModel]) -> set[str]:
    """Return the field names of a schema and of every settings class (a key may sit in a nested one)."""
    return {name for item in (schema, *Settings.__subclasses__()) for name in item.model_fields}
