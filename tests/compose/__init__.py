"""docker compose: the file (always), and a campaign in containers (`make test-compose`)."""
