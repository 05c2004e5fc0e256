"""`minion demo`: a real agent over two sessions, and everything that can be seen of it afterwards."""
