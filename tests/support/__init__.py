"""What several tests need: small logs, small runs, small nets, a server that speaks S3."""
