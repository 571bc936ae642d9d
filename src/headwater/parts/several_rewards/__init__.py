"""What methods share that read several rewards of each step."""
