import hashlib

from minion_auth import api_keys


def test_a_key_is_random_shows_its_prefix_and_is_stored_as_its_digest() -> None:
    first, second = api_keys.generate(), api_keys.generate()
    assert first.secret != second.secret
    assert first.secret.startswith(first.prefix)
    assert first.prefix.startswith("mnk_")
    assert len(first.secret) - len("mnk_") >= 22  # 128 bits in base64
    assert first.digest == hashlib.sha256(first.secret.encode()).digest() == api_keys.digest(first.secret)
    assert api_keys.is_well_formed(first.secret)


def test_a_key_does_not_show_its_secret_when_printed() -> None:
    key = api_keys.generate()
    assert key.secret not in repr(key)
    assert key.secret not in f"{key}"
