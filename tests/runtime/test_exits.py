"""How commands end; by mistakes and closed pipes is seen in the tests of each."""

from mnist_jax.runtime import exits


def test_ctrl_c_is_no_crash(capsys):
    @exits.command
    def interrupted(argv):
        raise KeyboardInterrupt

    assert interrupted([]) == 130
    assert capsys.readouterr() == ("", "stopped\n")
