"""Chat providers: each speaks its own protocol outwards and `inference.domain` inwards."""
