"""Language and embedding models behind one face: providers, prices, token estimates."""
