"""Messages: appended, listed, and given to models as context."""
