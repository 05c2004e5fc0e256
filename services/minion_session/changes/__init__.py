"""What happens to sessions, told in an order that loses nothing."""
