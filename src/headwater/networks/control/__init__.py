"""Networks of actors, critics and models of a process."""
