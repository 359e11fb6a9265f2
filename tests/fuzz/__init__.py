"""Any bytes, cut anywhere, moved between processes or not: what every protocol must do with them."""
