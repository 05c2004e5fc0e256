"""Settings: where values come from, and what a person is told when they are wrong."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import pytest
from minion_settings import (
    Address,
    Fault,
    HttpAddress,
    Settings,
    SettingsError,
    Unknown,
    env_example,
    relation,
    unknown,
)
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

    @relation
    def _fast_is_small(self) -> Iterator[Fault]:
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


class WindowSettings(StoreSettings):
    """The shop's window, with relations of its own."""

    window_width: int = Field(10, ge=1, description="How wide it is.")
    window_name: str = Field(description="What is written on it.")

    @property
    def letters(self) -> int:
        return len(self.window_name)

    @relation
    def _name_fits(self) -> Iterator[Fault]:
        if self.letters > self.window_width:
            yield Fault(self.variable("window_name"), "does not fit")

    @relation
    def _width_goes_with_the_store(self) -> Iterator[Fault]:
        if self.window_width > self.store_size:
            yield Fault(self.variable("window_width"), "is wider than the store")


def test_faults_between_settings_are_told_beside_those_of_single_ones() -> None:
    with pytest.raises(SettingsError) as caught:
        WindowSettings.load(
            {
                "MINION_STORE_LIMITS": "{",
                "MINION_STORE_MODE": "fast",
                "MINION_STORE_SIZE": "101",
                "MINION_WINDOW_WIDTH": "3",
                "MINION_WINDOW_NAME": "Shop",
            },
            sise=1,
        )
    assert {fault.variable: fault.description for fault in caught.value.faults} == {
        "MINION_STORE_URL": "is required: Where the store is.",
        "MINION_STORE_LIMITS": "is not valid JSON",
        "MINION_STORE_SIZE": "must be at most 100 in mode fast",
        "MINION_WINDOW_NAME": "does not fit",
        "sise": "is no setting",
    }
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize("width", ["wide", "200"])
def test_a_relation_that_reads_a_faulty_setting_is_silent_and_hides_no_other(width: str) -> None:
    environ = {"MINION_STORE_MODE": "fast", "MINION_STORE_SIZE": "101", "MINION_STORE_URL": "a"}
    with pytest.raises(SettingsError) as caught:
        # The name is missing, and is read by way of a property.
        WindowSettings.load({**environ, "MINION_WINDOW_WIDTH": width})
    told = [fault.variable for fault in caught.value.faults]
    assert sorted(told) == ["MINION_STORE_SIZE", "MINION_WINDOW_NAME", "MINION_WINDOW_WIDTH"]


def test_a_relation_defined_again_stands_in_for_its_base() -> None:
    class Roomy(StoreSettings):
        """Roomy."""

        @relation
        def _fast_is_small(self) -> Iterator[Fault]:
            if self.store_mode == "fast" and self.store_size > 1_000:
                yield Fault(self.variable("store_size"), "must be at most 1,000 in mode fast")

    environ = {"MINION_STORE_URL": "a", "MINION_STORE_MODE": "fast"}
    assert Roomy.load({**environ, "MINION_STORE_SIZE": "1000"}).store_size == 1_000
    with pytest.raises(SettingsError) as caught:
        Roomy.load({**environ, "MINION_STORE_SIZE": "1001"})
    assert [fault.description for fault in caught.value.faults] == ["must be at most 1,000 in mode fast"]


def test_a_relation_hides_no_strangers() -> None:
    class Lent(Settings):
        """Lent."""

        @relation
        def _fast_is_small(self) -> Iterator[Fault]:
            yield from ()

    with pytest.raises(TypeError, match="the relation _fast_is_small of Lent hides that of StoreSettings"):

        class Both(Lent, StoreSettings):
            """Both."""


def test_a_mistake_in_a_relation_is_not_taken_for_a_faulty_setting() -> None:
    class Mistaken(StoreSettings):
        """Mistaken."""

        @relation
        def _mistaken(self) -> Iterator[Fault]:
            yield Fault(self.nowhere, "is never told")  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="nowhere"):
        Mistaken.load({"MINION_STORE_SIZE": "0"})


def test_no_time_and_no_share_is_endless() -> None:
    class Timed(Settings):
        """Timed."""

        seconds: float = Field(1.0, gt=0, description="How long it takes.")

    for text in ("inf", "nan", "-inf"):
        with pytest.raises(SettingsError, match=f"MINION_SECONDS: Input should be a finite number .is '{text}'"):
            Timed.load({"MINION_SECONDS": text})


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ftp://user:hunter2@host/", "***@host/"),
        ("grpc://user:hun/ter2@host:1", "***@host:1"),
        ("user:hunter2@host:50051", "***@host:50051"),
        ("ftp://user:h@hunter2@host:1", "***@host:1"),
        ("user:hun ter2\n@host", "***@host"),
    ],
)
def test_no_password_is_shown(address: str, shown: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Called.load({"MINION_PEER": address, "MINION_SITE": address})
    assert [fault.description.rpartition(" (is ")[2] for fault in caught.value.faults] == [f"'{shown}')"] * 2
    assert "ter2" not in str(caught.value)


def test_what_is_shown_of_a_value_is_short() -> None:
    class Placed(Settings):
        """Placed."""

        place: HttpAddress = Field("http://localhost:1", description="Where it is.")
        limits: dict[str, int] = Field({}, description="Limits by name, as JSON.")

    limits = "{" + ", ".join(f'"{number}": "many"' for number in range(90)) + "}"
    with pytest.raises(SettingsError) as caught:
        Placed.load({"MINION_PLACE": "ftp://host/" + "a" * 300, "MINION_LIMITS": limits})
    assert "(is 'ftp://host/aaa" in str(caught.value)
    assert all(len(fault.description) < 250 for fault in caught.value.faults)


@pytest.mark.parametrize(
    "address",
    ["localhost:1", "registry.example:50051", "[::1]:65535", "dns:///registry:50051", "unix:/run/minion.sock"],
)
def test_an_address_is_a_host_with_a_port_or_a_target_of_grpc(address: str) -> None:
    assert Called.load({"MINION_PEER": address}).peer == address


@pytest.mark.parametrize(
    "address",
    ["registry", "http://registry:50051", "registry:0", "registry:65536", "registry:http", ":50051", "a b:1", "a:1/x"],
)
def test_what_can_be_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="MINION_PEER: must be host:port"):
        Called.load({"MINION_PEER": address})


@pytest.mark.parametrize("address", ["http://", "localhost:4317", "ftp://a", "http://a:x", "http://a:99999", "a"])
def test_what_can_be_no_address_of_http_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="MINION_SITE: must be an address such as http"):
        Called.load({"MINION_SITE": address})


class Called(Settings):
    """Called."""

    peer: Address = Field("localhost:1", description="Who is called.")
    site: HttpAddress = Field("http://localhost:1", description="What is called.")


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
