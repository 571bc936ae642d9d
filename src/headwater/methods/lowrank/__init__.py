"""Methods that learn low-rank factors of finite processes, from episodes."""
