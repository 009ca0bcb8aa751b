"""Gold images: what is known of an image that many hosts are made from, and which level may use which version of it."""
