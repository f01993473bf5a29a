"""`reading_ahead.ahead`: the same items, one made while the last is used."""

import threading

import pytest

from modeling_avlmm.reading_ahead import ahead


def test_the_items_are_those_of_the_iterable():
    assert list(ahead(range(5))) == list(range(5))
    assert list(ahead([])) == []


def test_the_next_item_is_made_while_the_last_is_used_and_no_more():
    made, second, third = [], threading.Event(), threading.Event()

    def items():
        for item, event in enumerate((threading.Event(), second, third)):
            made.append(threading.get_ident())
            event.set()
            yield item

    running = ahead(items())
    assert next(running) == 0
    assert second.wait(10)  # although nobody has asked for it
    assert not third.wait(0.05)
    assert list(running) == [1, 2]
    assert threading.get_ident() not in made


def test_an_error_comes_in_place_of_its_item():
    def items():
        yield 1
        raise ValueError("damaged")

    running = ahead(items())
    assert next(running) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(running)


def test_stopping_early_ends_the_thread():
    running = ahead(range(100))
    assert next(running) == 0
    running.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
