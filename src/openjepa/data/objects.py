"""`data=` of the Python interface: settings as on the command line, or objects, which are written to a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openjepa.core.errors import UserError
from openjepa.data.files.objects import Wanted, is_path_or_section, write_objects
from openjepa.data.questions.dataset import QuestionConfig
from openjepa.data.text.sources import DataConfig

KEYS = ("data", "data.source")
STAND_IN = "objects given in Python"  # the source, until the columns to write are known


def without_objects(values: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Settings by keyword with a stand-in for objects given as data, and these objects, or None."""
    for key in KEYS:
        value = values.get(key)
        if isinstance(value, Mapping) and is_path_or_section(value):
            inside, objects = without_objects({"data.source": value.get("source")})
            if objects is not None:
                return {**values, key: {**value, "source": inside["data.source"]}}, objects
        elif value is not None and not is_path_or_section(value):
            return {**values, key: STAND_IN}, value
    return values, None


def with_objects(settings: Any, objects: Any) -> Any:
    """The recipe's settings with the file of the objects as `data.source`. Raises UserError if it takes no texts."""
    if objects is None:
        return settings
    data = vars(settings).get("data")
    if isinstance(data, DataConfig):
        label = [] if data.label is None else [Wanted(data.label, "data.label", is_text=False)]
        wanted = [Wanted(data.column, "data.column"), *label]
    elif isinstance(data, QuestionConfig):
        wanted = [
            Wanted(data.question_column, "data.question_column"),
            Wanted(data.answer_column, "data.answer_column"),
        ]
    else:
        raise UserError("this recipe does not learn from texts; give data as a path, a pattern or a hub data set")
    source = str(write_objects(objects, wanted, data.split))
    return settings.model_copy(update={"data": data.model_copy(update={"source": source})})
