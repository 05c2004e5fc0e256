"""What becomes of sessions whose time is up."""
