"""The console: pages for the person on call, rendered here and kept live by server-sent events."""
