"""Settings: where values come from, and what a person is told when they are wrong."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import pytest
from minion_settings import Fault, Settings, SettingsError, Unknown, env_example, unknown
from pydantic import Field, SecretStr, ValidationError


class StoreSettings(Settings):
    """The store."""

    store_url: SecretStr = Field(description="Where the store is.")
    store_size: int = Field(25, ge=1, description="How much it holds.")
    store_hosts: tuple[str, ...] = Field((), description="Hosts, separated by commas.")
    store_limits: dict[str, int] = Field({}, description="Limits by name, as JSON.")
    store_mode: Literal["fast", "safe"] = Field("safe", description="How it stores.")
    store_debug: bool = Field(False, description="Whether it talks.")
    provider_key: SecretStr | None = Field(None, validation_alias="PROVIDER_KEY", description="The provider's key.")

    def relations(self) -> Iterator[Fault]:
        yield from super().relations()
        if self.store_mode == "fast" and self.store_size > 100:
            yield Fault(self.variable("store_size"), "must be at most 100 in mode fast")


class ShopSettings(StoreSettings):
    """The shop."""

    service: ClassVar[str] = "shop"

    port: int = Field(50099, ge=0, le=65535, description="The shop's port.")


def test_own_variable_wins_over_the_shared_one() -> None:
    environ = {"MINION_STORE_URL": "a", "MINION_STORE_SIZE": "3", "MINION_SHOP_STORE_SIZE": "4"}
    assert ShopSettings.load(environ).store_size == 4
    assert StoreSettings.load(environ).store_size == 3


def test_values_are_converted() -> None:
    loaded = ShopSettings.load(
        {
            "MINION_STORE_URL": "a",
            "MINION_STORE_HOSTS": "one, two",
            "MINION_STORE_LIMITS": '{"x": 1}',
            "MINION_STORE_DEBUG": "true",
            "PROVIDER_KEY": "k",
            "MINION_ENVIRONMENT": "production",
        }
    )
    assert loaded.store_hosts == ("one", "two")
    assert loaded.store_limits == {"x": 1}
    assert loaded.store_debug
    assert loaded.provider_key is not None
    assert loaded.provider_key.get_secret_value() == "k"
    assert loaded.is_production


def test_an_empty_variable_counts_as_unset() -> None:
    assert ShopSettings.load({"MINION_STORE_URL": "a", "MINION_SHOP_STORE_SIZE": "", "PORT": "1"}).store_size == 25


def test_overrides_win_and_the_constructor_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINION_STORE_URL", "from the environment")
    monkeypatch.setenv("MINION_STORE_SIZE", "7")
    assert ShopSettings.load().store_size == 7
    assert ShopSettings.load(store_size=9).store_size == 9
    assert ShopSettings(store_url=SecretStr("a")).store_size == 25


def test_all_faults_are_told_at_once_each_with_its_variable() -> None:
    with pytest.raises(SettingsError) as caught:
        ShopSettings.load(
            {"MINION_SHOP_STORE_SIZE": "many", "MINION_STORE_MODE": "slow", "MINION_STORE_LIMITS": "{", "PORT": "1"}
        )
    told = {fault.variable: fault.description for fault in caught.value.faults}
    assert set(told) == {
        "MINION_SHOP_STORE_SIZE",
        "MINION_STORE_MODE",
        "MINION_STORE_LIMITS",
        "MINION_SHOP_STORE_URL or MINION_STORE_URL",
    }
    assert "(is 'many')" in told["MINION_SHOP_STORE_SIZE"]
    assert all(variable in str(caught.value) for variable in told)
    assert "4 faults" in str(caught.value)


def test_faults_between_settings_are_told() -> None:
    with pytest.raises(SettingsError, match="MINION_STORE_SIZE: must be at most 100"):
        StoreSettings.load({"MINION_STORE_URL": "a", "MINION_STORE_MODE": "fast", "MINION_STORE_SIZE": "101"})


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(SettingsError, match="sise: is no setting"):
        StoreSettings.load({"MINION_STORE_URL": "a"}, sise=1)


def test_secrets_stay_out_of_messages_and_representations() -> None:
    class Keyed(Settings):
        """Keyed."""

        key: SecretStr = Field(min_length=32, description="A long key.")

    with pytest.raises(SettingsError) as caught:
        Keyed.load({"MINION_KEY": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(Keyed(key=SecretStr("hunter2" * 5)))
    with pytest.raises(ValidationError) as direct:
        Keyed(key=SecretStr("hunter2"))
    assert "hunter2" not in str(direct.value)


def test_settings_are_frozen() -> None:
    loaded = StoreSettings.load({"MINION_STORE_URL": "a"})
    with pytest.raises(ValidationError):
        loaded.store_size = 1  # type: ignore[misc]


def test_a_setting_with_no_description_is_refused() -> None:
    with pytest.raises(TypeError, match="silent"):

        class Silent(Settings):
            """Silent."""

            silent: int = 1


def test_env_example_shows_every_setting_once() -> None:
    text = env_example([ShopSettings, StoreSettings])
    assert text.count("#MINION_STORE_SIZE=25") == 1
    assert "#MINION_SHOP_PORT=50099" in text
    assert "#PROVIDER_KEY=\n" in text
    assert "One of: fast, safe." in text
    assert "Where the store is. Required." in text
    assert "#MINION_STORE_DEBUG=false" in text
    assert text.index("# --- Every service ---") < text.index("# --- The store ---") < text.index("# --- The shop ---")
    assert all(line.startswith("#") or not line for line in text.splitlines())


def test_what_was_meant_to_be_a_setting_is_told() -> None:
    environ = {
        "MINION_STORE_SIZE": "3",
        "MINION_SHOP_STORE_URL": "a",
        "PROVIDER_KEY": "k",
        "MINION_STORE_SIEZ": "3",
        "MINION_SHOP_STORE_DEBG": "true",
        "MINION_SHOP_COLOUR": "red",
        "MINION_SHOP_ADDRESS": "localhost:50099",
        "MINION_MARKET_STALLS": "7",
        "STORE_SIZ": "4",
    }
    assert list(unknown(ShopSettings, environ)) == [
        Unknown("MINION_SHOP_COLOUR", ""),
        Unknown("MINION_SHOP_STORE_DEBG", "MINION_SHOP_STORE_DEBUG"),
        Unknown("MINION_STORE_SIEZ", "MINION_STORE_SIZE"),
    ]
