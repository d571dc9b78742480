"""What is trained and streamed: each system composes components."""
