"""The activity service: what agents did, how long it took, what it cost."""
