"""Alembic's entry point: runs the migrations on the connection that ControlStore.migrate hands over."""

from alembic import context

from components.control.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
