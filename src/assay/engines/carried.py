"""JSON that a request carries as text: tools, tool calls, schemas. Requests come from strangers, in bundles too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from assay.core.encoding import check_bounds
from assay.core.errors import EncodingError, InvalidRequest


def carried_json(text: str, field: str) -> object:
    """The value that `text` spells; `field` is the member of the request that errors name.

    Raises:
        InvalidRequest: not JSON, nested too deeply, or of too many values.
    """
    try:
        check_bounds(text.encode(), what=field)
        value: object = json.loads(text, parse_constant=_refuse)
    except EncodingError as error:
        raise InvalidRequest(error.message, field=field) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{field} is not JSON ({str(error)[:200]})", field=field) from error
    return value


def carried_objects(text: str, field: str) -> list[Mapping[str, object]]:
    """The list of JSON objects that `text` spells.

    Raises:
        InvalidRequest: it spells something else.
    """
    value = carried_json(text, field)
    if not isinstance(value, list):
        raise InvalidRequest(f"{field} is no list of objects", field=field)
    objects: list[Mapping[str, object]] = [item for item in value if isinstance(item, dict)]
    if len(objects) != len(value):
        raise InvalidRequest(f"{field} is no list of objects", field=field)
    return objects


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
