import pickle

import pytest

from diet_ray.engine.failures import describe, restore
from diet_ray.errors import BadInputError, ConfigError, DietError

SIMPLE = [kind for kind in DietError.__subclasses__() if kind is not BadInputError]
BAD = BadInputError("log/a.parquet", "row 3 holds NaN", column="price", remedy="fill it in")


def test_bad_input_names_file_column_problem_and_remedy() -> None:
    assert str(BAD) == "log/a.parquet, column 'price': row 3 holds NaN (fill it in)"
    assert str(BadInputError("a.csv", "is empty")) == "a.csv: is empty"
    assert (BAD.file, BAD.column) == ("log/a.parquet", "price")


def test_every_error_exits_with_two() -> None:
    assert len(SIMPLE) >= 5
    assert all(kind("x").exit_code == 2 for kind in SIMPLE)
    assert BAD.exit_code == 2


@pytest.mark.parametrize("error", [*(kind("what to do") for kind in SIMPLE), BAD, BadInputError("f", "p")], ids=repr)
def test_errors_survive_pickle_and_json(error: DietError) -> None:
    for back in (pickle.loads(pickle.dumps(error)), restore(describe(error))):
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert vars(back) == vars(error)


def test_restore_of_a_kind_from_elsewhere_is_still_a_diet_error() -> None:
    class Odd(ConfigError):
        pass

    back = restore(describe(Odd("hello")))
    assert isinstance(back, DietError)
    assert str(back) == "hello"
