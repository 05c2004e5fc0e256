-- What keys that were rotated were made for is forgotten.
ALTER TABLE registry.api_keys DROP COLUMN first_expire_time;
