"""The tools that agents call: arguments checked, time limited, effects keyed."""
