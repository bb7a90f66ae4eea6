"""The control database: intent, orders, rollouts, windows, runs, alarms. SQLite by default, any SQLAlchemy URL."""
