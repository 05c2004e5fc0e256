"""Renders `.env.example` from the settings classes."""

import inspect
import textwrap
from collections.abc import Sequence

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from minion_settings.settings import Settings
from minion_settings.variables import choices, holds_secret, render, variables

_HEADER = """\
# Every setting of Minion, with its default. Generated from the settings classes: change those, not this file.
#
# A setting MINION_<NAME> can be given to one service alone as MINION_<SERVICE>_<NAME>, which wins.
"""


def env_example(classes: Sequence[type[Settings]]) -> str:
    """Renders all settings of the classes, grouped by the class that declares them, each once.

    Every line with a value is commented out; secrets are empty.
    """
    sections: dict[type[Settings], list[str]] = {}
    seen: set[str] = set()
    for settings in classes:
        for declaring in reversed(settings.__mro__):
            if not (isinstance(declaring, type) and issubclass(declaring, Settings)):
                continue
            for name in inspect.get_annotations(declaring):
                if name not in declaring.model_fields:
                    continue
                variable = _variable(declaring, name)
                if variable not in seen:
                    seen.add(variable)
                    sections.setdefault(declaring, []).append(_entry(variable, declaring.model_fields[name]))
    parts = [_HEADER]
    for declaring, entries in sections.items():
        title = (declaring.__doc__ or declaring.__name__).strip().splitlines()[0].rstrip(".")
        parts.append("\n".join([f"# --- {title} ---", "", *entries]))
    return "\n".join(parts)


def _variable(declaring: type[Settings], name: str) -> str:
    # A field that a service declares itself is shown under the service's name; a mixin's under the shared one.
    return variables(declaring, name)[0]


def _entry(variable: str, field: FieldInfo) -> str:
    text = field.description or ""
    if values := choices(field):
        text += f" One of: {', '.join(values)}."
    required = field.default is PydanticUndefined and field.default_factory is None
    if required:
        text += " Required."
    default = "" if required or holds_secret(field) else render(field.get_default(call_default_factory=True))
    lines = textwrap.wrap(text, 116, initial_indent="# ", subsequent_indent="# ")
    return "\n".join([*lines, f"#{variable}={default}", ""])
