"""The development stack: embedded Postgres, five services, a seeded tenant and agent; all kept in one directory."""
