import pytest

from components.contracts.errors import ConfigError
from infra.cli import run_guarded


@pytest.mark.parametrize("remedy", ["pip install 'cohobate[masking]'", "is no tag: [/srv/mail]", "[red]"])
def test_an_error_is_printed_as_it_is(capsys, remedy):
    def fail():
        raise ConfigError("masking.entities", "EMAIL", remedy)

    with pytest.raises(SystemExit) as ended:
        run_guarded(fail)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: {ConfigError('masking.entities', 'EMAIL', remedy)}\n"
