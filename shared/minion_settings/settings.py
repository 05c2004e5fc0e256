"""The class that every settings class derives from."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from minion_settings.faults import Fault, SettingsError
from minion_settings.relations import check_names, relations
from minion_settings.variables import holds_secret, parse, shown, variables

_RELATION_FAULTS = "relation_faults"
# Stands where a field has no value that can be used.
_FAULTY: Final = object()


class Settings(BaseSettings):
    """Every service."""

    # The service's short name ("session"); the mixins have none and are read from `MINION_<FIELD>` alone.
    service: ClassVar[str] = ""

    # hide_input_in_errors: a value may be a secret, and a ValidationError ends up in a terminal or a log.
    # allow_inf_nan: no time, share or count is endless, and what takes them later fails on it.
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        validate_default=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    name: str = Field("minion", min_length=1, max_length=63, description="The deployment's name, in logs and traces.")
    environment: Literal["development", "staging", "production"] = Field(
        "development", description="Where this deployment runs."
    )

    @property
    def is_production(self) -> bool:
        """Whether real users stand behind this deployment."""
        return self.environment == "production"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, /, **overrides: object) -> Self:
        """Reads the environment (the process's, if none is given).

        `overrides` are field values that win over the environment. Raises SettingsError, which lists all faults: those
        of single fields, and those between the fields that are right by themselves.
        """
        source = os.environ if environ is None else environ
        values: dict[str, Any] = dict(overrides)
        faults: list[Fault] = []
        for name, field in cls.model_fields.items():
            if name in values:
                continue
            for variable in variables(cls, name):
                text = source.get(variable, "")
                if text:
                    try:
                        values[name] = parse(field, text)
                    except ValueError:
                        faults.append(Fault(variable, "is not valid JSON"))
                        values[name] = text
                    break
        try:
            loaded = cls(**values)
        except ValidationError as error:
            known = {fault.variable for fault in faults}
            found = [fault for detail in error.errors() for fault in cls._faults(detail, source)]
            faults += (fault for fault in found if fault.variable not in known)
            if any(detail["loc"] for detail in error.errors()):
                faulty = {place for detail in error.errors() if (place := cls._field_at(detail)) is not None}
                faults += cls._faults_beside(faulty, values)
            raise SettingsError(dict.fromkeys(faults)) from None
        return loaded

    @classmethod
    def variable(cls, field: str) -> str:
        """Names the environment variable that a person should set for a field of this class."""
        return variables(cls, field)[-1]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Takes values from the constructor's arguments alone; `load` is what reads the environment."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuses a setting with no description, which becomes `.env.example`, and a relation that another hides."""
        super().__pydantic_init_subclass__(**kwargs)
        silent = [name for name, field in cls.model_fields.items() if not field.description]
        if silent:
            raise TypeError(f"{cls.__name__} has settings with no description: {', '.join(silent)}")
        check_names(cls)

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        faulty = {name for name, value in self.__dict__.items() if value is _FAULTY}
        for name in faulty:
            del self.__dict__[name]
        faults = list(dict.fromkeys(relations(self, without=faulty)))
        if faults:
            listed = "; ".join(f"{fault.variable} {fault.description}" for fault in faults)
            raise PydanticCustomError(_RELATION_FAULTS, "{listed}", {"listed": listed, "faults": faults})
        return self

    @classmethod
    def _faults_beside(cls, faulty: Collection[str], values: Mapping[str, Any]) -> Sequence[Fault]:
        """Lists the faults between the fields that are right by themselves, as if the others could not be read."""
        open_fields: dict[str, Any] = {
            name: (
                Any,
                Field(
                    _FAULTY,
                    validate_default=False,
                    validation_alias=cls.model_fields[name].validation_alias,
                    description=cls.model_fields[name].description,
                ),
            )
            for name in faulty
        }
        # A class of its own, because a field that is required has no value to stand in for a faulty one.
        partial = create_model(cls.__name__, __base__=cls, **open_fields)
        given = {name: value for name, value in values.items() if name in cls.model_fields and name not in faulty}
        try:
            partial(**given)
        except ValidationError as error:
            return [fault for detail in error.errors() for fault in cls._faults(detail, {})]
        return []

    @classmethod
    def _faults(cls, detail: ErrorDetails, source: Mapping[str, str]) -> Iterator[Fault]:
        if detail["type"] == _RELATION_FAULTS:
            yield from detail["ctx"]["faults"]
            return
        if not detail["loc"]:
            yield Fault(cls.__name__, detail["msg"])
            return
        name = cls._field_at(detail)
        if name is None:
            yield Fault(str(detail["loc"][0]), "is no setting")
            return
        yield cls._fault(name, cls.model_fields[name], detail, source)

    @classmethod
    def _fault(cls, name: str, field: FieldInfo, detail: ErrorDetails, source: Mapping[str, str]) -> Fault:
        names = variables(cls, name)
        if detail["type"] == "missing":
            return Fault(" or ".join(names), f"is required: {field.description}")
        variable = next((candidate for candidate in names if source.get(candidate)), names[-1])
        where = "".join(f"[{part}]" for part in detail["loc"][1:])
        message = detail["msg"].removeprefix("Value error, ")
        # Of a mapping or a list only the place: the rest of it is right, long, and nobody's business.
        hidden = bool(where) or holds_secret(field) or not source.get(variable)
        return Fault(variable + where, message if hidden else f"{message} (is {shown(source[variable])})")

    @classmethod
    def _field_at(cls, detail: ErrorDetails) -> str | None:
        location = str(detail["loc"][0]) if detail["loc"] else ""
        if location in cls.model_fields:
            return location
        return next((name for name, field in cls.model_fields.items() if field.validation_alias == location), None)
