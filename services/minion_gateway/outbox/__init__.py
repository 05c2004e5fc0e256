"""What the inference service tells the audit; runs tell it themselves."""
