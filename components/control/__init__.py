"""The control database: durable intent, orders, rollouts, windows, runs, alarms. SQLite by default, any SQLAlchemy URL."""
