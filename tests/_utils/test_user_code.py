"""The line of the user's code that an error came through."""

from chainrule._utils.user_code import find_place
from chainrule.errors import ChainruleError


def catch(function):
    try:
        function()
    except Exception as error:
        return error
    return None


def fail():
    raise ValueError("mine")


def wrap():
    try:
        fail()
    except ValueError as error:
        raise ChainruleError("ours") from error


def wrap_twice():
    try:
        wrap()
    except ChainruleError as error:
        raise ChainruleError("ours again") from error


def test_an_error_of_chainrule_stands_for_its_cause():
    for function in (fail, wrap, wrap_twice):
        place = find_place(catch(function))
        assert place is not None
        assert (place.function, place.text) == ("fail", 'raise ValueError("mine")')
        assert place.file == __file__


def test_one_raised_for_its_own_sake_has_no_place():
    def refuse():
        raise ChainruleError("a value must be positive")

    assert find_place(catch(refuse)) is None
