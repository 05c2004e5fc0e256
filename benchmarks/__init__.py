"""The figures: one file each, measured in turn with a yardstick in the same run."""
