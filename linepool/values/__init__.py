"""How values are written, as words and as JSON: what protocols and handlers share."""
