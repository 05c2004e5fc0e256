SELECT 1; -- Written with its part.
