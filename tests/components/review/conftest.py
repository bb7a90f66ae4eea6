from tests.components.teachers.conftest import chat_server, quick  # noqa: F401
