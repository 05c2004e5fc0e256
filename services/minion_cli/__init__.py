"""`minion`: the development stack, the demo, conversations, and administration through the services' own RPCs."""
