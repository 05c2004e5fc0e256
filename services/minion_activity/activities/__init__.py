"""Activities: recorded once, read, summed up for each agent."""
